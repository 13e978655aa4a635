"""The published figures of boards: half are kept out of fitting, and the profiles hold what the other half gives."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from benchmarks import boards, networks
from edgekit.report.advice import predicted_speedup
from edgekit_runtime.measurement import Latency


@pytest.mark.parametrize(
    ("model", "mmacs"),
    [
        ("alexnet", 724), ("vgg16", 15_470), ("squeezenet", 352), ("resnet18", 1_814), ("resnet50", 4_089),
        ("resnet101", 7_801), ("wide_resnet50", 11_398), ("mobilenet_v1", 569), ("mobilenet_v2", 301),
    ],
)  # fmt: skip
def test_a_network_has_the_work_its_paper_states(model: str, mmacs: int) -> None:
    ops = networks.ops(model, int8=False)
    assert ops is not None
    assert sum(op.macs or 0 for op in ops) / 1e6 == pytest.approx(mmacs, rel=0.01)  # the papers round


def test_half_of_the_figures_are_held_out_and_most_are_predicted_within_35_percent() -> None:
    held = [row for row in boards.rows() if row.published.use == "held_out"]
    errors, inside = [], []
    for row in held:
        made, told = row.predicted(), row.published.latency_ms.value
        low, high = made.interval(1.2816)
        errors.append(abs(made.ms / told - 1))
        inside.append(low <= told <= high)
    assert len(held) >= 35
    assert np.mean(np.array(errors) <= 0.35) >= 0.6
    assert 0.7 <= np.mean(inside) <= 0.9


def test_the_speedup_of_int8_lies_where_it_is_predicted_on_the_figures_held_out() -> None:
    inside = []
    for fp32, int8 in boards.pairs(boards.rows(), use="held_out"):
        told = fp32.published.latency_ms.value / int8.published.latency_ms.value
        for rates in (fp32.profile.rates, ()):  # with what the profile states, and from its peaks alone
            profile = msgspec.structs.replace(fp32.profile, rates=rates)
            made, wanted = (
                Latency(n=0, p50=each.ms, interval_95=each.interval(1.96))
                for each in (int8.predicted(profile), fp32.predicted(profile))
            )
            low, high = predicted_speedup(made, wanted)
            inside.append(low <= told <= high)
    assert len(inside) >= 14
    assert np.mean(inside) >= 0.9


def test_the_profiles_hold_the_rates_that_the_fit_gives() -> None:
    pytest.importorskip("scipy")
    group = next(g for g in boards.groups(boards.rows()) if g[0].profile.name == "pi4" and g[0].threads == 1)
    held = {(r.engine, r.precision, r.threads, r.family): r.gmacs_per_s.value for r in group[0].profile.rates}
    for rate in boards.fit(group):
        stated = held[(rate.engine, rate.precision, rate.threads, rate.family)]
        assert stated == pytest.approx(rate.gmacs_per_s.value, rel=0.02)  # the solver's own tolerance

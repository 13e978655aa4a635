"""The page of exits: what is measured again, and the arithmetic of its rows."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks import exits, exits_rows
from edgekit_converters.exits.certify import Samples, certify, common_path
from edgekit_runtime.errors import Refused

ROW = exits_rows.Row("a CNN", "onnx.int8", 0.5, 500, 0.01, 0.002, (0.6, 0.4), (0.9, 0.0), 0.01, None)
TIMED = exits_rows.Times(100.0, 40.0)


@pytest.fixture
def studied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[exits.Study]:
    """The studies that ran."""
    found: list[exits.Study] = []

    def study(one: exits.Study) -> list[exits_rows.Row]:
        found.append(one)
        times = TIMED if one.timed else None
        return [exits_rows.Row(**{name: getattr(ROW, name) for name in ROW.__struct_fields__} | {"times": times})]

    def broken(one: exits.Study) -> list[exits_rows.Row]:
        found.append(one)
        raise Refused("bert_small is not trained", remedy="train it")

    monkeypatch.setattr(exits, "FOLDER", tmp_path)
    monkeypatch.setattr(exits, "STUDIES", {"good": study, "bad": broken})
    monkeypatch.setattr(exits, "WEIGHTS", {"good": (tmp_path / "good.safetensors",), "bad": ()})
    monkeypatch.setattr(exits, "of_code", lambda places, *told: " ".join(told))
    return found


def test_a_run_without_times_is_kept_and_a_later_one_adds_them(studied: list[exits.Study]) -> None:
    page = exits.run(["good", "--untimed"])
    assert "not timed" in page and "60% 40%" in page
    exits.run(["good", "--untimed"])
    assert len(studied) == 1
    assert "| 100 | 40 | 0.40x | ≤ 0.5x | met |" in exits.run(["good"])
    exits.run(["good"])
    assert len(studied) == 2


def test_other_weights_are_measured_again(studied: list[exits.Study], tmp_path: Path) -> None:
    exits.run(["good"])
    (tmp_path / "good.safetensors").write_bytes(b"new")
    exits.run(["good"])
    assert len(studied) == 2


def test_a_study_that_cannot_run_says_why_and_is_tried_again(studied: list[exits.Study]) -> None:
    page = exits.run([])
    assert "not measured: bad: bert_small is not trained" in page and "| a CNN |" in page
    exits.run([])
    assert [one.name for one in studied] == ["good", "bad", "bad"]


def test_the_smallest_risk_is_certified_when_nothing_is_lost_and_not_when_one_is() -> None:
    n, risk = 500, exits_rows.smallest_risk(500)
    assert 0.005 < risk < 0.0065
    left = n - -(-n // exits_rows.folds(n))
    scores = np.stack([np.linspace(0.5, 0.99, left), np.ones(left)])
    for lost in (0, 1):
        losses = np.zeros((2, left))
        losses[0, :lost] = 1.0
        step = certify(Samples(scores, losses), common_path(2), risk, 0.95)
        assert (step.exit_fractions[0] == 1.0) == (lost == 0)


def test_rows_use_thresholds_of_the_other_parts() -> None:
    rng = np.random.default_rng(0)
    sure = rng.random(2000)
    samples = Samples(np.stack([sure, np.ones(2000)]), np.stack([(sure < 0.3).astype(float), np.zeros(2000)]))
    row = exits_rows.measured(("a", "b"), 0.5, samples, None)
    assert row.times is None and row.disagreement <= 0.01 and 0.65 < row.fractions[0] < 0.75
    assert abs(sum(row.fractions) - 1) < 1e-9 and row.exceeded <= 0.08
    assert msgspec.json.decode(msgspec.json.encode(row), type=exits_rows.Row) == row


def test_times_are_means_of_the_fastest_full_model_and_of_the_exits() -> None:
    slow: list[int] = []
    samples = Samples(np.ones((2, 500)), np.zeros((2, 500)))
    whole = (lambda number: sum(range(20_000)), lambda number: sum(range(40_000)))
    row = exits_rows.measured(("a", "b"), 0.5, samples, (whole, lambda thresholds, number: slow.append(number)))
    assert row.times is not None and 0 < row.times.early_us < row.times.full_us
    assert 0 < len(set(slow)) <= exits_rows.TIMED

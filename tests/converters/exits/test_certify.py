from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_converters.exits.certify import (
    Samples,
    certify,
    common_path,
    exact_binomial,
    fitted_path,
    hoeffding_bentkus,
    left_at,
    outcome,
    p_value,
    samples_needed,
)
from edgekit_runtime.exits import NEVER


def population(n: int, seed: int = 0) -> Samples:
    """Two exits and the full answer; surer is more often right, the second exit better than the first."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n)
    scores = np.stack([np.clip(1 - hard * 0.9 + rng.normal(0, 0.05, n), 0, 1) for _ in range(2)] + [np.ones(n)])
    losses = np.stack([rng.random(n) < hard**2 * 0.5, rng.random(n) < hard**4 * 0.3, np.zeros(n, bool)])
    return Samples(scores, losses.astype(np.float64))


@settings(deadline=None)
@given(st.integers(1, 400), st.floats(0.001, 0.5), st.data())
def test_the_exact_p_value_is_the_sum_of_the_binomial_terms(n: int, risk: float, data: st.DataObject) -> None:
    from math import comb

    errors = data.draw(st.integers(0, min(n, 8)))
    terms = sum(comb(n, k) * risk**k * (1 - risk) ** (n - k) for k in range(errors + 1))
    assert exact_binomial(errors, n, risk) == pytest.approx(min(terms, 1.0), rel=1e-7, abs=1e-300)


@settings(deadline=None)
@given(st.integers(10, 2000), st.floats(0.002, 0.3), st.floats(0, 1))
def test_more_losses_never_make_the_p_value_smaller(n: int, risk: float, share: float) -> None:
    few, many = sorted((int(share * n), int(share * n * 0.5)))
    assert exact_binomial(few, n, risk) <= exact_binomial(many, n, risk)
    assert hoeffding_bentkus(few / n, n, risk) <= hoeffding_bentkus(many / n, n, risk) + 1e-12


@settings(deadline=None)
@given(st.integers(10, 2000), st.floats(0.002, 0.3), st.integers(0, 20))
def test_the_exact_p_value_is_the_sharper_one(n: int, risk: float, errors: int) -> None:
    errors = min(errors, n)
    assert exact_binomial(errors, n, risk) <= hoeffding_bentkus(errors / n, n, risk) + 1e-12


def test_losses_between_0_and_1_are_tested_by_hoeffding_and_bentkus() -> None:
    whole, parts = np.array([0.0, 1.0] + [0.0] * 998), np.array([0.5, 0.5] + [0.0] * 998)
    assert p_value(whole, 0.01) == exact_binomial(1, 1000, 0.01)
    assert p_value(parts, 0.01) == hoeffding_bentkus(0.001, 1000, 0.01)


@settings(deadline=None)
@given(st.floats(0.001, 0.2), st.floats(0.5, 0.999))
def test_the_samples_needed_are_the_fewest_that_can_certify(risk: float, confidence: float) -> None:
    n = samples_needed(risk, confidence)
    assert exact_binomial(0, n, risk) <= 1 - confidence + 1e-12
    assert n == 1 or exact_binomial(0, n - 1, risk) > 1 - confidence - 1e-12


def test_299_samples_without_a_loss_certify_a_risk_of_one_percent() -> None:
    assert samples_needed(0.01, 0.95) == 299


def test_too_few_samples_are_told_and_nothing_exits() -> None:
    found = certify(population(200), common_path(3), 0.01, 0.95)
    assert "200 samples" in found.reason and "299" in found.reason
    assert found.thresholds == (NEVER, NEVER, 0.0) and found.exit_fractions == (0.0, 0.0, 1.0)


def test_thresholds_that_lose_too_much_from_the_start_are_not_certified() -> None:
    sure_and_wrong = Samples(np.ones((2, 500)), np.stack([np.ones(500), np.zeros(500)]))
    found = certify(sure_and_wrong, common_path(2), 0.01, 0.95)
    assert found.thresholds == (NEVER, 0.0) and "most careful" in found.reason


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_each_step_of_a_path_exits_at_least_as_often(seed: int) -> None:
    samples = population(300, seed)
    for path in (common_path(3), fitted_path(population(200, seed + 1))):
        depth = [left_at(samples, thresholds).mean() for thresholds in path]
        assert (np.diff(depth) <= 1e-12).all()
        assert (path[:, -1] == 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_larger_risk_never_exits_less(seed: int) -> None:
    samples = population(1500, seed)
    steps = [certify(samples, common_path(3), risk, 0.95).step for risk in (0.005, 0.01, 0.02, 0.05)]
    assert steps == sorted(steps)


def test_the_certified_risk_is_exceeded_in_at_most_five_percent_of_redraws() -> None:
    # 500 calibration sets drawn from a population whose true risks are known; the last is drawn without end.
    everyone = population(200_000, 7)
    path, risk, redraws = common_path(3), 0.02, 500
    true = np.array([outcome(everyone, thresholds)[0].mean() for thresholds in path])
    rng = np.random.default_rng(1)
    steps = [certify(everyone.rows(rng.integers(0, everyone.n, 600)), path, risk, 0.95).step for _ in range(redraws)]
    exceeded = np.mean([step >= 0 and true[step] > risk for step in steps])
    # 0.05 and three standard errors of a share of 500
    assert exceeded <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / redraws)
    # and the certificate is worth something: on average more than a third leaves early
    assert np.mean([outcome(everyone, path[s])[1][-1] for s in steps[:50] if s >= 0]) < 0.67


def test_a_path_fitted_on_samples_without_a_loss_still_finds_where_to_stop() -> None:
    seen = population(2000, 5)
    learnt = Samples(seen.scores, np.zeros_like(seen.losses))
    path = fitted_path(learnt)
    assert (np.diff(path, axis=0) <= 0).all()
    found = certify(population(2000, 6), path, 0.02, 0.95)
    common = certify(population(2000, 6), common_path(3), 0.02, 0.95)
    assert found.exit_fractions[-1] < 1.0
    assert found.exit_fractions[-1] == pytest.approx(common.exit_fractions[-1], abs=0.02)


def test_a_fitted_path_trusts_the_exit_that_deserves_it() -> None:
    path = fitted_path(population(4000, 3))
    middle = path[np.flatnonzero(path[:, 1] < 1)[20]]
    assert middle[0] > middle[1]

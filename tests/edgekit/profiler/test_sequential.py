"""Ending early costs no honesty: seeded simulations of whole comparisons, and the same without the spending rule."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekit.profiler import comparison, sequential, statistics
from edgekit.profiler.comparison import Turns, conclude, take_rounds
from edgekit.profiler.sequential import ALPHA, LOOKS, MOST_ROUNDS, share, spent, t_quantile

MARGIN = 0.02
TRIALS = 600


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples: with so few rounds the wider interval, that of t, decides anyway."""
    real = statistics.ratio_interval
    monkeypatch.setattr(statistics, "ratio_interval", lambda rounds, **more: real(rounds, resamples=100, **more))


def simulate(ratio: float, seed: int, scatter: float, rounds: int = MOST_ROUNDS) -> comparison.Comparison:
    """One comparison whose rounds scatter around a true ratio; the time is over after some rounds."""
    generator = np.random.default_rng(seed)

    def measure(number: int) -> Turns:
        here = ratio * math.exp(generator.normal(0, scatter))
        return Turns(list(here * generator.lognormal(0, 0.01, 12)), [1.0] * 12, 0.0, 1.0)

    clock = iter(range(1, 99))
    found, alpha = take_rounds(measure, MARGIN, lambda: float(next(clock)), float(rounds))
    return conclude("a", "b", found, MARGIN, 1.0, alpha=alpha)


@pytest.mark.parametrize("scatter", [0.005, 0.02])
def test_at_the_margin_itself_a_difference_is_said_in_no_more_than_its_share(scatter: float):
    """Where A is slower by exactly the margin `slower` is wrong, and no smaller difference is said more often."""
    found = [simulate(1 + MARGIN, seed, scatter) for seed in range(TRIALS)]
    wrong = sum(each.verdict == "slower" for each in found)
    missed = sum(not each.interval_95[0] <= 1 + MARGIN <= each.interval_95[1] for each in found)
    # Of 600, 2.5 % are 15 and 5 % are 30; three standard errors are 11.5 and 16.
    assert wrong <= 26
    assert missed <= 46


def test_looking_after_each_round_without_spending_is_wrong_far_more_often():
    """What the rule is for; this also shows that the simulation can fail."""
    naive = 0
    for seed in range(TRIALS):
        generator = np.random.default_rng(seed)
        logs = math.log(1 + MARGIN) + generator.normal(0, 0.02, MOST_ROUNDS)
        for done in range(6, MOST_ROUNDS + 1):
            mean, error = logs[:done].mean(), logs[:done].std(ddof=1) / math.sqrt(done)
            if mean - t_quantile(0.975, done - 1) * error > math.log(1 + MARGIN):
                naive += 1
                break
    assert naive > 30  # twice what is allowed


def test_a_graph_against_itself_and_one_ten_percent_slower_are_told_apart():
    """The aims of the profiler's page, on a machine whose fresh processes differ by 2 %."""
    same = [simulate(1.0, seed, 0.02).verdict for seed in range(200)]
    slower = [simulate(1.1, seed, 0.02).verdict for seed in range(200)]
    assert sum(verdict != "no_difference_shown" for verdict in same) <= 30  # 6 of 40
    assert sum(verdict == "slower" for verdict in slower) >= 170  # 34 of 40


def test_a_clear_answer_ends_a_comparison_at_the_first_look():
    found = simulate(1.5, 1, 0.005)
    assert (len(found.runs), found.verdict) == (LOOKS[0], "slower")
    assert found.alpha == share(LOOKS[0], last=False)


@pytest.mark.parametrize("rounds", [4, 5, 7, 10])
def test_a_comparison_that_the_clock_ends_spends_what_is_left(rounds: int):
    found = simulate(1.06, 3, 0.05, rounds)
    assert len(found.runs) == rounds
    assert found.alpha == share(rounds, last=True)


def test_all_looks_together_spend_the_error_and_no_more():
    for end in range(sequential.FEWEST_ROUNDS, MOST_ROUNDS + 1):
        looks = [share(done, last=False) for done in range(1, end)]
        assert sum(looks) + share(end, last=True) == pytest.approx(ALPHA)
    assert [share(done, last=False) > 0 for done in range(1, MOST_ROUNDS)] == [
        done in LOOKS for done in range(1, MOST_ROUNDS)
    ]
    assert spent(6) == pytest.approx(0.00557, abs=1e-5)  # 2 (1 - Phi(1.960 / sqrt(0.5)))


@pytest.mark.parametrize(
    ("probability", "degrees", "t"),
    [(0.975, 1, 12.706), (0.975, 3, 3.182), (0.975, 11, 2.201), (0.995, 5, 4.032), (0.5, 4, 0.0)],
)
def test_quantiles_of_t_are_those_of_the_tables(probability: float, degrees: int, t: float):
    assert t_quantile(probability, degrees) == pytest.approx(t, abs=6e-4)


def test_t_has_no_quantile_outside_of_its_range():
    for probability, degrees in ((0.4, 3), (1.0, 3), (0.9, 0)):
        with pytest.raises(ValueError, match="no quantile"):
            t_quantile(probability, degrees)

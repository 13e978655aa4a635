from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.profiler.statistics import (
    MINIMA,
    assess,
    decide,
    drift,
    median_interval,
    minimum_samples,
    percentile,
    percentile_interval,
    ratio_interval,
    spread,
    steady,
    summarise,
    trimmed_mean,
    withheld,
)

latencies = st.lists(st.floats(0.001, 1000.0), min_size=11, max_size=200)


def test_the_minima_are_those_of_the_published_table():
    assert MINIMA == {"p50": 11, "p90": 64, "p95": 130, "p99": 662, "p99.9": 6636}


@given(st.floats(0.3, 0.995), st.floats(0.8, 0.999))
@settings(max_examples=60, deadline=None)
def test_the_minimum_is_the_first_sample_size_that_meets_its_own_rule(fraction: float, confidence: float):
    n = minimum_samples(fraction, confidence)

    def beyond(count: int) -> float:
        return count * (1 - fraction) * fraction ** (count - 1) + fraction**count

    assert beyond(n) < 1 - confidence
    assert n == 2 or beyond(n - 1) >= 1 - confidence


@pytest.mark.parametrize("name", MINIMA)
def test_a_percentile_is_withheld_one_sample_below_its_minimum_and_given_at_it(name: str):
    samples = list(np.linspace(1, 2, MINIMA[name]))
    assert percentile(samples, name) is not None
    assert percentile(samples[:-1], name) is None


def test_what_is_withheld_says_what_it_needs_and_what_it_has():
    assert withheld(50) == {"p90": "needs 64 samples, has 50", "p99": "needs 662 samples, has 50"}
    assert withheld(662) == {}


@given(latencies)
@settings(deadline=None)
def test_percentiles_are_samples_in_rising_order(samples: list[float]):
    found = [value for name in ("p50", "p90") if (value := percentile(samples, name)) is not None]
    assert found == sorted(found)
    assert all(min(samples) <= value <= max(samples) for value in found)


@given(latencies, st.floats(0.01, 100.0))
@settings(deadline=None)
def test_the_median_lies_in_its_interval_and_the_interval_scales_with_the_samples(samples: list[float], factor: float):
    interval = median_interval(samples)
    assert interval is not None
    assert interval[0] <= np.median(samples) <= interval[1]
    scaled = median_interval([value * factor for value in samples])
    assert scaled == pytest.approx([end * factor for end in interval])


def test_the_interval_of_the_median_covers_it_about_95_times_in_100():
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(1000):
        interval = median_interval(generator.lognormal(0.0, 0.5, 101))
        assert interval is not None
        covered += interval[0] <= 1.0 <= interval[1]
    assert 935 <= covered <= 985  # 95 % or a little more; three standard errors of 1000 trials are 21


def test_five_samples_have_no_interval_at_95_percent_and_six_have():
    assert median_interval([1, 2, 3, 4, 5]) is None
    assert median_interval([1, 2, 3, 4, 5, 6]) == (1, 6)
    assert median_interval([]) is None


def test_processes_that_differ_widen_the_interval_to_cover_each_of_them():
    latency = summarise([[1.0] * 50, [1.3] * 50, [1.0] * 50])
    assert latency.interval_95 == (1.0, 1.3)
    assert latency.n == 150
    assert latency.p99 is None


def test_steady_means_that_three_windows_in_a_row_agree():
    assert not steady([1.0, 1.0])
    assert not steady([2.0, 1.5, 1.2])
    assert steady([2.0, 1.01, 1.0, 1.02])


def quiet(n: int = 200, level: float = 1.0) -> list[float]:
    return list(np.random.default_rng(1).normal(level, 0.01, n))


def test_quiet_samples_are_sound_without_a_reason():
    verdict = assess([quiet(), quiet()], cores=2, foreign_cores=0.0)
    assert (verdict.kind, verdict.reasons) == ("sound", ())


@pytest.mark.parametrize(
    ("runs", "arguments", "kind", "reason"),
    [
        ([[1.0] * 10], {}, "invalid", "10 samples are too few"),
        ([list(np.linspace(0.92, 1.16, 100)) * 2], {}, "noisy", "spread by 12%"),
        ([list(np.linspace(0.5, 1.5, 100)) * 2], {}, "invalid", "spread by 50%"),
        ([quiet(100) + quiet(100, 1.08)], {}, "noisy", "drifted by +8%"),
        ([quiet(), quiet(level=1.2)], {}, "noisy", "fresh processes differ"),
        ([quiet()], {"foreign_cores": 0.9, "cores": 2}, "noisy", "other processes used 0.9 of 2 cores"),
        ([quiet()], {"foreign_cores": 0.9, "cores": 2, "threads": 2}, "invalid", "more than this graph left free"),
        ([quiet()], {"became_steady": False}, "noisy", "still changing"),
        ([quiet()], {"remarks": ["the processor throttled"]}, "noisy", "throttled"),
    ],
)
def test_every_disturbance_is_named(runs, arguments, kind: str, reason: str):
    verdict = assess(runs, **arguments)
    assert verdict.kind == kind
    assert any(reason in text for text in verdict.reasons)


@given(latencies, st.floats(0.0, 2.0), st.floats(0.0, 2.0))
@settings(deadline=None)
def test_more_foreign_work_never_makes_a_verdict_better(samples: list[float], one: float, other: float):
    order = ("sound", "noisy", "invalid")
    less, more = sorted((one, other))
    calm, busy = (assess([samples], cores=2, foreign_cores=value).kind for value in (less, more))
    assert order.index(calm) <= order.index(busy)


def test_drift_and_spread_do_not_depend_on_the_unit():
    samples = quiet(50) + quiet(50, 1.1)
    assert drift([value * 7 for value in samples]) == pytest.approx(drift(samples))
    assert spread([value * 7 for value in samples]) == pytest.approx(spread(samples))
    assert drift([1.0]) == 0.0


def rounds(generator: np.random.Generator, ratio: float, between: float, count: int):
    """Rounds as the machine makes them: each pair of processes has its own true ratio, blocks scatter around it."""
    made = []
    for _ in range(count):
        here = ratio * math.exp(generator.normal(0, between))
        b = generator.lognormal(0, 0.02, 20)
        made.append((list(b * here * generator.lognormal(0, 0.01, 20)), list(b)))
    return made


@pytest.mark.parametrize("count", [4, 8, 12])
def test_the_interval_of_the_ratio_covers_the_truth_although_processes_differ(count: int):
    generator = np.random.default_rng(count)
    covered = 0
    for trial in range(150):
        _, low, high = ratio_interval(rounds(generator, 1.1, 0.03, count), seed=trial, resamples=400)
        covered += low <= 1.1 <= high
    assert covered >= 135  # 95 % of 150 is 142; three standard errors are 8


def test_the_same_graph_twice_shows_no_difference_and_ten_percent_is_found():
    generator = np.random.default_rng(5)
    same = [decide(ratio_interval(rounds(generator, 1.0, 0.02, 10))[1:], 0.02) for _ in range(40)]
    slower = [decide(ratio_interval(rounds(generator, 1.1, 0.02, 10))[1:], 0.02) for _ in range(40)]
    assert same.count("no_difference_shown") >= 36
    assert slower.count("slower") >= 38


@given(st.floats(0.2, 5.0), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_swapping_a_and_b_inverts_the_ratio_and_turns_the_verdict(ratio: float, seed: int):
    made = rounds(np.random.default_rng(seed), ratio, 0.01, 6)
    forth = ratio_interval(made, seed=seed)
    back = ratio_interval([(b, a) for a, b in made], seed=seed)
    assert back[0] == pytest.approx(1 / forth[0])
    turned = {"faster": "slower", "slower": "faster"}
    there, here = decide(forth[1:], 0.02), decide(back[1:], 0.02)
    # The bootstrap's two ends carry resampling noise of their own: only an end beside a limit may tip.
    near = any(abs(math.log(end) - side * math.log(1.02)) < 0.002 for end in forth[1:] for side in (-1, 1))
    assert near or here == turned.get(there, there)


def test_rounds_in_which_one_process_was_slowed_move_neither_the_ratio_nor_the_verdict():
    generator = np.random.default_rng(9)
    for count in (6, 9, 12):
        made = rounds(generator, 1.0, 0.004, count)
        slowed = [([value * 1.5 for value in a], b) for a, b in made[:1]] + made[1:]
        assert ratio_interval(slowed)[0] == pytest.approx(1.0, abs=0.01)
    assert decide(ratio_interval(slowed)[1:], 0.02) == "no_difference_shown"


def test_what_holds_in_half_of_the_rounds_is_not_trimmed_away():
    generator = np.random.default_rng(9)
    made = rounds(generator, 1.0, 0.004, 6) + rounds(generator, 1.3, 0.004, 6)
    ratio, low, high = ratio_interval(made)
    assert 1.05 < ratio < 1.25
    assert low < 1.05
    assert high > 1.25


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=12), st.floats(-3, 3))
def test_a_trimmed_mean_moves_with_its_values_and_lies_among_those_that_stay(values: list[float], shift: float):
    cut = len(values) // 4
    mean, error = trimmed_mean(values, cut)
    moved, same_error = trimmed_mean([value + shift for value in values], cut)
    ordered = sorted(values)
    assert ordered[cut] - 1e-12 <= mean <= ordered[-cut - 1] + 1e-12
    assert moved == pytest.approx(mean + shift, abs=1e-9)
    assert same_error == pytest.approx(error, abs=1e-9)


def test_a_mean_with_nothing_trimmed_has_the_usual_standard_error():
    values = [0.1, 0.4, 0.2, 0.9]
    assert trimmed_mean(values, 0) == pytest.approx((np.mean(values), np.std(values, ddof=1) / 2))


def test_one_round_has_no_interval():
    with pytest.raises(ValueError, match="two rounds"):
        ratio_interval([([1.0], [1.0])])


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((1.021, 1.2), "slower"),
        ((1.019, 1.2), "no_difference_shown"),
        ((0.8, 0.97), "faster"),
        ((0.99, 1.01), "no_difference_shown"),
        ((0.8, 1.3), "too_noisy"),
    ],
)
def test_a_difference_counts_only_when_the_interval_excludes_the_margin(interval, verdict: str):
    assert decide(interval, 0.02) == verdict


@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_percentile_intervals_cover_the_truth_whatever_the_distribution(fraction: float):
    generator = np.random.default_rng(3)
    truth = float(np.exp(NormalDist().inv_cdf(fraction) * 0.5))
    hits = 0
    for _ in range(400):
        found = percentile_interval(generator.lognormal(0, 0.5, 150).tolist(), fraction)
        assert found is not None
        hits += found[0] <= truth <= found[1]
    # At least 95 % by construction; 400 trials of exactly 95 % lie above 92.2 % in 99 of 100 cases.
    assert hits / 400 >= 0.922


def test_a_percentile_interval_needs_samples_beyond_it():
    assert percentile_interval([1.0] * 20, 0.99) is None
    assert percentile_interval([], 0.5) is None
    ordered = [float(value) for value in range(1, 101)]
    # Of 100 values, P(Binomial(100, 0.5) < 40) = 0.0176 and < 41 = 0.0284: the 40th and the 61st.
    assert percentile_interval(ordered, 0.5) == (40.0, 61.0)


def test_a_summary_gives_intervals_only_of_percentiles_it_supports():
    latency = summarise([[1.0 + index / 1000 for index in range(100)]])
    assert latency.interval_95_p90 is not None and latency.interval_95_p99 is None
    assert latency.processes == (100,)

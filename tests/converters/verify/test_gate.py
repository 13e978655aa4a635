import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_converters.data import Samples
from edgekit_converters.verify.gate import choose_metric, judge, parse_max_drop
from edgekit_converters.verify.metrics import METRICS, edit_distance, find_metric
from edgekit_runtime.errors import Refused, UsageError

RNG = np.random.default_rng(0)


def _scores(labels, right, classes=4):
    """Scores whose argmax is the label where `right`, the next class where not."""
    guesses = np.where(right, labels, (labels + 1) % classes)
    return [np.eye(classes, dtype=np.float32)[None, g] for g in guesses]


def _data(n, labels=None, slices=None):
    return Samples("data", tuple({} for _ in range(n)), labels, slices)


def _judge(before, after, labels=None, slices=None, limit=(0.01, False), metric="top1"):
    return judge("g", METRICS[metric], before, after, _data(len(before), labels, slices), limit)


def test_losing_two_of_a_hundred_fails_a_gate_of_one_point():
    labels = RNG.integers(0, 4, 100)
    after = np.ones(100, bool)
    after[:2] = False
    (quality,) = _judge(_scores(labels, np.ones(100, bool)), _scores(labels, after), labels)
    assert quality.gate == "failed"
    assert quality.drop == pytest.approx(0.02)
    assert quality.interval_95[0] <= 0.02 <= quality.interval_95[1]


def test_errors_that_both_make_cancel():
    labels = RNG.integers(0, 4, 200)
    right = RNG.random(200) > 0.3
    (quality,) = _judge(_scores(labels, right), _scores(labels, right), labels)
    assert quality.interval_95 == (0.0, 0.0)
    assert quality.gate == "passed"


def test_without_labels_the_student_is_the_truth():
    labels = RNG.integers(0, 4, 50)
    (quality,) = _judge(_scores(labels, np.ones(50, bool)), _scores(labels, np.ones(50, bool)))
    assert (quality.reference, quality.value, quality.labels) == (1.0, 1.0, False)


def test_a_regression_in_one_slice_fails_even_when_the_whole_passes():
    labels = np.zeros(1000, int)
    slices = np.asarray(["big"] * 980 + ["small"] * 20)
    after = np.ones(1000, bool)
    after[-5:] = False
    found = _judge(_scores(labels, np.ones(1000, bool)), _scores(labels, after), labels, slices)
    assert {q.slice: q.gate for q in found} == {"all": "passed", "big": "passed", "small": "failed"}


def test_a_slice_too_small_to_judge_says_so():
    labels = np.zeros(100, int)
    slices = np.asarray(["big"] * 97 + ["tiny"] * 3)
    after = np.ones(100, bool)
    after[-1] = False
    found = {q.slice: q for q in _judge(_scores(labels, np.ones(100, bool)), _scores(labels, after), labels, slices)}
    assert found["tiny"].gate == "passed"
    assert "too few" in found["tiny"].reason


def test_a_relative_limit_is_of_the_references_value():
    assert parse_max_drop("2%") == (0.02, True)
    assert parse_max_drop("0.02") == (0.02, False)
    with pytest.raises(UsageError):
        parse_max_drop("lots")


def test_the_metric_follows_labels_and_outputs():
    assert choose_metric([np.zeros((1, 4))], np.zeros(3, int)).name == "top1"
    assert choose_metric([np.zeros((1, 1))], np.zeros(3, float)).name == "mse"
    assert choose_metric([np.zeros((1, 384))], None).name == "cosine"
    assert choose_metric([np.zeros((1, 10))], None).name == "top1"


def test_a_metric_without_a_stand_in_needs_labels():
    with pytest.raises(Refused, match="labels"):
        _judge([np.zeros((1, 5))] * 9, [np.zeros((1, 5))] * 9, metric="qwk")


def test_samples_without_a_known_label_do_not_count_as_right():
    labels = np.asarray([-1] * 90 + [0] * 10)
    right = np.ones(100, bool)
    after = right.copy()
    after[-1] = False
    slices = np.asarray(["unknown"] * 90 + ["known"] * 10)
    found = _judge(_scores(np.maximum(labels, 0), right), _scores(np.maximum(labels, 0), after), labels, slices)
    assert {q.slice: (q.n, q.gate) for q in found} == {"all": (10, "failed"), "known": (10, "failed")}
    assert found[0].drop == pytest.approx(0.1)


def test_a_metric_of_the_persons_own_that_raises_is_told_as_theirs(tmp_path, monkeypatch):
    source = "def broken(output, label):\n    raise KeyError('nope')\n\nbroken.direction = 'higher'\n"
    (tmp_path / "own_metrics.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    metric = find_metric("own_metrics:broken")
    with pytest.raises(Refused, match="own_metrics:broken raised KeyError"):
        metric.per_sample([np.zeros(1)], [np.zeros(1)])
    with pytest.raises(Refused, match="cannot be imported"):
        find_metric("own_metrics:gone")


def test_an_unknown_metric_lists_the_known():
    with pytest.raises(UsageError) as caught:
        find_metric("accuracy")
    assert "top1" in caught.value.remedy


def _value(name, outputs, truths):
    metric = METRICS[name]
    return float(metric.finish(metric.per_sample(outputs, truths).mean(0)))


def test_values_against_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    truth, guess = RNG.integers(0, 5, 300), RNG.integers(0, 5, 300)
    outputs = [np.eye(5)[None, g] for g in guess]
    assert _value("top1", outputs, truth) == pytest.approx(np.mean(truth == guess))
    assert _value("qwk", outputs, truth) == pytest.approx(sklearn.cohen_kappa_score(truth, guess, weights="quadratic"))
    f1 = sklearn.f1_score(truth, guess, labels=[1, 2, 3, 4], average="micro")
    assert _value("f1", outputs, truth) == pytest.approx(f1)


def test_perplexity_of_a_uniform_guess_is_the_number_of_classes():
    outputs = [np.zeros((1, 6, 7), np.float32)] * 3
    assert _value("perplexity", outputs, [np.asarray([1, 2, 3, 4, -1, -1])] * 3) == pytest.approx(7)


def test_padding_labels_below_zero_do_not_count():
    outputs = [np.eye(3)[None, [0, 1, 2, 2]]]
    assert _value("top1", outputs, [np.asarray([0, 1, -1, -1])]) == 1.0


def test_edits_of_known_words():
    assert edit_distance([1, 2, 3], [1, 3, 4]) == 2
    assert edit_distance([], [1, 1]) == 2


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), max_size=6))
def test_edit_distance_is_symmetric_and_bounded(left, right):
    distance = edit_distance(left, right)
    assert distance == edit_distance(right, left)
    assert abs(len(left) - len(right)) <= distance <= max(len(left), len(right))


@settings(max_examples=25)
@given(st.integers(8, 60), st.integers(0, 2**32 - 1))
def test_the_interval_holds_the_drop_or_touches_it(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    before, after = rng.random(n) > 0.2, rng.random(n) > 0.3
    (quality,) = _judge(_scores(labels, before), _scores(labels, after), labels)
    low, high = quality.interval_95
    assert low - 1e-9 <= quality.drop <= high + 1e-9

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_converters.verify.labels import check_labels
from edgekit_converters.verify.metrics import METRICS
from edgekit_runtime.errors import Refused

SCORES = [np.zeros((1, 4), np.float32)] * 3
TOKENS = [np.zeros((1, 5, 4), np.float32)] * 3
ONE = [np.zeros((1, 1), np.float32)] * 3


@pytest.mark.parametrize(
    ("metric", "labels", "outputs", "words"),
    [
        ("top1", np.asarray(["cat", "dog", "owl"]), SCORES, "labels are <U3"),
        ("top1", np.zeros(3), SCORES, "labels are float64"),
        ("top1", np.asarray([0, 1, 4]), SCORES, "sample 2 has label 4, and the output has 4 classes"),
        ("top1", np.eye(4, dtype=int)[:3], SCORES, "4 labels for 1 row"),
        ("top1", np.full(3, -1), SCORES, "all below 0"),
        ("f1", np.full((3, 5), 4), TOKENS, "label 4"),
        ("f1", np.zeros((3, 6), int), TOKENS, "6 labels for 5 rows"),
        ("perplexity", np.full((3, 5), 99), TOKENS, "label 99"),
        ("cer", np.full((3, 5), 99), TOKENS, "label 99"),
        ("mse", np.zeros(3), SCORES, "1 numbers for an output of 4"),
        ("mse", np.asarray([0.0, np.nan, 1.0]), ONE, "NaN"),
        ("cosine", np.zeros((3, 5)), SCORES, "5 numbers for an output of 4"),
        ("qwk", np.zeros((3, 2)), ONE, "2 labels"),
        ("qwk", np.asarray([0, 1, 4]), SCORES, "label 4"),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_the_reason(metric, labels, outputs, words):
    with pytest.raises(Refused) as caught:
        check_labels(METRICS[metric], labels, outputs, "eval.npz")
    assert words in caught.value.message
    assert caught.value.message.startswith("eval.npz: labels")
    assert caught.value.remedy


@given(st.sampled_from(sorted(METRICS)), st.lists(st.integers(-1, 3), min_size=3, max_size=3))
def test_labels_that_pass_can_be_judged(name, values):
    outputs = {"mse": ONE, "cosine": ONE, "qwk": ONE}.get(name, SCORES)
    labels = np.asarray(values)
    try:
        check_labels(METRICS[name], labels, outputs, "data")
    except Refused:
        assert max(values) < 0
        return
    known = [i for i, value in enumerate(values) if value >= 0 or METRICS[name].labels != "class"]
    statistics = METRICS[name].per_sample([outputs[i] for i in known], [labels[i] for i in known])
    assert np.isfinite(METRICS[name].finish(statistics.mean(0)))


def test_labels_of_padded_tokens_may_be_unknown():
    check_labels(METRICS["f1"], np.asarray([[0, 3, -1, -1, -1]] * 3), TOKENS, "data")
    check_labels(METRICS["f1"], np.asarray([[0, 3]] * 3), TOKENS, "data")

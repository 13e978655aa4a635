"""Padding and company in a batch never change an answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekit.students import registry
from edgekit.students.layers import reversal, take_steps
from edgekit.students.sampling import Arrays, run

Tiny = Callable[[str], nn.Module]
SEQUENCES = (
    "text_cnn",
    "bilstm_classifier",
    "bilstm_tagger",
    "essay_scorer",
    "integer_rnn",
    "bert_tiny",
    "bert_mini",
    "bert_small",
    "minilm",
)

# Sums of the same numbers in another order of blocks: a few units in the last place of float32.
TOLERANCE = 1e-5


def alone(inputs: Arrays, row: int) -> Arrays:
    """One sample of a batch, without its padding."""
    length = max(int(np.count_nonzero(inputs["ids"][row])), 1)
    return {name: array[row : row + 1, :length] for name, array in inputs.items()}


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sentence_alone_and_padded_in_a_batch_gets_the_same_answer(tiny: Tiny, name: str) -> None:
    inputs = registry.get(name).example(6, 21, size="tiny", seed=5)
    longer = {key: np.pad(array, ((0, 0), (0, 11))) for key, array in inputs.items()}
    for answers in (run(tiny(name), inputs), run(tiny(name), longer)):
        for row in range(6):
            for output, expected in run(tiny(name), alone(inputs, row)).items():
                got = answers[output][row]
                if name == "bilstm_tagger":
                    np.testing.assert_array_equal(got[expected.shape[1] :], 0.0)
                    got = got[: expected.shape[1]]
                np.testing.assert_allclose(got, expected[0], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_order_of_words_matters_in_every_student_but_not_the_padding_row(tiny: Tiny, name: str) -> None:
    inputs = registry.get(name).example(1, 12, size="tiny", seed=2)
    turned = {key: array[:, ::-1].copy() for key, array in inputs.items()}
    first, second = (next(iter(run(tiny(name), one).values())) for one in (inputs, turned))
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("name", SEQUENCES)
def test_one_word_and_no_word_at_all_give_finite_answers(tiny: Tiny, name: str) -> None:
    for length in (1, 5):
        inputs = registry.get(name).example(3, length, size="tiny")
        for array in inputs.values():
            array[1] = 0
        for answer in run(tiny(name), inputs).values():
            assert np.isfinite(answer).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), min_size=7, max_size=7), min_size=1, max_size=5))
def test_reversal_is_its_own_inverse_and_keeps_padding_last(rows: list[list[int]]) -> None:
    ids = torch.tensor(rows)
    x = torch.randn(*ids.shape, 3, generator=torch.Generator().manual_seed(0))
    order = reversal(ids)
    assert torch.equal(take_steps(take_steps(x, order), order), x)
    for words, turned in zip(rows, take_steps(ids[..., None], order)[..., 0].tolist(), strict=True):
        length = max((place + 1 for place, word in enumerate(words) if word), default=0)
        assert turned == words[:length][::-1] + words[length:]


def test_bilstm_equals_torchs_own_on_a_sentence_without_padding() -> None:
    from edgekit.students.layers import BiLSTM

    torch.manual_seed(0)
    ours, theirs = BiLSTM(4, 6), torch.nn.LSTM(4, 6, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for ending, layer in (("", ours.ahead), ("_reverse", ours.back)):
            for kind in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                getattr(theirs, kind + ending).copy_(getattr(layer, kind))
        ids, x = torch.ones(2, 9, dtype=torch.int64), torch.randn(2, 9, 4)
        torch.testing.assert_close(ours(x, reversal(ids)), theirs(x)[0])

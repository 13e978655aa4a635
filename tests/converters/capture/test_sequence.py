from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.students import transliterator
from edgekit_converters.capture import capture
from edgekit_converters.capture.axes import parse_dynamic
from edgekit_converters.capture.sequence import MAX_STEPS, part_samples
from edgekit_runtime.errors import Refused

DYNAMIC = ("chars:0=B:1-8", "chars:1=T:1-24")


class Echo(nn.Module):
    """Says again what it read, one token a step."""

    begin, end, limit = 1, 2, 5

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 9)
        with torch.no_grad():
            self.table.weight.copy_(torch.eye(9))

    def encode(self, chars: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"memory": self.table(chars)}

    def initial_state(self, batch: int) -> dict[str, torch.Tensor]:
        return {"place": torch.zeros(batch, 4)}

    def decode_step(self, token: torch.Tensor, memory: torch.Tensor, place: torch.Tensor) -> dict[str, torch.Tensor]:
        here = torch.cat([(place.sum(1, keepdim=True) == 0).float(), place[:, :3]], dim=1)
        scores = (here[:, :, None] * memory).sum(1) + 0.0 * self.table(token)
        return {"scores": scores, "next_place": here}


def echo(**changes: Any) -> Echo:
    made = Echo()
    for name, value in changes.items():
        setattr(made, name, value)
    return made.eval()


def test_both_parts_are_captured_and_the_loop_is_the_reference() -> None:
    chars = np.array([[4, 5, 2, 0], [6, 2, 0, 0]])
    student = capture(echo(), name="echo", example={"chars": chars})
    assert list(student.parts) == ["encoder", "decode_step"]
    assert student.decoding is not None
    assert [state.output for state in student.decoding.states] == ["next_place"]
    np.testing.assert_array_equal(student.reference({"chars": chars})["tokens"], [[4, 5, 0, 0, 0], [6, 0, 0, 0, 0]])
    assert [tensor.name for tensor in student.part("decode_step").inputs] == ["token", "memory", "place"]
    assert student.outputs[0].shape == ("batch", 5)


def test_axes_of_the_decode_step_follow_from_the_encoder() -> None:
    module = transliterator.build("tiny")
    example = {"chars": transliterator.words(3, seed=1, longest=12)}
    student = capture(module, name="t", example=example, dynamic=parse_dynamic(DYNAMIC))
    assert {axis.symbol: axis.role for axis in student.axes} == {"B": "batch", "T": "length"}
    shapes = {tensor.name: tensor.shape for tensor in student.part("decode_step").inputs}
    assert shapes["memory"] == ("B", "T", 256)
    assert shapes["cache"] == ("B", 28, 256)
    assert shapes["token"] == shapes["step"] == ("B",)
    words = {"chars": transliterator.words(4, seed=2, longest=9)}
    with torch.no_grad():
        expected = module(torch.from_numpy(words["chars"]))["tokens"].numpy()
    np.testing.assert_array_equal(student.reference(words)["tokens"], expected)
    samples = [{"chars": words["chars"][row : row + 1]} for row in range(4)]
    assert part_samples(student, "encoder", samples) is samples
    steps = part_samples(student, "decode_step", samples)
    assert 4 < len(steps) <= MAX_STEPS
    assert any(step["cache"].any() for step in steps)


def no_scores(token: torch.Tensor, memory: torch.Tensor, place: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"next_place": place}


def no_state(token: torch.Tensor, memory: torch.Tensor, place: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"scores": memory[:, 0]}


def unknown(token: torch.Tensor, wishes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"scores": wishes}


def no_token(memory: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"scores": memory[:, 0]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end": None}, "end = None"),
        ({"limit": 0}, "limit = 0"),
        ({"decode_step": no_scores}, "decode_step gives next_place"),
        ({"decode_step": no_state}, "next_place is missing"),
        ({"decode_step": unknown}, "asks for wishes"),
        ({"decode_step": no_token}, "takes no 'token'"),
        ({"initial_state": lambda batch: {"place": torch.ones(batch, 4)}}, "not zeros"),
    ],
)
def test_a_part_that_does_not_fit_is_refused_with_the_form(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        capture(echo(**changes), name="echo", example={"chars": np.array([[4, 5, 2, 0]])})

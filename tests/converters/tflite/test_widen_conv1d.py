"""Chains of 1-D convolutions become 2-D ones of height 1 and answer as before; others are left alone."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekit_converters.tflite.torch_passes.widen_conv1d import widen_conv1d

aten = torch.ops.aten


class Chain(nn.Module):
    """Everything that has a wide form, between transposes as words come in and go out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(6, 12, 3, dilation=2)
        self.second = nn.Conv1d(6, 6, 3, stride=2, padding=1, groups=2, bias=False)
        self.last = nn.Conv1d(6, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = x.transpose(1, 2)
        ends = torch.cat([turned[:, :, -2:], turned, turned.narrow(-1, 0, 2)], dim=-1)
        gated = functional.glu(self.first(ends), dim=1) + turned
        halved = self.last(torch.relu(self.second(functional.pad(gated, (1, 0)))))
        return halved.transpose(1, 2) * torch.tanh(halved).mean(2)[:, None]


class SideBySide(nn.Module):
    """Convolutions that do not feed each other."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(6, 4, kernel) for kernel in (2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.relu(conv(x.transpose(1, 2))).amax(2) for conv in self.convs], 1)


def widened(student: nn.Module, x: torch.Tensor) -> tuple[torch.fx.GraphModule, int]:
    module = torch.export.export(student.eval(), (x,)).module()
    return module, widen_conv1d(module)


def test_a_chain_is_wide_from_end_to_end_and_answers_the_same() -> None:
    torch.manual_seed(0)
    student, x = Chain(), torch.randn(2, 16, 6)
    module, count = widened(student, x)
    kinds = Counter(node.target for node in module.graph.nodes)
    assert count >= 10 and kinds[aten.conv2d.default] == 3 and not kinds[aten.conv1d.default]
    # Words come in by one reshape and one turn that the engine's layout takes back; out by as many.
    assert kinds[aten.transpose.int] == 0 and kinds[aten.permute.default] == 2
    torch.testing.assert_close(module(x), student(x), rtol=1e-5, atol=1e-6)


def test_convolutions_side_by_side_gain_nothing_and_stay() -> None:
    module, count = widened(SideBySide(), torch.randn(1, 12, 6))
    assert count == 0 and sum(node.target == aten.conv1d.default for node in module.graph.nodes) == 2


class Through(nn.Module):
    """Two convolutions with one operator between them."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.between = between
        self.first, self.second = nn.Conv1d(6, 8, 3), nn.Conv1d(8, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.between(self.first(x.transpose(1, 2))))


@pytest.mark.parametrize(
    ("between", "count"),
    [(nn.MaxPool1d(2), 0), (nn.Softmax(2), 0), (nn.SiLU(), 3)],
    ids=lambda value: type(value).__name__,
)
def test_an_operator_without_a_wide_form_parts_a_chain(between: nn.Module, count: int) -> None:
    student, x = Through(between), torch.randn(2, 16, 6)
    module, found = widened(student, x)
    assert found == count
    torch.testing.assert_close(module(x), student(x), rtol=1e-5, atol=1e-6)

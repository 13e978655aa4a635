"""Row 25: plain CNNs of 4, 6, 8 and 10 layers, students of hinted distillation (PURSUhInT, 2103.00053) and of weighted
teacher assistants (2206.12005).

image [B, 3, 32, 32] -> stages of two (the last of the 10: four) 3x3 convolutions with BatchNorm and ReLU, a 2x2 max
pool after each -> Linear, ReLU -> Linear -> logits [B, 10].

The convolutions are counted as the papers count them (the linear layers are not); widths are those of the plain CNNs
of Mirzadeh et al. 2020 (1902.03393). Together they are a ladder of sizes: a cascade. Simplified: trained on labels, no
hints from a teacher.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekit.students.layers import conv_bn
from edgekit.students.sampling import Arrays, check_size, images, seeded, settle_batch_norm, spread_answers

# Stages: channels and convolutions of each; then the width of the hidden linear layer.
LADDER: dict[int, tuple[tuple[tuple[int, int], ...], int]] = {
    4: (((16, 2), (32, 2)), 64),
    6: (((16, 2), (32, 2), (64, 2)), 64),
    8: (((16, 2), (32, 2), (64, 2), (128, 2)), 64),
    10: (((32, 2), (64, 2), (128, 2), (256, 4)), 128),
}


class PlainCnn(nn.Module):
    """See the module's docstring.

    Args:
        stages: Channels and number of convolutions of each stage.
        hidden: Width of the linear layer before the last.
        classes: Logits.
    """

    def __init__(self, stages: tuple[tuple[int, int], ...], hidden: int, classes: int = 10) -> None:
        super().__init__()
        before = (3, *(channels for channels, _ in stages[:-1]))
        self.stages = nn.ModuleList(
            _stage(inputs, channels, count) for inputs, (channels, count) in zip(before, stages, strict=True)
        )
        side = 32 >> len(stages)
        self.hidden = nn.Linear(stages[-1][0] * side * side, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Image [B, 3, 32, 32] float32, normalized, to logits [B, classes]."""
        x = image
        for stage in self.stages:
            x = stage(x)
        return self.head(torch.relu(self.hidden(x.flatten(1))))


def plain4(size: str = "full", seed: int = 0) -> PlainCnn:
    """16, 32 channels (`tiny`: half of each), seeded weights."""
    return _build(4, size, seed)


def plain6(size: str = "full", seed: int = 0) -> PlainCnn:
    """16, 32, 64 channels (`tiny`: half of each), seeded weights."""
    return _build(6, size, seed)


def plain8(size: str = "full", seed: int = 0) -> PlainCnn:
    """16, 32, 64, 128 channels (`tiny`: half of each), seeded weights."""
    return _build(8, size, seed)


def plain10(size: str = "full", seed: int = 0) -> PlainCnn:
    """32, 64, 128, 256 channels (`tiny`: an eighth of each), seeded weights."""
    return _build(10, size, seed)


def example(batch: int = 2, length: int = 0, size: str = "full", seed: int = 0) -> Arrays:
    """Random pictures: `image` [batch, 3, 32, 32] float32. `length` and `size` change nothing."""
    return {"image": images(batch, 3, 32, seed)}


def _stage(inputs: int, outputs: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [conv_bn(inputs, outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.MaxPool2d(2))


def _build(layers: int, size: str, seed: int) -> PlainCnn:
    check_size(size)
    stages, hidden = LADDER[layers]
    if size == "tiny":
        share = 8 if layers == 10 else 2
        stages, hidden = tuple((channels // share, count) for channels, count in stages), hidden // 4
    with seeded(seed):
        student = PlainCnn(stages, hidden)
    batch = example(32, seed=seed)
    settle_batch_norm(student, batch)
    spread_answers(student, {"output": student.head}, batch)
    return student.eval()

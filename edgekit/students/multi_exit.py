"""Row 23: a CNN with three exits (BranchyNet, Teerapittayanon et al. 2016, 1709.01686) on a body of ResNet-8 size.

image [B, 3, 32, 32] -> Conv 16 -> one residual block each of 16, 32, 64 channels. After each of the first two a branch
(Conv of stride 2, BatchNorm, ReLU, or several of them; global average pool, Linear), after the last the full answer:
{"exit_0", "exit_1", "exit_2"} logits [B, 10], in order of depth.

Simplified: the paper branches off AlexNet and ResNet-110; here the body is that of MLPerf Tiny's ResNet-8.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekit.students.layers import ResidualBlock, conv_bn
from edgekit.students.sampling import Arrays, check_size, images, seeded, settle_batch_norm, spread_answers
from edgekit_runtime.errors import UsageError

WIDTH = {"tiny": 8, "full": 16}
EXITS = ("exit_0", "exit_1", "exit_2")


class MultiExitCNN(nn.Module):
    """See the module's docstring.

    Args:
        channels: Of the picture.
        widths: Channels of each stage; one exit a stage. Every stage but the first halves the picture.
        blocks: Residual blocks in each stage.
        stem_stride: Of the first convolution.
        classes: Logits of each exit.
        branches: For each stage but the last, channels of its branch's convolutions, each of stride 2. Several see more
            of the picture than one, often at fewer MACs: the first may be narrow. Empty: one each, as wide as the last
            stage.

    Raises:
        UsageError: Another number of branches than of stages with one, or a branch without a convolution.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: tuple[int, ...] = (16, 32, 64),
        blocks: tuple[int, ...] = (1, 1, 1),
        stem_stride: int = 1,
        classes: int = 10,
        branches: tuple[tuple[int, ...], ...] = (),
    ) -> None:
        super().__init__()
        chosen = branches or ((widths[-1],),) * (len(widths) - 1)
        if len(chosen) != len(widths) - 1 or not all(chosen):
            raise UsageError(
                f"branches {branches} for {len(widths)} stages",
                remedy="one tuple of channels, not empty, for each stage but the last",
            )
        self.stem = nn.Sequential(conv_bn(channels, widths[0], stride=stem_stride), nn.ReLU())
        before = (widths[0], *widths[:-1])
        self.stages = nn.ModuleList(map(_stage, before, widths, blocks))
        self.branches = nn.ModuleList(map(_branch, widths[:-1], chosen))
        self.branches.append(nn.Identity())
        self.heads = nn.ModuleList(nn.Linear(last[-1], classes) for last in (*chosen, widths))

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Image [B, channels, H, W] float32 to {"exit_0": [B, classes], ...} in order of depth."""
        x = self.stem(image)
        answers = {}
        for depth, (stage, branch, head) in enumerate(zip(self.stages, self.branches, self.heads, strict=True)):
            x = stage(x)
            answers[f"exit_{depth}"] = head(branch(x).mean((2, 3)))
        return answers


def build(size: str = "full", seed: int = 0) -> MultiExitCNN:
    """For CIFAR-10: three channels (`tiny`: 8, 16, 32 channels in the stages), seeded weights."""
    return _build(3, size, seed)


def mnist(size: str = "full", seed: int = 0) -> MultiExitCNN:
    """For MNIST: one channel, 28 x 28, pixels in [0, 1]; what `edgekit.students.train multi_exit` trains."""
    return _build(1, size, seed)


def example(batch: int = 2, length: int = 0, size: str = "full", seed: int = 0) -> Arrays:
    """Random pictures: `image` [batch, 3, 32, 32] float32. `length` and `size` change nothing."""
    return {"image": images(batch, 3, 32, seed)}


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    down = inputs != outputs
    shortcut = conv_bn(inputs, outputs, kernel=1, stride=2) if down else nn.Identity()
    first = ResidualBlock(inputs, outputs, 2 if down else 1, shortcut)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, 1, nn.Identity()) for _ in range(blocks - 1)))


def _branch(inputs: int, channels: tuple[int, ...]) -> nn.Sequential:
    pairs = zip((inputs, *channels), channels, strict=False)
    return nn.Sequential(*(layer for pair in pairs for layer in (conv_bn(*pair, stride=2), nn.ReLU())))


def _build(channels: int, size: str, seed: int) -> MultiExitCNN:
    check_size(size)
    width = WIDTH[size]
    with seeded(seed):
        student = MultiExitCNN(channels, (width, 2 * width, 4 * width))
    batch = {"image": images(32, channels, 32 if channels == 3 else 28, seed)}
    settle_batch_norm(student, batch)
    spread_answers(student, dict(zip(EXITS, student.heads, strict=True)), batch)
    return student.eval()

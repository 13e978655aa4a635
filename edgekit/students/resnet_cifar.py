"""Row 22: CIFAR ResNet-20, 32 and 44 (He et al. 2015, 1512.03385, section 4.2).

image [B, 3, 32, 32] -> Conv 16 -> three stages of 3, 5 or 7 residual blocks with 16, 32, 64 channels -> global average
pool -> Linear -> logits [B, 10].

The shortcut between stages is the paper's option A: every second pixel, new channels filled with zeros, no weights.
Modules are named as in akamaster/pytorch_resnet_cifar10, so that its trained state dicts load as they are. Images are
RGB in [0, 1], less `MEAN`, divided by `DEVIATION`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekit.students.layers import ResidualBlock
from edgekit.students.sampling import Arrays, check_size, images, seeded, settle_batch_norm, spread_answers
from edgekit_runtime.errors import Refused

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
BLOCKS = {"resnet20": 3, "resnet32": 5, "resnet44": 7}


class PadShortcut(nn.Module):
    """Option A: every second pixel; zeros before and after the channels, a quarter of the outputs on each side."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.channels = outputs // 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [B, 2 C, H / 2, W / 2]."""
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.channels, self.channels))


class CifarResNet(nn.Module):
    """See the module's docstring.

    Args:
        blocks: Residual blocks in each of the three stages.
        width: Channels of the first stage.
        classes: Logits.
    """

    def __init__(self, blocks: int, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(blocks, width, width)
        self.layer2 = self._stage(blocks, width, 2 * width)
        self.layer3 = self._stage(blocks, 2 * width, 4 * width)
        self.linear = nn.Linear(4 * width, classes)

    @staticmethod
    def _stage(blocks: int, inputs: int, outputs: int) -> nn.Sequential:
        down = inputs != outputs
        first = ResidualBlock(inputs, outputs, 2 if down else 1, PadShortcut(outputs) if down else nn.Identity())
        rest = [ResidualBlock(outputs, outputs, 1, nn.Identity()) for _ in range(blocks - 1)]
        return nn.Sequential(first, *rest)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Image [B, 3, 32, 32] float32, normalized, to logits [B, classes]."""
        x = torch.relu(self.bn1(self.conv1(image)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def resnet20(size: str = "full", seed: int = 0) -> CifarResNet:
    """3 blocks a stage (`tiny`: 1 block, 8 channels), seeded weights."""
    return _build("resnet20", size, seed)


def resnet32(size: str = "full", seed: int = 0) -> CifarResNet:
    """5 blocks a stage (`tiny`: 1 block, 8 channels), seeded weights."""
    return _build("resnet32", size, seed)


def resnet44(size: str = "full", seed: int = 0) -> CifarResNet:
    """7 blocks a stage (`tiny`: 1 block, 8 channels), seeded weights."""
    return _build("resnet44", size, seed)


def example(batch: int = 2, length: int = 0, size: str = "full", seed: int = 0) -> Arrays:
    """Random pictures: `image` [batch, 3, 32, 32] float32. `length` and `size` change nothing."""
    return {"image": images(batch, 3, 32, seed)}


def normalize(pixels: np.ndarray) -> np.ndarray:
    """Pixels [N, 32, 32, 3] uint8 to what the trained students read: [N, 3, 32, 32] float32."""
    mean, deviation = np.array(MEAN, np.float32), np.array(DEVIATION, np.float32)
    scaled = (pixels.astype(np.float32) / np.float32(255.0) - mean) / deviation
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def load(checkpoint: Path | str) -> CifarResNet:
    """Reads a trained student; 3, 5 or 7 blocks a stage are told from the weights.

    Args:
        checkpoint: A state dict as saved under `DataParallel`, alone or under the key `state_dict`. Read with
            `weights_only`: nothing in the file is executed.

    Raises:
        Refused: The file is no state dict, or not that of a CIFAR ResNet.
    """
    import pickle

    try:
        loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise Refused(f"{checkpoint} is not a state dict that can be read with weights_only: {error}") from error
    state = loaded.get("state_dict", loaded)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    blocks = len({name.split(".")[1] for name in state if name.startswith("layer1.")})
    student = CifarResNet(max(blocks, 1))
    try:
        student.load_state_dict(state)
    except RuntimeError as error:
        raise Refused(f"{checkpoint} does not fit a CIFAR ResNet with option-A shortcuts: {error}") from error
    return student.eval()


def _build(name: str, size: str, seed: int) -> CifarResNet:
    check_size(size)
    with seeded(seed):
        student = CifarResNet(BLOCKS[name]) if size == "full" else CifarResNet(1, width=8)
    batch = example(32, seed=seed)
    settle_batch_norm(student, batch)
    spread_answers(student, {"output": student.linear}, batch)
    return student.eval()

"""Row 11: LRCN (1411.4389), a convolutional net on each frame and a recurrence over frames.

frames [B, 16, 3, 64, 64] -> 4 x (conv 3x3, BatchNorm, ReLU, max pool) of 16, 32, 64, 64 channels -> mean over the map
-> Linear 128, ReLU -> LSTM 64 -> Linear a frame -> mean over frames -> logits [B, 8] (how a shape moves)

`step` is the same student, with the same weights, one frame at a time: (frame, h, c) -> (output, h_next, c_next), where
`output` is the frame's own logits; their mean over 16 steps is the answer above.

Simplified: a small net in place of CaffeNet, colours only, no optical flow. The clips are made (`clips`): discs and
squares that move right, left, down, up, grow, shrink, turn around a centre, or stand still.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgekit.students.layers import conv_bn
from edgekit.students.sampling import Arrays, check_size, seeded, settle_batch_norm, spread_answers

CHANNELS = {"tiny": (4, 8, 8, 8), "full": (16, 32, 64, 64)}
FEATURES = {"tiny": 12, "full": 128}
UNITS = 64
FRAMES, SIDE = 16, 64
MOVES = ("right", "left", "down", "up", "grow", "shrink", "turn", "still")


class LRCN(nn.Module):
    """See the module's docstring.

    Args:
        channels: Of the four blocks.
        features: Of the layer behind the map.
        units: Of the LSTM.
    """

    def __init__(self, channels: tuple[int, ...], features: int, units: int) -> None:
        super().__init__()
        pairs = zip((3, *channels), channels, strict=False)
        self.blocks = nn.ModuleList(nn.Sequential(conv_bn(a, b), nn.ReLU(), nn.MaxPool2d(2)) for a, b in pairs)
        self.features = nn.Linear(channels[-1], features)
        self.lstm = nn.LSTM(features, units, batch_first=True)
        self.head = nn.Linear(units, len(MOVES))

    def see(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, 3, 64, 64] to features [N, features]."""
        for block in self.blocks:
            images = block(images)
        return torch.relu(self.features(images.mean((2, 3))))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames [B, 16, 3, 64, 64] to logits [B, 8]."""
        batch, count = frames.shape[:2]
        seen = self.see(frames.flatten(0, 1)).reshape(batch, count, -1)
        return self.head(self.lstm(seen)[0]).mean(1)


class LRCNStep(LRCN):
    """The same, one frame at a time; the state comes from outside and goes there again."""

    def forward(  # type: ignore[override]
        self, frame: torch.Tensor, h: torch.Tensor, c: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Frame [B, 3, 64, 64], h and c [B, units] to the frame's logits [B, 8] and the next h and c."""
        answer, (h_next, c_next) = self.lstm(self.see(frame)[:, None], (h[None], c[None]))
        return {"output": self.head(answer[:, 0]), "h_next": h_next[0], "c_next": c_next[0]}


def build(size: str = "full", seed: int = 0) -> LRCN:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (4 to 8 channels) or `full`.
        seed: Of the weights.

    Raises:
        UsageError: An unknown size.
    """
    check_size(size)
    with seeded(seed):
        student = LRCN(CHANNELS[size], FEATURES[size], UNITS)
        for name, parameter in student.lstm.named_parameters():
            if "weight" in name:  # torch's start is so quiet that the state hardly moves
                nn.init.normal_(parameter, std=1.5 / parameter.shape[1] ** 0.5)
    inputs = example(8, size=size, seed=seed)
    settle_batch_norm(student, inputs)
    spread_answers(student, {"output": student.head}, inputs)
    return student.eval()


def step(size: str = "full", seed: int = 0) -> LRCNStep:
    """The single-step form with the weights of `build`; arguments as there."""
    whole = build(size, seed)
    with seeded(seed):
        student = LRCNStep(CHANNELS[size], FEATURES[size], UNITS)
    student.load_state_dict(whole.state_dict())
    return student.eval()


def example(batch: int = 2, length: int = FRAMES, size: str = "full", seed: int = 0) -> Arrays:
    """Made clips: `frames` [batch, 16, 3, 64, 64] float32. `length` and `size` change nothing."""
    return {"frames": clips(batch, seed)[0]}


def step_example(batch: int = 2, length: int = 1, size: str = "full", seed: int = 0) -> Arrays:
    """One `frame` of each made clip, and random states `h` and `c` [batch, units]."""
    rng = np.random.default_rng(seed + 1)
    c = rng.standard_normal((batch, UNITS)).astype(np.float32)
    return {"frame": clips(batch, seed)[0][:, 5], "h": np.tanh(2 * c), "c": c}


def clips(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Coloured discs and squares, each moving in one of eight ways, on a noisy ground.

    The ground grows redder to the right and greener downwards: the mean over the map knows places only by what is
    hidden there.

    Returns:
        Frames [count, 16, 3, 64, 64] float32 about mean 0, and labels [count] int64, indices of `MOVES`.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(MOVES)
    rng.shuffle(labels)
    frames = np.empty((count, FRAMES, 3, SIDE, SIDE), np.float32)
    grid = np.arange(SIDE, dtype=np.float32)
    ramp = np.linspace(-1.5, 1.5, SIDE, dtype=np.float32)
    ground = np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], np.float32(0)))
    time = np.linspace(-1, 1, FRAMES, dtype=np.float32)
    for clip, move in zip(frames, labels, strict=True):
        x, y, radius = rng.uniform(26, 38), rng.uniform(26, 38), rng.uniform(6, 10)
        speed, phase = rng.uniform(8, 16), rng.uniform(0, 6.28)
        name = MOVES[move]
        xs = x + speed * time * {"right": 1, "left": -1}.get(name, 0)
        ys = y + speed * time * {"down": 1, "up": -1}.get(name, 0)
        sizes = radius * (1 + 0.5 * time * {"grow": 1, "shrink": -1}.get(name, 0))
        if name == "turn":
            xs, ys = x + speed * np.cos(phase + 3 * time), y + speed * np.sin(phase + 3 * time)
        colour, square = rng.uniform(-1.5, 1.5, 3).astype(np.float32), rng.random() < 0.5
        for frame, px, py, size in zip(clip, xs, ys, sizes, strict=True):
            across, down = np.abs(grid - px)[None, :], np.abs(grid - py)[:, None]
            inside = np.maximum(across, down) < size if square else across**2 + down**2 < size**2
            frame[:] = np.where(inside, colour[:, None, None], ground)
    frames += 0.1 * rng.standard_normal(frames.shape, np.float32)
    return frames, labels.astype(np.int64)

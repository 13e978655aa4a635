"""A bottleneck at a split point: fewer values cross, and the tail still gets what it knows.

    before: … ──► layer2 ──► layer3 ──► …                          32 x 16 x 16 values cross
    after:  … ──► layer2 ──► encode ─┊► decode ──► layer3 ──► …    8 x 8 x 8 values cross at ┊

Encoder and decoder learn by head distillation (Matsubara et al. 2019, 1910.00178): what the decoder gives is drawn
towards the original tensor, on the student's own inputs and without labels. Where the tail is given, so is what later
layers make of it (generalized head distillation, Matsubara et al. 2020, 2007.15818): errors that the tail does not mind
may stay. Rounding to int8 is part of the training.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from edgekit_runtime.errors import UsageError


class Int8(nn.Module):
    """Rounds to 256 levels between the smallest and largest value seen; gradients pass straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.ones(()))
        self.watching = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any tensor to one of the same shape."""
        if self.training and self.watching:
            with torch.no_grad():
                self.low.lerp_(x.min().clamp(max=0.0), 0.1)
                self.high.lerp_(x.max().clamp(min=1e-6), 0.1)
        if not self.training:
            return x  # conversion puts its own quantizer here
        scale = (self.high - self.low) / 255.0
        rounded = torch.round(x.clamp(self.low, self.high) / scale) * scale
        return x + (rounded - x).detach()


class ConvBottleneck(nn.Module):
    """For images: convolution (1 x 1, or strided) down to few channels, and back up.

    Args:
        channels: Of what the student gives here.
        narrow: Channels that cross.
        stride: By which height and width shrink as well.
    """

    def __init__(self, channels: int, narrow: int, stride: int = 1) -> None:
        super().__init__()
        kernel = 1 if stride == 1 else 3
        self.encode = nn.Sequential(
            nn.Conv2d(channels, narrow, kernel, stride, kernel // 2), nn.BatchNorm2d(narrow), nn.ReLU(), Int8()
        )
        up = (
            nn.Conv2d(narrow, channels, 3, 1, 1)
            if stride == 1
            else nn.ConvTranspose2d(narrow, channels, stride, stride)
        )
        self.decode = nn.Sequential(
            up, nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the same shape."""
        return self.decode(self.encode(x))


class LinearBottleneck(nn.Module):
    """For sequences and vectors: a linear layer down, and back up."""

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(width, narrow), Int8())
        self.decode = nn.Linear(narrow, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., width] to the same shape."""
        return self.decode(self.encode(x))


class Narrowed(nn.Module):
    """A submodule followed by a bottleneck; stands where the submodule stood."""

    def __init__(self, body: nn.Module, bottleneck: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.bottleneck = bottleneck

    def forward(self, *args: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
        """As the submodule's, through the bottleneck."""
        return self.bottleneck(self.body(*args, **inputs))


@dataclasses.dataclass(frozen=True)
class Narrow:
    """What a bottleneck brings.

    Attributes:
        bytes_before: Of the original tensor in int8, one sample.
        bytes_after: Of what crosses now, in int8.
        encoder_bytes: Of the encoder's weights in int8: what the head grows by.
        error: Mean squared error against the original tensor over its variance, in the last epoch.
    """

    bytes_before: int
    bytes_after: int
    encoder_bytes: int
    error: float


@dataclasses.dataclass(frozen=True)
class Distillation:
    """How long and how fast: epochs, samples a step, largest learning rate of AdamW's one-cycle schedule, seed."""

    epochs: int = 10
    batch: int = 64
    peak_rate: float = 3e-3
    seed: int = 0


def insert_bottleneck(student: nn.Module, path: str, bottleneck: nn.Module) -> nn.Module:
    """A copy of a student with a bottleneck behind one of its submodules.

    Raises:
        UsageError: The student has no such submodule.
    """
    made = copy.deepcopy(student)
    parent, _, name = path.rpartition(".")
    try:
        holder = made.get_submodule(parent) if parent else made
        body = made.get_submodule(path)
    except AttributeError as error:
        raise UsageError(f"the student has no submodule {path!r}", remedy="a name of `named_modules()`") from error
    holder._modules[name] = Narrowed(body, bottleneck)
    return made


def distil(
    student: nn.Module,
    path: str,
    inputs: Mapping[str, np.ndarray],
    plan: Distillation,
    progress: Callable[[str], None] | None = None,
    tail: Callable[[torch.Tensor], Sequence[torch.Tensor]] | None = None,
) -> Narrow:
    """Trains the bottleneck behind a submodule, in place; the rest of the student stays as it is.

    Args:
        student: What `insert_bottleneck` gave.
        path: The same path.
        inputs: Training inputs, samples first; labels are not needed.
        plan: How long and how fast.
        progress: Called with one line an epoch.
        tail: What layers of the student behind the place make of its tensor, as many as should agree; without it the
            tensor itself is all that is compared.
    """
    narrowed = student.get_submodule(path)
    if not isinstance(narrowed, Narrowed):
        raise UsageError(f"there is no bottleneck behind {path!r}", remedy="insert_bottleneck first")
    student.eval().requires_grad_(False)
    bottleneck = narrowed.bottleneck.requires_grad_(True)
    wanted = _originals(student, narrowed, inputs)
    count = len(wanted)
    optimizer = torch.optim.AdamW(bottleneck.parameters(), lr=plan.peak_rate)
    steps = plan.epochs * -(-count // plan.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.peak_rate, total_steps=steps, pct_start=0.2)
    generator = torch.Generator().manual_seed(plan.seed)
    variance = float(wanted.var())
    with torch.no_grad():
        variances = [float(one.var()) for one in tail(wanted[:1000])] if tail is not None else []
    error = float("nan")
    for epoch in range(plan.epochs):
        bottleneck.train()
        total = 0.0
        for rows in torch.randperm(count, generator=generator).split(plan.batch):
            batch = wanted[rows]
            made = bottleneck(batch)
            own = nn.functional.mse_loss(made, batch) / variance
            loss = own
            if tail is not None:
                with torch.no_grad():
                    later = tail(batch)
                pairs = zip(tail(made), later, variances, strict=True)
                loss = loss + sum(nn.functional.mse_loss(a, b) / scale for a, b, scale in pairs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(own.detach()) * len(batch)
        error = total / count
        if progress is not None:
            progress(f"epoch {epoch + 1} of {plan.epochs}: error {error:.3f} of the tensor's variance")
    student.eval()
    with torch.no_grad():
        crossing = bottleneck.encode(wanted[:1])
    encoder = sum(parameter.numel() for parameter in bottleneck.encode.parameters())
    return Narrow(int(wanted[0].numel()), int(crossing[0].numel()), encoder, error)


@torch.no_grad()
def _originals(student: nn.Module, narrowed: Narrowed, inputs: Mapping[str, np.ndarray]) -> torch.Tensor:
    """What the submodule gives on every sample, without the bottleneck: what the decoder must give."""
    found: list[torch.Tensor] = []
    handle = narrowed.body.register_forward_hook(lambda module, given, made: found.append(made))
    try:
        for start in range(0, len(next(iter(inputs.values()))), 128):
            student(**{name: torch.from_numpy(array[start : start + 128]) for name, array in inputs.items()})
    finally:
        handle.remove()
    return torch.cat(found)

"""Heads for a frozen body, taught by the body's own answers on pictures it does not know by heart.

    images ─ views (moved, zoomed, mixed) ─► frozen body ─┬─► what it gives at the taps ─► heads ─► logits
                                                          └─► its answer ─────────────────────────► what they must say

A body that was trained on the very images at hand is surer there than it will ever be again, and heads that learn from
it learn that. Changed images bring its doubt back, and its answers on them need no labels (distillation, Hinton et al.
2015, 1503.02531). A head may begin as a copy of the body's later blocks (`CopiedHead`): they know from many more
samples than are at hand what to make of features, and a residual block does not miss the one before it much
(Veit et al. 2016, 1605.06431).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from edgekit.training.exits import Head, WithExits, watched
from edgekit_runtime.errors import UsageError

_HINT = "hint"  # beside the names of exits

# Changes a batch of images; draws from the generator alone.
View = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


class CopiedHead(nn.Module):
    """Copies of later blocks of the body, means over space, a copy of its last layer.

    Args:
        blocks: Those that the head begins with, in order.
        linear: The last layer: [B, C] to logits.
    """

    def __init__(self, blocks: Sequence[nn.Module], linear: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(copy.deepcopy(block) for block in blocks))
        self.linear = copy.deepcopy(linear)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the last map [B, C', H', W']."""
        return self.blocks(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to logits [B, classes]."""
        return self.linear(self.blocks(x).mean((2, 3)))


def copied(body: nn.Module, blocks: Sequence[str], linear: str) -> Head:
    """A maker of heads for `attach_exits` that begin as copies of submodules.

    Args:
        body: The student.
        blocks: Paths of the submodules to copy, in order; what one gives the next must take.
        linear: Path of the last layer.

    Raises:
        UsageError: A submodule that does not exist.
    """
    known = dict(body.named_modules())
    missing = [path for path in (*blocks, linear) if path not in known]
    if missing:
        raise UsageError(f"the student has no submodule {missing[0]!r}", remedy="a name of `named_modules()`")
    return lambda shape, classes: CopiedHead([known[path] for path in blocks], known[linear])


@dataclasses.dataclass(frozen=True)
class Pool:
    """What a frozen body gives on changed images.

    Attributes:
        features: Exit -> what its head reads, [N, ...] float16.
        answers: Logits of the full answer, [N, classes] float32.
        hint: What the submodule gives whose map the heads' last one must come near, [N, ...] float16; None: without.
    """

    features: Mapping[str, torch.Tensor]
    answers: torch.Tensor
    hint: torch.Tensor | None = None


@torch.inference_mode()
def pool_of(
    student: WithExits,
    name: str,
    inputs: np.ndarray,
    views: Sequence[View],
    *,
    hint: str = "",
    seed: int = 0,
    batch: int = 100,
    progress: Callable[[str], None] | None = None,
) -> Pool:
    """Runs the body over every view of the images once.

    Args:
        student: With a frozen body.
        name: Its input.
        inputs: Training images [N, ...] float32; labels are not needed.
        views: Each makes N samples of its own.
        hint: Path of the body's submodule whose map is the heads' hint (FitNets, Romero et al. 2014, 1412.6550): it
            says more of an image than ten logits do. Empty: logits alone.
        seed: Of what the views draw.
        batch: Images at a time; views that mix images mix within a batch.
        progress: Called with one line a view.
    """
    if not student.frozen:
        raise UsageError("a pool holds what a body gives: it must not learn", remedy="attach_exits(..., frozen=True)")
    generator = torch.Generator().manual_seed(seed)
    features: dict[str, list[torch.Tensor]] = {exit_: [] for exit_ in student.taps}
    answers, maps = [], []
    taps = {**student.taps, _HINT: hint} if hint else student.taps
    student.eval()
    for number, view in enumerate(views, start=1):
        for part in torch.from_numpy(inputs).split(batch):
            seen: dict[str, torch.Tensor] = {}
            with watched(student.body, taps, seen):
                answers.append(student.body(**{name: view(part, generator)}))
            if hint:
                maps.append(seen.pop(_HINT).half())
            for exit_, tensor in seen.items():
                features[exit_].append(tensor.half())
        if progress is not None:
            progress(f"view {number} of {len(views)}")
    joined = {exit_: torch.cat(parts) for exit_, parts in features.items()}
    return Pool(joined, torch.cat(answers), torch.cat(maps) if hint else None)


@dataclasses.dataclass(frozen=True)
class Teaching:
    """How heads are taught.

    Attributes:
        epochs: Passes over the pool.
        batch: Samples a step.
        peak_rate: Largest rate of AdamW's one-cycle schedule.
        temperature: Of both answers.
        hint_weight: Of the squared error to the hint over its variance; a head without `features` has none.
        seed: Of the order of samples.
    """

    epochs: int = 8
    batch: int = 64
    peak_rate: float = 2e-3
    temperature: float = 2.0
    hint_weight: float = 1.0
    seed: int = 0


def teach_heads(
    student: WithExits, pool: Pool, plan: Teaching, progress: Callable[[str], None] | None = None
) -> dict[str, float]:
    """Trains the heads in place towards the full answer (Kullback-Leibler divergence at a temperature).

    Returns:
        For each exit the mean loss of its last epoch, nats.
    """
    return {exit_: _teach(exit_, student.heads[exit_], pool, plan, progress) for exit_ in student.taps}


def _teach(exit_: str, head: nn.Module, pool: Pool, plan: Teaching, progress: Callable[[str], None] | None) -> float:
    features, count = pool.features[exit_], len(pool.answers)
    wanted = torch.softmax(pool.answers.clone() / plan.temperature, 1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=plan.peak_rate, weight_decay=0.01)
    steps = plan.epochs * -(-count // plan.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.peak_rate, total_steps=steps, pct_start=0.2)
    generator = torch.Generator().manual_seed(plan.seed)
    hinted = pool.hint is not None and isinstance(head, CopiedHead) and plan.hint_weight > 0
    variance = float(pool.hint[:1000].float().var()) if pool.hint is not None else 1.0
    mean = float("nan")
    for epoch in range(plan.epochs):
        head.train()
        total = 0.0
        for rows in torch.randperm(count, generator=generator).split(plan.batch):
            read = features[rows].float()
            made = head.features(read) if hinted else None  # type: ignore[operator]
            logits = head(read) if made is None else head.linear(made.mean((2, 3)))  # type: ignore[operator]
            said = torch.log_softmax(logits / plan.temperature, 1)
            loss = nn.functional.kl_div(said, wanted[rows], reduction="batchmean") * plan.temperature**2
            if made is not None and pool.hint is not None:
                error = nn.functional.mse_loss(made, pool.hint[rows].float()) / variance
                loss = loss + plan.hint_weight * error
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 2.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        mean = total / count
        if progress is not None:
            progress(f"{exit_}: epoch {epoch + 1} of {plan.epochs}: {mean:.3f} nats from the full answer")
    head.eval()
    return mean

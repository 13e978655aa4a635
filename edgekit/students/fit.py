"""A small seeded training loop: AdamW with a one-cycle rate, early stop on a part of the training data.

The held-back set never enters: the part that decides when to stop is cut from the training samples.

    arrays, labels ──► cut 1/10 ──► epochs of AdamW ──► after each: accuracy on the cut part ──► best weights kept
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from edgekit.students.sampling import Arrays, seeded

IGNORED = -100
Progress = Callable[[str], None]
Augment = Callable[[dict[str, torch.Tensor], torch.Generator], dict[str, torch.Tensor]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        epochs: Most passes over the training part.
        batch: Samples a step.
        peak_rate: Largest learning rate of the one-cycle schedule (Smith 2018, 1708.07120).
        weight_decay: Of AdamW, for all parameters of two or more axes.
        patience: Epochs without a better accuracy before training stops.
        stop_fraction: Share of the training samples that decides when to stop.
        label_smoothing: Of the cross-entropy.
        seed: Of the split, the order of samples and dropout.
    """

    epochs: int = 10
    batch: int = 64
    peak_rate: float = 2e-3
    weight_decay: float = 0.01
    patience: int = 4
    stop_fraction: float = 0.1
    label_smoothing: float = 0.0
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What training did: epochs run, the epoch kept, and accuracy on the stopping part after each epoch."""

    epochs: int
    best_epoch: int
    accuracies: tuple[float, ...]


def fit(
    module: nn.Module,
    inputs: Arrays,
    labels: np.ndarray,
    plan: Plan,
    *,
    augment: Augment | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Trains in place and leaves the module with its best weights, in evaluation mode.

    Args:
        module: Its outputs are logits [B, classes] or [B, T, classes], or scores [B, 1] that are to come near labels
            (squared error), one tensor or a dict of exits. With several
            exits the loss is the mean over them and accuracy is that of the last.
        inputs: Training arrays named as the arguments of `forward`, samples first.
        labels: [N] or [N, T] int64, float32 for scores; IGNORED where there is nothing to learn.
        plan: How long and how fast.
        augment: Changes a batch of inputs before it is learnt from.
        progress: Called with one line an epoch.

    Returns:
        What happened. The same arguments on the same machine give the same weights.
    """
    order = np.random.default_rng(plan.seed).permutation(len(labels))
    cut = max(1, round(len(labels) * plan.stop_fraction))
    stop, learn = order[:cut], order[cut:]
    optimizer = torch.optim.AdamW(_groups(module, plan.weight_decay), lr=plan.peak_rate)
    steps = -(-len(learn) // plan.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.peak_rate, total_steps=plan.epochs * steps, pct_start=0.2
    )
    held, held_labels = {name: array[stop] for name, array in inputs.items()}, labels[stop]
    best, best_epoch, accuracies = copy.deepcopy(module.state_dict()), -1, []
    with seeded(plan.seed):
        generator = torch.Generator().manual_seed(plan.seed)
        for epoch in range(plan.epochs):
            module.train()
            for rows in torch.randperm(len(learn), generator=generator).split(plan.batch):
                picked = learn[rows.numpy()]
                batch = {name: torch.from_numpy(array[picked]) for name, array in inputs.items()}
                if augment is not None:
                    batch = augment(batch, generator)
                loss = _loss(module(**batch), torch.from_numpy(labels[picked]), plan.label_smoothing)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimizer.step()
                schedule.step()
            accuracies.append(accuracy(predict(module, held), held_labels)[-1])
            if progress is not None:
                progress(f"epoch {epoch + 1} of {plan.epochs}: {accuracies[-1]:.1%} right on the stopping part")
            if best_epoch < 0 or accuracies[-1] > accuracies[best_epoch]:
                best, best_epoch = copy.deepcopy(module.state_dict()), epoch
            if epoch - best_epoch >= plan.patience:
                break
    module.load_state_dict(best)
    module.eval()
    return Fitted(len(accuracies), best_epoch, tuple(accuracies))


@torch.no_grad()
def predict(module: nn.Module, inputs: Mapping[str, np.ndarray], batch: int = 128) -> Sequence[np.ndarray]:
    """Labels or whole grades each exit gives, [N] or [N, T] each, in order of depth. Leaves the module in eval mode."""
    module.eval()
    found: list[list[torch.Tensor]] = []
    for start in range(0, len(next(iter(inputs.values()))), batch):
        answers = _exits(module(**{n: torch.from_numpy(a[start : start + batch]) for n, a in inputs.items()}))
        found.append([one[:, 0].round() if _is_score(one) else one.argmax(-1) for one in answers])
    return [torch.cat(parts).numpy() for parts in zip(*found, strict=True)]


def accuracy(predicted: Sequence[np.ndarray], labels: np.ndarray) -> tuple[float, ...]:
    """Share of right labels of each exit, IGNORED ones left out."""
    counted = labels != IGNORED
    return tuple(float((one == labels)[counted].mean()) for one in predicted)


def _exits(answer: torch.Tensor | Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    return list(answer.values()) if isinstance(answer, Mapping) else [answer]


def _loss(answer: torch.Tensor | Mapping[str, torch.Tensor], labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    losses = [
        nn.functional.mse_loss(one[:, 0], labels)
        if _is_score(one)
        else nn.functional.cross_entropy(
            one.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, label_smoothing=smoothing
        )
        for one in _exits(answer)
    ]
    return torch.stack(losses).mean()


def _is_score(answer: torch.Tensor) -> bool:
    """One number a sample is a score, two and more are logits."""
    return answer.ndim == 2 and answer.shape[1] == 1


def _groups(module: nn.Module, decay: float) -> list[dict[str, object]]:
    # Weight decay on biases and normalization only pulls them off what they measure.
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]

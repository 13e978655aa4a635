"""What it costs to answer early: a loss in [0, 1] for each exit and sample. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit_converters.exits.certify import Samples
from edgekit_runtime.errors import Refused
from edgekit_runtime.exits import score, spoken

IGNORED = -100


def samples_of(
    logits: Sequence[np.ndarray],
    rule: str,
    labels: np.ndarray | None = None,
    mixes: Sequence[Sequence[float]] = (),
) -> Samples:
    """Scores and losses of every exit.

    Args:
        logits: [samples, ..., classes] of each exit, the full answer last.
        rule: Key of `edgekit_runtime.exits.SCORES`.
        labels: True classes [samples, ...]; None: the full answer is what an exit must give.
        mixes: Weights of the exits up to each, see `edgekit_runtime.exits.mixed`.

    Returns:
        The loss is, for an answer of many parts, the share of its parts that are wrong. With labels a part is wrong
        where the exit is wrong and the full answer is right; without, where they differ.

    Raises:
        Refused: Labels of another shape than the answers.
    """
    said = spoken(logits, mixes)
    answers = [one.argmax(-1) for one in said]
    full = answers[-1]
    if labels is None:
        wrong = [(answer != full).astype(np.float64) for answer in answers]
        counted = np.ones(full.shape, bool)
    else:
        if labels.shape != full.shape:
            raise Refused(
                f"labels have shape {labels.shape}, the answers {full.shape}",
                remedy="one label an answer, or leave the labels out to certify agreement with the full model",
            )
        counted = labels != IGNORED
        wrong = [((answer != labels) & (full == labels) & counted).astype(np.float64) for answer in answers]
    parts = counted.reshape(len(full), -1).sum(1)
    losses = [one.reshape(len(full), -1).sum(1) / np.maximum(parts, 1) for one in wrong]
    return Samples(np.stack([score(rule, one) for one in said]), np.stack(losses))

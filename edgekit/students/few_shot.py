"""Row 17: few-shot classifier (SetFit's second stage, Tunstall et al. 2022, 2209.11055) on a frozen MiniLM.

ids, mask [B, T] -> MiniLM-L6, frozen -> `embedding` [B, 384] -> logistic head outside the graph -> class.

The graph is the body alone (row 5); the head is `assets/head.npz` of the bundle, fitted on a few examples a class in a
second and replaced without converting (`edgekit_converters.head.replace_head`). Simplified: the body is not tuned on
pairs first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekit.students.minilm import SentenceEncoder, build, example
from edgekit_runtime.head import Head

if TYPE_CHECKING:
    from edgekit_runtime.session import Session


def fit_head(embeddings: np.ndarray, labels: np.ndarray, *, output: str = "embedding", strength: float = 1.0) -> Head:
    """Logistic regression with an L2 penalty, as scikit-learn's default: minimises C * loss + |W|^2 / 2 by L-BFGS.

    Args:
        embeddings: float32 [N, D].
        labels: int64 [N], 0 to C - 1.
        output: Name of the graph's output they are.
        strength: C; larger trusts the examples more.
    """
    x, y = torch.from_numpy(np.asarray(embeddings, np.float64)), torch.from_numpy(labels)
    classes = int(labels.max()) + 1
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        fit = torch.nn.functional.cross_entropy(x @ weight.T + bias, y, reduction="sum")
        value = strength * fit + weight.square().sum() / 2
        value.backward()
        return value

    solver.step(loss)  # convex, from zero: the same examples give the same head
    return Head(weight.detach().numpy().astype(np.float32), bias.detach().numpy().astype(np.float32), output)


def examples_of(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Places of `count` samples of each class, drawn by `seed`."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:count] for c in np.unique(labels)])


def embed(session: Session, texts: Sequence[str], output: str = "embedding") -> np.ndarray:
    """What an opened bundle answers to texts, one by one, by its own tokenizer: [N, D]."""
    return np.concatenate([session.run(session.encode(text=text))[output] for text in texts])


__all__ = ["SentenceEncoder", "build", "embed", "example", "examples_of", "fit_head"]

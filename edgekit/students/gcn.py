"""Row 20: a graph convolutional network (2211.16631; GCN: Kipf and Welling 2017, 1609.02907).

x [N, 64] float32, edges [2, E] int64 (from, to) -> Linear 64, sum over neighbours, ReLU -> Linear, sum over neighbours
-> logits [N, 7].

The edge list is used as users write it: rows are gathered at `edges[0]`, scaled by 1 / sqrt(degree of both ends) and
added up at `edges[1]` with `index_add`. Nodes count themselves as neighbours through a term of its own, so the caller
lists real edges only. An edge from a node to itself is padding: it adds nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import nn

from edgekit.students.sampling import Arrays, check_size, seeded, spread_answers

CLASSES = 7
FEATURES = 64


class GraphConvolution(nn.Module):
    """One layer: H' = D^-1/2 (A + I) D^-1/2 H W (Kipf and Welling, equation 2), edges given as a list."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: torch.Tensor, edges: torch.Tensor, weight: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """X [N, inputs], edges [2, E], weight of each edge [E, 1] and of each node itself [N, 1] to [N, outputs]."""
        h = self.linear(x)
        messages = h.index_select(0, edges[0]) * weight
        return (h * own).index_add(0, edges[1], messages)


class Gcn(nn.Module):
    """See the module's docstring.

    Args:
        width: Of the hidden layer.
        classes: Logits of each node.
    """

    def __init__(self, width: int = 64, classes: int = CLASSES) -> None:
        super().__init__()
        self.first = GraphConvolution(FEATURES, width)
        self.second = GraphConvolution(width, classes)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """X [N, 64] and edges [2, E] to logits [N, classes]."""
        real = (edges[0] != edges[1]).to(x.dtype)
        degree = torch.ones_like(x[:, 0]).index_add(0, edges[1], real)
        scale = torch.rsqrt(degree)
        weight = (real * scale.index_select(0, edges[0]) * scale.index_select(0, edges[1]))[:, None]
        own = (scale * scale)[:, None]
        hidden = torch.relu(self.first(x, edges, weight, own))
        return self.second(hidden, edges, weight, own)


def build(size: str = "full", seed: int = 0) -> Gcn:
    """Width 64 (`tiny`: 16), seeded weights."""
    check_size(size)
    with seeded(seed):
        student = Gcn(64 if size == "full" else 16)
    spread_answers(student, {"output": student.second.linear}, example(4, 200, seed=seed))
    return student.eval()


def trained(seed: int = 0, steps: int = 120) -> Gcn:
    """Full size, taught in seconds on one made-up graph of 1,024 nodes; graphs of another seed are held back."""
    student = build("full", seed)
    graph = citations(1024, 4096, seed=seed + 1000)
    x, edges, labels = (torch.from_numpy(array) for array in (graph.x, graph.edges, graph.labels))
    optimizer = torch.optim.AdamW(student.parameters(), 0.01, weight_decay=0.05)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(student(x, edges), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student.eval()


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """A citation graph of `length` nodes and `batch` edges a node: `x` [N, 64] float32, `edges` [2, E] int64."""
    graph = citations(length, batch * length, seed)
    return {"x": graph.x, "edges": graph.edges}


@dataclasses.dataclass(frozen=True)
class Citations:
    """A graph: `x` [N, 64] float32, `edges` [2, E] int64, `labels` [N] int64 in 0 to 6."""

    x: np.ndarray
    edges: np.ndarray
    labels: np.ndarray


def citations(nodes: int, edges: int, seed: int = 0) -> Citations:
    """A made-up citation graph: seven subjects, three of four citations within a subject, noisy word counts.

    The words of a subject are the same in every graph, so that one graph teaches about another.

    Args:
        nodes: N, 1 or more.
        edges: E. Citations from a node to itself are drawn too where there is only one node; they add nothing.
        seed: Of the graph.
    """
    words = np.random.default_rng(1234).standard_normal((CLASSES, FEATURES))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, nodes)
    x = 0.35 * words[labels] + rng.standard_normal((nodes, FEATURES))
    start, end = rng.integers(0, nodes, edges), rng.integers(0, nodes, edges)
    for subject in range(CLASSES):
        within = (labels[start] == subject) & (rng.random(edges) < 0.75)
        own = np.flatnonzero(labels == subject)
        if own.size:
            end[within] = rng.choice(own, int(within.sum()))
    return Citations(x.astype(np.float32), np.stack([start, end]).astype(np.int64), labels.astype(np.int64))

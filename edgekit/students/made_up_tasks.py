"""Data made by a rule, and the form in which the students that read them are taught."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from edgekit.students import data, gcn, transliterator, two_branch
from edgekit.students.fit import IGNORED
from edgekit.students.task import Task


def seen_and_heard_task(rows: int) -> Task:
    """MNIST digits, each with a tone that tells the same digit: 10,000 to train on, 2,000 held back."""
    digits = data.mnist()
    pixels = digits.pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255.0)
    spectrum = two_branch.tones(digits.labels)
    train, held = ({"image": pixels[part], "spectrum": spectrum[part]} for part in (slice(10_000), slice(10_000, None)))
    return Task(train, digits.labels[:10_000], held, digits.labels[10_000:])


class SeenAndHeard(nn.Module):
    """Teaches both branches and each alone, so that one can be dropped."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, image: torch.Tensor, spectrum: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits by sight, by ear and by both, [B, 10] each."""
        seen, heard = self.student.seeing(image), self.student.hearing(spectrum)
        head, half = self.student.head, two_branch.BRANCH
        return {
            "seen": nn.functional.linear(seen, head.weight[:, :half], head.bias),
            "heard": nn.functional.linear(heard, head.weight[:, half:], head.bias),
            "output": head(torch.cat([seen, heard], dim=1)),
        }


def transliteration_task(rows: int) -> Task:
    """12,000 made-up words with what they become, 500 held back; `written` is what the decoder reads while learning."""
    words = np.unique(transliterator.words(14_000, seed=1), axis=0)
    words = words[np.random.default_rng(0).permutation(len(words))][:12_500]
    answers = transliterator.written(words)
    following = np.where(answers[:, 1:] == 0, IGNORED, answers[:, 1:])
    ends = (answers[:, 1:] != 0).sum(axis=1)
    following[np.arange(len(words)), ends] = transliterator.END
    train, held = ({"chars": words[part], "written": answers[part, :-1]} for part in (slice(500, None), slice(500)))
    return Task(train, following[500:], held, following[:500], judged=answers[:500, 1:])


class Taught(nn.Module):
    """Teaches every next character at once, given the right ones before it."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, chars: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
        """Scores [B, L, V]."""
        return self.student.teach(chars, written)


def citation_task(rows: int) -> Task:
    """Citation graphs of 512 nodes and 2,048 edges: 40 to calibrate on, 40 held back; a label a node."""
    graphs = [gcn.citations(512, 2_048, seed=2_000 + number) for number in range(80)]
    arrays = {name: np.stack([getattr(graph, name) for graph in graphs]) for name in ("x", "edges")}
    labels = np.stack([graph.labels for graph in graphs])
    train, held = ({name: array[part] for name, array in arrays.items()} for part in (slice(40), slice(40, None)))
    return Task(train, labels[:40], held, labels[40:])


class Graphs(nn.Module):
    """Reads several graphs of one size, one after the other: the student itself has no batch axis."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """X [B, N, 64] and edges [B, 2, E] to logits [B, N, classes]."""
        return torch.stack([self.student(nodes, pairs) for nodes, pairs in zip(x, edges, strict=True)])


TASKS: dict[str, tuple[Callable[[int], Task], Callable[[nn.Module], nn.Module]]] = {
    "two_branch": (seen_and_heard_task, SeenAndHeard),
    "transliterator": (transliteration_task, Taught),
}

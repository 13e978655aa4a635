"""A small text student that learns what a large one says, on more sentences than there are labels.

    sentences ──► phrases, swapped words, joined halves, dropped words ──► teacher ──► answers ─┐
        └────────────────────────────────────────────────────────────► teacher ──► answers ─────┴──► student

The first student of a cascade has to agree with the second one, right or wrong; labels say nothing of that. The
teacher's answers cost no labels, so sentences may be made up (data augmentation for distillation: Tang et al. 2019,
1903.12136). Both read the same word pieces, so that a request is encoded once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

FIRST_PIECE, LAST_PIECE = 101, 102  # BERT's [CLS] and [SEP]
SHORTEST = 5  # pieces of a batch: no shorter than the widest convolution of a text CNN


@dataclasses.dataclass(frozen=True)
class Made:
    """How many sentences are made of others, one kind after the other.

    Attributes:
        phrases: Runs of 3 or more pieces of a sentence.
        swapped: Sentences with 10, 20 or 30 % of their pieces replaced by pieces of any sentence.
        joined: Two phrases, one behind the other.
        dropped: Sentences without a fifth of their pieces.
    """

    phrases: int = 14_000
    swapped: int = 10_000
    joined: int = 6_000
    dropped: int = 4_000


def made_sentences(ids: np.ndarray, made: Made, seed: int = 1) -> np.ndarray:
    """Sentences made of others.

    Args:
        ids: [N, T] int64 word pieces between `FIRST_PIECE` and `LAST_PIECE`, 0 behind.
        made: How many of which kind.
        seed: Of what is drawn.

    Returns:
        [sum of the kinds, T] int64, in the same form.
    """
    longest = ids.shape[1] - 2
    bodies = [row[1 : int((row != 0).sum()) - 1] for row in ids]
    pieces = np.concatenate(bodies)
    rng = np.random.default_rng(seed)

    def phrase() -> np.ndarray:
        body = any_body()
        length = int(rng.integers(min(3, len(body)), len(body) + 1))
        start = rng.integers(0, len(body) - length + 1)
        return body[start : start + length]

    def swapped() -> np.ndarray:
        body = any_body().copy()
        other = rng.random(len(body)) < rng.choice([0.1, 0.2, 0.3])
        body[other] = pieces[rng.integers(0, len(pieces), other.sum())]
        return body

    def joined() -> np.ndarray:
        first, second = phrase(), phrase()
        return np.concatenate([first[: longest // 2 - 1], second[: longest // 2]])

    def dropped() -> np.ndarray:
        body = any_body()
        return body[rng.random(len(body)) > 0.2]

    def any_body() -> np.ndarray:
        return bodies[rng.integers(len(bodies))]

    kinds = [(phrase, made.phrases), (swapped, made.swapped), (joined, made.joined), (dropped, made.dropped)]
    found = np.zeros((sum(count for _, count in kinds), ids.shape[1]), np.int64)
    rows = iter(found)
    for make, count in kinds:
        for _ in range(count):
            body = make()[:longest]
            next(rows)[: len(body) + 2] = [FIRST_PIECE, *body, LAST_PIECE]
    return found


def begin(embedding: nn.Embedding, table: np.ndarray, ids: np.ndarray, spread: float = 0.5) -> None:
    """Writes the principal directions of a teacher's table over a student's; edits the table.

    Args:
        embedding: Of the student, [V, W].
        table: Of the teacher, [V, D] float32, D ≥ W.
        ids: Sentences that say how often each piece occurs: directions count for frequent pieces.
        spread: Standard deviation of the rows that occur.
    """
    often = np.bincount(ids.ravel(), minlength=len(table)).astype(np.float64)
    often[0] = 0.0  # padding
    weight = np.sqrt(often)[:, None]
    centred = table - (table * weight).sum(0) / weight.sum()
    _, directions = np.linalg.eigh((centred * weight).T @ centred)
    places = centred @ directions[:, ::-1][:, : embedding.weight.shape[1]]
    places *= spread / places[often > 0].std()
    places[0] = 0.0
    with torch.no_grad():
        embedding.weight.copy_(torch.from_numpy(places.astype(np.float32)))


@dataclasses.dataclass(frozen=True)
class Lesson:
    """How a student learns answers.

    Attributes:
        epochs: Passes over the sentences.
        batch: Sentences a step, of like length.
        peak_rate: Largest rate of AdamW's one-cycle schedule; the table has half of it and no weight decay.
        blank: Share of word vectors that are zero in a step.
        hard: Learn which class the teacher names, not how sure it is: the student's own score is then its chance to
            agree, which is what a threshold is put on.
        seed: Of order, dropout and blanks.
    """

    epochs: int = 4
    batch: int = 128
    peak_rate: float = 2e-3
    blank: float = 0.1
    hard: bool = False
    seed: int = 0


def teach(
    student: nn.Module,
    embedding: nn.Embedding,
    ids: np.ndarray,
    answers: np.ndarray,
    lesson: Lesson,
    progress: Callable[[str], None] | None = None,
) -> float:
    """Trains in place towards a teacher's answers (cross-entropy; Hinton et al. 2015, 1503.02531); ends in eval mode.

    Args:
        student: ids [B, T] to logits [B, classes].
        embedding: Its table of word pieces.
        ids: [N, T] int64, 0 behind.
        answers: Logits of the teacher, [N, classes] float32.
        lesson: How long and how fast.
        progress: Called with one line an epoch.

    Returns:
        Mean loss of the last epoch, nats.
    """
    rest = [value for value in student.parameters() if value is not embedding.weight]
    groups = [{"params": rest, "weight_decay": 0.01}, {"params": [embedding.weight], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lesson.peak_rate)
    steps = lesson.epochs * -(-len(ids) // lesson.batch)
    rates = [lesson.peak_rate, lesson.peak_rate / 2]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.2)
    told = torch.from_numpy(answers)
    wanted = nn.functional.one_hot(told.argmax(1), told.shape[1]).float() if lesson.hard else torch.softmax(told, 1)
    rng, mean = np.random.default_rng(lesson.seed), float("nan")
    generator = torch.Generator().manual_seed(lesson.seed)

    def blank(module: nn.Module, read: object, words: torch.Tensor) -> torch.Tensor:
        return words * (torch.rand(words.shape[:2], generator=generator) > lesson.blank)[:, :, None]

    hook = embedding.register_forward_hook(blank)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(lesson.seed)
            student.train()
            for epoch in range(lesson.epochs):
                total = 0.0
                for rows in _alike(ids, lesson.batch, rng):
                    said = student(torch.from_numpy(_cut(ids[rows])))
                    loss = nn.functional.cross_entropy(said, wanted[rows])
                    optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(student.parameters(), 2.0)
                    optimizer.step()
                    schedule.step()
                    total += float(loss.detach()) * len(rows)
                mean = total / len(ids)
                if progress is not None:
                    progress(f"epoch {epoch + 1} of {lesson.epochs}: {mean:.3f} nats")
    finally:
        hook.remove()
        student.eval()
    return mean


def in_batches(answer: Callable[[np.ndarray], np.ndarray], ids: np.ndarray, batch: int = 64) -> np.ndarray:
    """Answers to sentences, those of like length together without the padding that all of them have.

    Args:
        answer: [B, T] int64 to logits [B, classes].
        ids: [N, T] int64, 0 behind.
        batch: Sentences at a time.
    """
    order = np.argsort((ids != 0).sum(1), kind="stable")
    parts = [order[at : at + batch] for at in range(0, len(order), batch)]
    said = np.concatenate([answer(_cut(ids[rows])) for rows in parts])
    found = np.empty_like(said)
    found[order] = said
    return found


def _alike(ids: np.ndarray, batch: int, rng: np.random.Generator) -> Sequence[np.ndarray]:
    """Batches of sentences of like length, in any order."""
    order = np.argsort((ids != 0).sum(1) + rng.random(len(ids)) * 6, kind="stable")
    parts = [order[at : at + batch] for at in range(0, len(order), batch)]
    return [parts[number] for number in rng.permutation(len(parts))]


def _cut(ids: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(ids[:, : max(int((ids != 0).sum(1).max()), SHORTEST)])

"""The first student of the cascade of `exits.py`: two text CNNs in one graph that learn what the int8 BERT-small says.

    ids ─┬─► text CNN, taught how sure the teacher is ───┬─► mean of logits
         └─► text CNN, taught which class it names ──────┘

Everything is chosen on training sentences: 1,000 of them are kept out of learning, to tell how many would leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

import edgekit_runtime as er
from benchmarks.exits_material import kept, say
from edgekit.students import distil, word_pieces
from edgekit.students.sampling import seeded
from edgekit.students.text_cnn import TextCNN
from edgekit_converters.exits.certify import certify, common_path
from edgekit_converters.exits.losses import samples_of

NAME = "first_cnn"
WIDTH, KERNELS = 128, (1, 2, 3, 5)
LESSONS = (distil.Lesson(epochs=4), distil.Lesson(epochs=2, hard=True, seed=1))
DEVELOPMENT = 1_000
TABLE = "body.bert.embeddings.word_embeddings.weight"


class Together(nn.Module):
    """Mean of the logits of several students: they err differently, so what both are sure of is surer.

    Args:
        members: ids [B, T] to logits [B, classes] each.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [B, T] int64 to logits [B, classes]."""
        first, *others = [member(ids) for member in self.members]
        return sum(others, first) / len(self.members)


def first_cnn(folder: Path, bert: er.Bundle, bert_weights: Path) -> nn.Module:
    """The student, from `first_cnn.safetensors` of the folder or taught; what the teacher said is kept beside it.

    Args:
        folder: Of weights.
        bert: The bundle whose `onnx.int8` is the teacher.
        bert_weights: Of the same student, whose table of word pieces this one begins with.
    """
    from safetensors.torch import load_file

    table = load_file(bert_weights)[TABLE].numpy()
    members = [member(len(table), lesson) for lesson in LESSONS]
    student = Together(members)

    def teach() -> None:
        learn, judge = parts(word_pieces.sentences_task(0).train["ids"])
        made = distil.made_sentences(learn, distil.Made())
        told = answers(folder, bert, np.concatenate([judge, learn, made]))
        judged, taught, rest = np.split(told, [len(judge), len(judge) + len(learn)])
        # What people wrote counts twice.
        inputs, wanted = np.concatenate([learn, learn, made]), np.concatenate([taught, taught, rest])
        for one, lesson in zip(members, LESSONS, strict=True):
            distil.begin(one.embedding, table, learn)
            distil.teach(one, one.embedding, inputs, wanted, lesson, say)
            say(development(one, judge, judged))
        say(f"together: {development(student, judge, judged)}")

    return kept(student, folder / f"{NAME}.safetensors", teach)


def member(vocabulary: int, lesson: distil.Lesson) -> TextCNN:
    """One of the text CNNs, not taught yet."""
    with seeded(lesson.seed):
        return TextCNN(vocabulary, WIDTH, kernels=KERNELS, means=True)


def parts(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training sentences to learn from, and those that only tell how many would leave."""
    order = np.random.default_rng(0).permutation(len(ids))
    return ids[order[DEVELOPMENT:]], ids[order[:DEVELOPMENT]]


def answers(folder: Path, bert: er.Bundle, ids: np.ndarray) -> np.ndarray:
    """What the int8 teacher says of sentences, [N, 2]; asked once, for minutes, and kept."""
    path = folder / f"{NAME}.answers.npz"
    teacher = next(graph.sha256 for graph in bert.manifest.graphs if graph.id == "onnx.int8")
    if path.is_file():
        with np.load(path) as known:
            if str(known["teacher"]) == teacher and np.array_equal(known["ids"], ids):
                return known["logits"]
    with er.open(bert.root, graph="onnx.int8", threads=1) as session:
        logits = distil.in_batches(
            lambda part: session.run({"ids": part, "mask": (part != 0).astype(np.int64)})["output"], ids
        )
    np.savez_compressed(path, ids=ids, logits=logits, teacher=teacher)
    return logits


@torch.inference_mode()
def development(student: nn.Module, ids: np.ndarray, told: np.ndarray) -> str:
    """How often the student agrees with the teacher on sentences that it did not learn, and how many would leave."""
    said = distil.in_batches(lambda part: student(torch.from_numpy(part)).numpy(), ids)
    samples = samples_of([said, told], "max_softmax")
    leave = certify(samples, common_path(2), 0.01, 0.95).exit_fractions[0]
    return f"{1 - samples.losses[0].mean():.1%} as the teacher, {leave:.1%} leave at a risk of 0.01"

"""Row 6: encoder with a very large vocabulary (AlephBERTGimmel, 2211.15199, a Hebrew BERT of 128,000 pieces).

ids, mask [B, T] -> encoder of 4 x 512, heads of 64, feed-forward 2,048 -> first piece, Linear, tanh -> Linear
-> logits [B, 2]. The table holds 84 % of the bytes.

Simplified: the sizes of a small student, seeded weights. Right-to-left text needs nothing of the graph: pieces come in
the order they are read. Padding never changes the answer. Taught on far fewer words than the table has rows: the rest
keep their seeded rows.
"""

from __future__ import annotations

import dataclasses

from edgekit.students.bert import BertClassifier
from edgekit.students.encoder import EncoderSize
from edgekit.students.sampling import Arrays, check_size, seeded, spread_answers, token_ids

SIZES = {
    "tiny": EncoderSize(layers=1, width=32, heads=2, inner=64, vocabulary=2_000, positions=128),
    "full": EncoderSize(layers=4, width=512, heads=8, inner=2_048, vocabulary=128_000, positions=128),
}


def build(size: str = "full", seed: int = 0) -> BertClassifier:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (1 layer of width 32, V = 2,000) or `full` (4 layers of width 512, V = 128,000).
        seed: Of the weights.

    Raises:
        UsageError: An unknown size.
    """
    check_size(size)
    with seeded(seed):
        student = BertClassifier(SIZES[size])
    spread_answers(student, {"output": student.head}, example(64, 24, size, seed))
    return student.eval()


def teach(student: BertClassifier, rows: int) -> BertClassifier:
    """A form of the student whose table is its first `rows` rows; both share their weights.

    An optimizer steps through every row of a table at every batch: 128,000 rows would take most of the time, and those
    that the data never name learn nothing.

    Args:
        student: Full or tiny; learns with what is returned.
        rows: Ids that the data hold, [CLS] among them.
    """
    table = "bert.embeddings.word_embeddings.weight"
    state = student.state_dict()
    width, inner = state["head.weight"].shape[1], state["bert.encoder.layer.0.intermediate.dense.weight"].shape[0]
    size = next(size for size in SIZES.values() if (size.width, size.inner) == (width, inner))
    with seeded(0):
        form = BertClassifier(dataclasses.replace(size, vocabulary=rows))
    shared = {name: value[:rows] if name == table else value for name, value in state.items()}
    form.load_state_dict(shared, assign=True)
    return form


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random texts: `ids` and `mask` [batch, length] int64, padded at the end."""
    ids = token_ids(batch, length, SIZES[size].vocabulary, seed)
    return {"ids": ids, "mask": (ids != 0).astype(ids.dtype)}

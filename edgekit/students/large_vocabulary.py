"""Row 6: encoder with a very large vocabulary (AlephBERTGimmel, 2211.15199, a Hebrew BERT of 128,000 pieces).

ids, mask [B, T] -> encoder of 4 x 512, heads of 64, feed-forward 2,048 -> first piece, Linear, tanh -> Linear
-> logits [B, 2]. The table holds 84 % of the bytes.

Simplified: the sizes of a small student, seeded weights. Right-to-left text needs nothing of the graph: pieces come in
the order they are read. Padding never changes the answer.
"""

from __future__ import annotations

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


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random texts: `ids` and `mask` [batch, length] int64, padded at the end."""
    ids = token_ids(batch, length, SIZES[size].vocabulary, seed)
    return {"ids": ids, "mask": (ids != 0).astype(ids.dtype)}

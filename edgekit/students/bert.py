"""Row 4: BERT tiny, mini and small (Turc et al. 2019, 1908.08962; students in Which Student, 2201.00558).

ids, mask [B, T] -> encoder of 2x128, 4x256 or 4x512 (heads of 64, feed-forward 4x as wide) -> first word ([CLS]) ->
Linear, tanh (BERT's pooler) -> Linear -> logits [B, 2].

Simplified: one text (token type 0), no dropout in the graph, seeded weights. Padding never changes the answer: its
attention weight is exactly 0.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekit.students.encoder import Encoder, EncoderSize
from edgekit.students.sampling import Arrays, check_size, seeded, spread_answers, token_ids

FULL = {
    "tiny": EncoderSize(layers=2, width=128, heads=2, inner=512),
    "mini": EncoderSize(layers=4, width=256, heads=4, inner=1024),
    "small": EncoderSize(layers=4, width=512, heads=8, inner=2048),
}
TINY = {
    name: EncoderSize(full.layers, width=32, heads=2, inner=64, vocabulary=200, positions=128)
    for name, full in FULL.items()
}


class BertClassifier(nn.Module):
    """See the module's docstring.

    Args:
        size: Shape of the encoder.
        classes: Logits.
    """

    def __init__(self, size: EncoderSize, classes: int = 2) -> None:
        super().__init__()
        self.bert = Encoder(size)
        self.pooler = nn.Linear(size.width, size.width)
        self.head = nn.Linear(size.width, classes)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Ids and mask [B, T] int64 to logits [B, classes]."""
        return self.head(torch.tanh(self.pooler(self.bert(ids, mask)[:, 0])))


def bert_tiny(size: str = "full", seed: int = 0) -> BertClassifier:
    """2 layers of width 128 (`tiny`: width 32, V = 200), seeded weights."""
    return _build("tiny", size, seed)


def bert_mini(size: str = "full", seed: int = 0) -> BertClassifier:
    """4 layers of width 256 (`tiny`: width 32, V = 200), seeded weights."""
    return _build("mini", size, seed)


def bert_small(size: str = "full", seed: int = 0) -> BertClassifier:
    """4 layers of width 512 (`tiny`: width 32, V = 200), seeded weights."""
    return _build("small", size, seed)


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random texts: `ids` and `mask` [batch, length] int64, padded at the end."""
    ids = token_ids(batch, length, 30_522 if size == "full" else 200, seed)
    return {"ids": ids, "mask": (ids != 0).astype(ids.dtype)}


def _build(name: str, size: str, seed: int) -> BertClassifier:
    check_size(size)
    with seeded(seed):
        student = BertClassifier(FULL[name] if size == "full" else TINY[name])
    spread_answers(student, {"output": student.head}, example(64, 24, size, seed))
    return student.eval()

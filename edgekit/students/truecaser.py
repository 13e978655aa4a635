"""Row 13: truecaser (2108.11943), a recurrence over words and one over the characters of each word.

words [B, T] -> Embedding(V, 64) -> BiLSTM(64) -> Linear, tanh: where the characters of the word begin
chars [B, T, C] -> Embedding(128, 16) -> BiGRU(32), begun there -> Linear -> logits [B, T, C, 2] (lower, upper)

Simplified: the two levels are trained together from scratch; a character outside ASCII has id 1. The logits of a
character depend neither on padded words nor on padded characters; those of padding are 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from edgekit.students.layers import BiGRU, BiLSTM, reversal, word_table
from edgekit.students.sampling import Arrays, check_size, seeded, spread_answers, token_ids

VOCABULARY = {"tiny": 200, "full": 8_000}
WORD_UNITS = {"tiny": 12, "full": 64}
CHARACTER_UNITS = {"tiny": 8, "full": 32}
CHARACTERS = 128
LONGEST_WORD = 16
EXAMPLE_CHARACTERS = 9


class Truecaser(nn.Module):
    """See the module's docstring.

    Args:
        vocabulary: Rows of the table of words; id 0 is padding, id 1 unknown.
        word_units: Width of a word vector and units of each direction over words.
        character_units: Units of each direction over characters.
    """

    def __init__(self, vocabulary: int, word_units: int, character_units: int) -> None:
        super().__init__()
        self.embedding = word_table(vocabulary, word_units)
        self.word_layer = BiLSTM(word_units, word_units)
        self.begin = nn.Linear(2 * word_units, 2 * character_units)
        self.characters = word_table(CHARACTERS, 16)
        self.character_layer = BiGRU(16, character_units)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(2 * character_units, 2)

    def forward(self, words: torch.Tensor, chars: torch.Tensor) -> torch.Tensor:
        """Words [B, T] and chars [B, T, C], both int64, to logits [B, T, C, 2], 0 on padding."""
        sentence = self.word_layer(self.dropout(self.embedding(words)), reversal(words))
        begin = torch.tanh(self.begin(self.dropout(sentence))).flatten(0, 1)
        ahead, back = begin[None].chunk(2, dim=-1)
        flat = chars.flatten(0, 1)
        x = self.character_layer(self.characters(flat), reversal(flat), (ahead.contiguous(), back.contiguous()))
        logits = self.head(self.dropout(x)) * (flat != 0).to(x.dtype)[:, :, None]
        return logits.reshape(*chars.shape, 2)


def build(size: str = "full", seed: int = 0) -> Truecaser:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (V = 200, 12 and 8 units) or `full` (V = 8,000, 64 and 32 units).
        seed: Of the weights.

    Raises:
        UsageError: An unknown size.
    """
    check_size(size)
    with seeded(seed):
        student = Truecaser(VOCABULARY[size], WORD_UNITS[size], CHARACTER_UNITS[size])
    spread_answers(student, {"output": student.head}, example(1, 64, size, seed))
    return student.eval()


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random sentences: `words` [batch, length] and `chars` [batch, length, 9] int64, padded at the end."""
    words = token_ids(batch, length, VOCABULARY[size], seed)
    chars = token_ids(batch * length, EXAMPLE_CHARACTERS, CHARACTERS, seed + 1).reshape(batch, length, -1)
    return {"words": words, "chars": np.where(words[:, :, None] != 0, chars, 0)}


def character_ids(word: str) -> list[int]:
    """Ids of a lower-cased word's characters: their ASCII codes, 1 for all others; cut at 16."""
    return [ord(letter) if 1 < ord(letter) < CHARACTERS else 1 for letter in word.lower()[:LONGEST_WORD]]


def encode(sentences: Sequence[Sequence[str]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Characters and cases of tokenized sentences as they should be written.

    Args:
        sentences: Words with their true case.
        length: Words a sentence; longer ones are cut.

    Returns:
        `chars` [N, length, 16] int64, and labels [N, length, 16] int64: 1 upper, 0 lower, -100 on padding.
    """
    chars = np.zeros((len(sentences), length, LONGEST_WORD), np.int64)
    labels = np.full(chars.shape, -100, np.int64)
    for row, sentence in enumerate(sentences):
        for place, word in enumerate(sentence[:length]):
            ids = character_ids(word)
            chars[row, place, : len(ids)] = ids
            labels[row, place, : len(ids)] = [letter.isupper() for letter in word[: len(ids)]]
    return chars, labels

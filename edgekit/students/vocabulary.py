"""Words to ids: 0 is padding, 1 is every unknown word. Saved as `vocab.txt`, one word a line, the line is the id."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from edgekit_runtime.errors import Refused, UsageError

PADDING, UNKNOWN = "[PAD]", "[UNK]"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """All words, the most frequent first.

    Attributes:
        words: `words[id]`; the first two are padding and unknown.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[:2] != (PADDING, UNKNOWN) or len(set(self.words)) != len(self.words):
            raise UsageError(f"a vocabulary begins with {PADDING} and {UNKNOWN} and holds every word once")
        object.__setattr__(self, "_ids", {word: index for index, word in enumerate(self.words)})

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, sentences: Sequence[Sequence[str]], length: int) -> np.ndarray:
        """Ids of tokenized sentences: [N, length] int64, cut at `length`, padded with 0 at the end."""
        ids: dict[str, int] = self._ids  # type: ignore[attr-defined]
        table = np.zeros((len(sentences), length), dtype=np.int64)
        for row, sentence in zip(table, sentences, strict=True):
            found = [ids.get(word, 1) for word in sentence[:length]]
            row[: len(found)] = found
        return table

    def save(self, path: Path | str) -> None:
        """Writes one word a line."""
        Path(path).write_text("".join(f"{word}\n" for word in self.words), encoding="utf-8")


def build_vocabulary(sentences: Iterable[Sequence[str]], largest: int, fewest: int = 1) -> Vocabulary:
    """The words of tokenized sentences, most frequent first (equal counts in alphabetical order).

    Args:
        sentences: Training sentences; never those of the held-back set.
        largest: Most entries, padding and unknown included.
        fewest: Words seen less often are unknown.
    """
    counts = Counter(word for sentence in sentences for word in sentence if word not in (PADDING, UNKNOWN))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = [word for word, count in ordered if count >= fewest]
    return Vocabulary((PADDING, UNKNOWN, *kept[: largest - 2]))


def load_vocabulary(path: Path | str) -> Vocabulary:
    """Reads what `save` wrote.

    Raises:
        Refused: The file is missing or is no vocabulary.
    """
    try:
        words = Path(path).read_text(encoding="utf-8").split("\n")[:-1]
        return Vocabulary(tuple(words))
    except (OSError, UnicodeDecodeError, UsageError) as error:
        remedy = f"one word a line, {PADDING} and {UNKNOWN} first"
        raise Refused(f"{path} is not a vocabulary: {error}", remedy=remedy) from error

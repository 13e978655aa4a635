"""Texts to ids without a word list: hashed word n-grams, or bytes. Training and device both call this module.

    "a fine film" ──► a, fine, film, a fine, fine film, a fine film ──► 1 + crc32(UTF-8) mod (rows - 1), each

Id 0 is padding and is never given to an n-gram. CRC-32 (ISO 3309, `zlib.crc32`) needs no package, is the same on every
machine and runs on in C: the hash of an n-gram continues that of the one it begins with.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgekit_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgekit_runtime.preprocess import ByteInput, NgramInput

Split = Literal["space", "words"]

# Runs of letters, digits and underscores, or one character that is none of them and no white space.
_WORDS = re.compile(r"\w+|[^\w\s]")


def words_of(text: str, *, split: Split = "space", lowercase: bool = True) -> list[str]:
    """The words of a text.

    Args:
        text: Any text.
        split: `space`: at white space; `words`: punctuation is split off as well.
        lowercase: Whether case counts for nothing.
    """
    text = text.lower() if lowercase else text
    return text.split() if split == "space" else _WORDS.findall(text)


def ngram_ids(words: list[str], rows: int, longest: int = 4, max_length: int = 0) -> list[int]:
    """Ids of all n-grams of 1 to `longest` words, by the word they begin with, short ones first.

    Args:
        words: Of one text.
        rows: Rows of the table, the padding row included; ids are 1 to rows - 1.
        longest: Words of the longest n-gram.
        max_length: Most ids; 0: no limit. What is cut is the end of the text.
    """
    coded = [word.encode("utf-8") for word in words]
    found: list[int] = []
    for start in range(len(coded)):
        code = 0
        for number, word in enumerate(coded[start : start + longest]):
            code = zlib.crc32(b" " + word if number else word, code)
            found.append(1 + code % (rows - 1))
        if max_length and len(found) >= max_length:
            return found[:max_length]
    return found


def encode(rule: NgramInput | ByteInput, items: Sequence[object]) -> np.ndarray:
    """Encodes texts as one batch of ids int64 [B, T], padded with 0 at the end; at least one column.

    Raises:
        UsageError: An item is no text.
    """
    rows = [_ids(rule, item) for item in items]
    width = getattr(rule, "length", 0) or max([1, *map(len, rows)])
    ids = np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    return ids


def _ids(rule: NgramInput | ByteInput, item: object) -> list[int]:
    from edgekit_runtime import preprocess  # which imports this module

    if not isinstance(item, str):
        raise UsageError(f"a text was expected, not {type(item).__name__}", remedy="give a str or a list of str")
    if isinstance(rule, preprocess.NgramInput):
        words = words_of(item, split=rule.split, lowercase=rule.lowercase)
        return ngram_ids(words, rule.rows, rule.longest, rule.max_length)
    data = (item.lower() if rule.lowercase else item).encode("utf-8")
    limit = rule.length or rule.max_length
    return list(data[:limit] if limit else data)

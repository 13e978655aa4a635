"""Texts to ids, with the bundle's own tokenizer."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgekit_runtime.errors import BundleInvalid, EngineMissing, Refused, UsageError

if TYPE_CHECKING:
    from edgekit_runtime.preprocess import TextInput

Text = str | tuple[str, str]


class Encoder(Protocol):
    """What turns one text, or a pair, into ids and segment ids."""

    padding_id: int

    def __call__(self, item: Text, max_length: int) -> tuple[list[int], list[int]]:
        """Ids and segment ids, at most `max_length` of them (0: no limit)."""
        ...


class Words:
    """A word list: text split at white space, line number = id; 0 is padding, 1 an unknown word. Needs no package."""

    padding_id = 0
    unknown_id = 1

    def __init__(self, ids: dict[str, int], *, lowercase: bool) -> None:
        self._ids = ids
        self._lowercase = lowercase

    def __call__(self, item: Text, max_length: int) -> tuple[list[int], list[int]]:
        """Ids of the words; one segment."""
        if not isinstance(item, str):
            raise UsageError("a word list encodes one text, not a pair", remedy="use a tokenizer.json")
        words = (item.lower() if self._lowercase else item).split()
        ids = [self._ids.get(word, self.unknown_id) for word in words]
        ids = ids[:max_length] if max_length else ids
        return ids, [0] * len(ids)


class Fast:
    """A `tokenizer.json` of the package `tokenizers`."""

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise EngineMissing(
                "this bundle's texts need the package tokenizers", remedy="pip install 'edgekit[tokenizers]'"
            ) from error
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises plain Exception for every damage
            raise BundleInvalid(f"tokenizer.json is not readable: {error}", remedy="convert again") from error
        padding = self._tokenizer.padding
        self._tokenizer.no_padding()
        found = padding["pad_id"] if padding else self._tokenizer.token_to_id("[PAD]")
        self.padding_id: int = found if found is not None else self._tokenizer.token_to_id("<pad>") or 0

    def __call__(self, item: Text, max_length: int) -> tuple[list[int], list[int]]:
        """Ids with the special tokens the file adds."""
        if max_length:
            self._tokenizer.enable_truncation(max_length)
        else:
            self._tokenizer.no_truncation()
        pair = (item, None) if isinstance(item, str) else item
        made = self._tokenizer.encode(*pair)
        return made.ids, made.type_ids


@functools.lru_cache(maxsize=4)
def load(folder: Path | None, *, lowercase: bool = True) -> Encoder:
    """The encoder of a bundle: `tokenizer.json`, else `vocab.txt`, else `vocab.json` (word to id).

    Raises:
        Refused: The bundle has none.
        EngineMissing: The package `tokenizers` is needed and not installed.
    """
    if folder is not None and (folder / "tokenizer.json").exists():
        return Fast(folder / "tokenizer.json")
    if folder is not None and (folder / "vocab.txt").exists():
        words = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
        return Words({word: number for number, word in enumerate(words) if word}, lowercase=lowercase)
    if folder is not None and (folder / "vocab.json").exists():
        ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        return Words({str(word): int(number) for word, number in ids.items()}, lowercase=lowercase)
    raise Refused("the bundle has no tokenizer", remedy="convert with --tokenizer DIR")


def encode(name: str, rule: TextInput, encoder: Encoder, items: list[object]) -> dict[str, np.ndarray]:
    """Encodes texts (or pairs of texts) as one batch.

    Returns:
        ids int64 [B, T] under `name`; mask and segments int64 [B, T] where the rule names them.
    """
    rows = [encoder(checked(item), rule.max_length) for item in items]
    longest = max((len(ids) for ids, _ in rows), default=0)
    width = rule.max_length if rule.padding == "max_length" and rule.max_length else max(longest, rule.min_length)
    ids = np.full((len(rows), width), encoder.padding_id, np.int64)
    mask, segments = np.zeros_like(ids), np.zeros_like(ids)
    for number, (row, kinds) in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
        segments[number, : len(row)] = kinds
    arrays = {name: ids}
    if rule.mask:
        arrays[rule.mask] = mask
    if rule.segments:
        arrays[rule.segments] = segments
    return arrays


def checked(item: object) -> Text:
    """A text, or a pair of texts as a dict-free tuple.

    Raises:
        UsageError: Something else.
    """
    if isinstance(item, str):
        return item
    if isinstance(item, (tuple, list)) and len(item) == 2 and all(isinstance(part, str) for part in item):
        return (item[0], item[1])
    raise UsageError(f"a text was expected, not {type(item).__name__}", remedy="give a str, a pair of str, or a list")

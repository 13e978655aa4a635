from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime import hashed
from edgekit_runtime.errors import UsageError
from edgekit_runtime.manifest import Tensor
from edgekit_runtime.preprocess import ByteInput, NgramInput, Preprocessor, Settings

WORDS = st.lists(st.text(min_size=1, max_size=6), max_size=8)


def test_ids_are_those_of_the_page_and_never_change() -> None:
    # crc32 of "a", "a fine", "a fine film" ... modulo 999, plus 1: written down so that no version may part from it.
    assert hashed.ngram_ids(["a", "fine", "film"], rows=1000) == [172, 375, 634, 245, 801, 933]


@given(WORDS, st.integers(2, 5000), st.integers(1, 5))
def test_every_n_gram_is_hashed_as_one_string_and_never_padding(words: list[str], rows: int, longest: int) -> None:
    found = hashed.ngram_ids(words, rows, longest)
    grams = [
        " ".join(words[i : i + n]) for i in range(len(words)) for n in range(1, longest + 1) if i + n <= len(words)
    ]
    assert found == [1 + zlib.crc32(gram.encode()) % (rows - 1) for gram in grams]
    assert all(0 < one < rows for one in found)


@given(WORDS, st.integers(1, 12))
def test_a_cut_row_is_the_beginning_of_the_whole_one(words: list[str], limit: int) -> None:
    assert hashed.ngram_ids(words, 99, max_length=limit) == hashed.ngram_ids(words, 99)[:limit]


def test_words_are_split_as_asked() -> None:
    assert hashed.words_of("It's a FILM, no?") == ["it's", "a", "film,", "no?"]
    assert hashed.words_of("It's a FILM, no?", split="words", lowercase=False) == [
        "It", "'", "s", "a", "FILM", ",", "no", "?",
    ]  # fmt: skip


def prepared(**rules: object) -> Preprocessor:
    inputs = [Tensor(name=name, dtype="int32", shape=("B", "T")) for name in rules]
    return Preprocessor(Settings(inputs=rules), [], None, inputs)  # type: ignore[arg-type]


def test_a_session_encodes_a_text_for_every_input_that_takes_one() -> None:
    grams = NgramInput(rows=1000)
    got = prepared(grams=grams).encode({"text": ["a fine film", "a"]})["grams"]
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got[0], hashed.ngram_ids(["a", "fine", "film"], 1000))
    np.testing.assert_array_equal(got[1], [172, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(prepared(grams=grams).encode({"text": ""})["grams"], [[0]])


def test_bytes_are_cut_and_padded() -> None:
    fixed, free = ByteInput(length=4), ByteInput(max_length=3)
    np.testing.assert_array_equal(
        prepared(x=fixed).encode({"x": ["abcdef", "é"]})["x"], [[97, 98, 99, 100], [195, 169, 0, 0]]
    )
    np.testing.assert_array_equal(prepared(x=free).encode({"bytes": "abcd"})["x"], [[97, 98, 99]])
    with pytest.raises(UsageError, match="text was expected"):
        prepared(x=fixed).encode({"x": 3})

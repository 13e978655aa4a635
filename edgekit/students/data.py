"""Loaders for the public sets the reference students train and are judged on. Nothing of them ships with edgekit.

The folder is named by the environment variable EDGEKIT_DATA, else it is `../shared/data` beside the checkout.

    text/sst2/{train,dev}.tsv        text/trec/TREC.train.all       text/mrpc/msr_paraphrase_train.txt
    text/ag_news/test.csv            text/wnut17/*.conll            text/ud_english_ewt/en_ewt-ud-dev.conllu
    images/cifar10_{train4k,eval500}.npz                            images/mnist_train12k.npz
    audio/kws_mfcc_300.npz           models/{resnet_cifar10,mlperf_tiny,mlperf_tiny_inputs}/
"""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from edgekit_runtime.errors import UsageError

VARIABLE = "EDGEKIT_DATA"


@dataclasses.dataclass(frozen=True)
class Texts:
    """Labelled texts.

    Attributes:
        texts: As they stand in the file.
        labels: [N] int64.
        names: What each label means.
    """

    texts: tuple[str, ...]
    labels: np.ndarray
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Labelled pairs of texts: `first` and `second` belong together by position; labels [N] int64."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    labels: np.ndarray
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Tagged:
    """Sentences with one tag a word: `words[i]` and `tags[i]` are equally long; `names` are all tags, sorted."""

    words: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Images:
    """Labelled pictures: pixels [N, H, W, C] uint8, labels [N] int64."""

    pixels: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def folder() -> Path:
    """The folder of the data sets.

    Raises:
        UsageError: It does not exist.
    """
    named = os.environ.get(VARIABLE)
    found = Path(named) if named else Path(__file__).resolve().parents[2].parent / "shared" / "data"
    if not found.is_dir():
        raise UsageError(
            f"the data sets are not at {found}" + (f" ({VARIABLE})" if named else ""),
            remedy=f"set {VARIABLE} to the folder that holds text/ and images/",
        )
    return found


def sst2(part: Literal["train", "dev"]) -> Texts:
    """Stanford Sentiment Treebank, two classes, tokenized and in lower case: 6,919 sentences, 871 in `dev`."""
    rows = [line.rsplit("\t", 1) for line in _lines(f"text/sst2/{part}.tsv")]
    return _texts([(label, text) for text, label in rows], ("negative", "positive"), {"0": 0, "1": 1})


def trec() -> Texts:
    """TREC questions, six coarse classes: 5,452. The file is ISO-8859-1."""
    names = ("DESC", "ENTY", "ABBR", "HUM", "NUM", "LOC")
    rows = [line.split(" ", 1) for line in _lines("text/trec/TREC.train.raw.txt", encoding="latin-1")]
    return _texts(
        [(label.split(":")[0], text) for label, text in rows], names, {name: index for index, name in enumerate(names)}
    )


def ag_news() -> Texts:
    """AG News, four classes: the 7,600 lines of its test file, title and text joined."""
    with _path("text/ag_news/test.csv").open(encoding="utf-8", newline="") as file:
        rows = [(label, f"{title} {text}") for label, title, text in csv.reader(file)]
    names = ("World", "Sports", "Business", "Sci/Tech")
    return _texts(rows, names, {str(index + 1): index for index in range(4)})


def mrpc() -> Pairs:
    """Microsoft paraphrases: 4,076 pairs. The file begins with a byte-order mark and a head line."""
    rows = [line.split("\t") for line in _lines("text/mrpc/msr_paraphrase_train.txt", encoding="utf-8-sig")[1:]]
    return Pairs(
        first=tuple(row[3] for row in rows),
        second=tuple(row[4] for row in rows),
        labels=np.array([int(row[0]) for row in rows], dtype=np.int64),
        names=("different", "paraphrase"),
    )


def wnut17(part: Literal["train", "dev"]) -> Tagged:
    """WNUT-17, emerging entities: words with BIO tags of six kinds."""
    path = {"train": "text/wnut17/wnut17train.conll", "dev": "text/wnut17/emerging.dev.conll"}[part]
    return _tagged(_blocks(_lines(path)), word=0, tag=1)


def ewt() -> Tagged:
    """English Web Treebank (the development file): words with universal part-of-speech tags."""
    blocks = _blocks(_lines("text/ud_english_ewt/en_ewt-ud-dev.conllu"))
    # Lines of ranges (1-2, contractions) and of empty nodes (1.1) repeat words that have lines of their own.
    kept = ([row for row in block if row[0].isdigit()] for block in blocks)
    return _tagged(kept, word=1, tag=3)


def cifar10(part: Literal["train", "eval"]) -> Images:
    """CIFAR-10, 32 x 32 RGB: 4,000 training images, 500 test images."""
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    return _images({"train": "images/cifar10_train4k.npz", "eval": "images/cifar10_eval500.npz"}[part], names)


def keywords() -> tuple[np.ndarray, np.ndarray]:
    """MLPerf Tiny's keyword spectra as published, int8 [300, 49, 10, 1], and their labels [300] int64."""
    with np.load(_path("audio/kws_mfcc_300.npz")) as file:
        return file["mfcc_int8"], file["labels"]


def machine_spectrum() -> np.ndarray:
    """MLPerf Tiny's published sound of a machine that runs well: log-mel power in dB, [frames, 128 bands] float32."""
    name = "models/mlperf_tiny_inputs/normal_id_01_00000000_hist_librosa.bin"
    return np.fromfile(_path(name), "<f4").reshape(-1, 128)


def mnist() -> Images:
    """MNIST, 28 x 28 grey, as [12000, 28, 28, 1]."""
    return _images("images/mnist_train12k.npz", tuple("0123456789"))


def _path(name: str) -> Path:
    path = folder() / name
    if not path.is_file():
        raise UsageError(f"the data set {path} is missing", remedy=f"set {VARIABLE} to a folder that holds {name}")
    return path


def _lines(name: str, encoding: str = "utf-8") -> list[str]:
    # Not splitlines(): web text holds U+2028 and other separators that end no line of these files.
    return [line.rstrip("\r") for line in _path(name).read_text(encoding=encoding).strip("\n").split("\n")]


def _texts(rows: Iterable[tuple[str, str]], names: tuple[str, ...], indices: dict[str, int]) -> Texts:
    labels, texts = zip(*rows, strict=True)
    return Texts(tuple(texts), np.array([indices[label] for label in labels], dtype=np.int64), names)


def _blocks(lines: Iterable[str]) -> Iterator[list[list[str]]]:
    block: list[list[str]] = []
    for line in [*lines, ""]:
        if not line.strip():
            if block:
                yield block
            block = []
        elif not line.startswith("# "):
            block.append(line.split("\t"))


def _tagged(blocks: Iterable[list[list[str]]], word: int, tag: int) -> Tagged:
    kept = list(blocks)
    words = tuple(tuple(row[word] for row in block) for block in kept)
    tags = tuple(tuple(row[tag] for row in block) for block in kept)
    return Tagged(words, tags, tuple(sorted({name for sentence in tags for name in sentence})))


def _images(name: str, names: tuple[str, ...]) -> Images:
    with np.load(_path(name), allow_pickle=False) as arrays:
        pixels, labels = arrays["images"], arrays["labels"].astype(np.int64)
    return Images(pixels if pixels.ndim == 4 else pixels[..., None], labels, names)

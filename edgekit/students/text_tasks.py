"""Data of the text students beyond SST-2's words, as `edgekit.students.train` takes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.students import char_cnn, data, ngram
from edgekit.students.fit import IGNORED
from edgekit.students.task import Task
from edgekit.students.vocabulary import build_vocabulary
from edgekit_runtime import hashed
from edgekit_runtime.preprocess import ByteInput

LONGEST_SENTENCE = 52
LONGEST_GRAMS = 4 * LONGEST_SENTENCE - 6
NEWS_BYTES = 1024
NEWS_GRAMS = 256
HELD_NEWS, HELD_PAIRS, HELD_SENTENCES = 1_600, 800, 400
LONGEST_SIDE = 40
LONGEST_CONTEXT = 40
LONGEST_QUESTION = 24
LEARNT_QUESTIONS, HELD_QUESTIONS = 2_400, 600
QUESTION_ROWS = 8_000


def ngram_task(rows: int) -> Task:
    """SST-2 as hashed n-grams of 1 to 4 words."""
    train, held = data.sst2("train"), data.sst2("dev")
    return Task(
        train={"ids": ngram.encode(train.texts, rows, LONGEST_GRAMS)},
        labels=train.labels,
        held={"ids": ngram.encode(held.texts, rows, LONGEST_GRAMS)},
        held_labels=held.labels,
        preprocess=f'[inputs.ids]\nkind = "ngrams"\nrows = {rows}\nmax_length = {LONGEST_GRAMS}\n',
    )


def news_bytes_task(rows: int) -> Task:
    """AG News as UTF-8 bytes, 1,024 a text: 6,000 to train on, 1,600 held back. `rows` means nothing here."""
    texts, labels, train, held = _news()
    chars = hashed.encode(ByteInput(length=NEWS_BYTES), texts)
    rule = f'[inputs.chars]\nkind = "bytes"\nlength = {NEWS_BYTES}\n'
    return Task({"chars": chars[train]}, labels[train], {"chars": chars[held]}, labels[held], preprocess=rule)


def news_stack_task(rows: int) -> Task:
    """AG News as hashed n-grams and as bytes, for the two branches of row 21. `rows` means nothing here."""
    texts, labels, train, held = _news()
    table, length = char_cnn.ROWS["full"], char_cnn.LENGTH["full"]
    inputs = {
        "grams": ngram.encode(texts, table, NEWS_GRAMS, "words"),
        "chars": hashed.encode(ByteInput(length=length), texts),
    }
    rule = (
        f'[inputs.grams]\nkind = "ngrams"\nrows = {table}\nmax_length = {NEWS_GRAMS}\nsplit = "words"\n\n'
        f'[inputs.chars]\nkind = "bytes"\nlength = {length}\n'
    )
    parts = [{name: array[place] for name, array in inputs.items()} for place in (train, held)]
    return Task(parts[0], labels[train], parts[1], labels[held], preprocess=rule)


def question_task(rows: int) -> Task:
    """TREC, whether a name, a place or a number is asked for: 2,400 questions to learn from, 600 held back.

    For a table far larger than these words: they and [CLS], the last of them, are its first `QUESTION_ROWS` rows.
    """
    questions = data.trec()
    order = np.random.default_rng(0).permutation(len(questions.labels))
    held, train = np.split(order[: HELD_QUESTIONS + LEARNT_QUESTIONS], [HELD_QUESTIONS])
    words = [text.lower().split() for text in questions.texts]
    vocabulary = build_vocabulary([words[place] for place in train], largest=QUESTION_ROWS - 1)
    ids = np.pad(vocabulary.encode(words, LONGEST_QUESTION), ((0, 0), (1, 0)), constant_values=QUESTION_ROWS - 1)
    labels = np.isin(questions.labels, [questions.names.index(name) for name in ("HUM", "NUM", "LOC")]).astype(np.int64)
    parts = [{"ids": ids[place], "mask": (ids[place] != 0).astype(np.int64)} for place in (train, held)]
    return Task(parts[0], labels[train], parts[1], labels[held])


def pair_task(rows: int) -> Task:
    """MRPC: 3,276 pairs to train on, 800 held back, in slices by how many words both sides share."""
    pairs = data.mrpc()
    train, held = _split(len(pairs.labels), HELD_PAIRS)
    sides = [[text.lower().split() for text in side] for side in (pairs.first, pairs.second)]
    vocabulary = build_vocabulary([words for side in sides for words in np.array(side, object)[train]], largest=rows)
    first, second = (vocabulary.encode(side, LONGEST_SIDE) for side in sides)
    shared = np.array([_shared(a, b) for a, b in zip(*sides, strict=True)])
    names = np.where(shared < np.quantile(shared[train], 0.5), "few shared words", "many shared words")
    return Task(
        train={"first": first[train], "second": second[train]},
        labels=pairs.labels[train],
        held={"first": first[held], "second": second[held]},
        held_labels=pairs.labels[held],
        vocabulary=vocabulary,
        slices=names[held],
        metric="f1",
    )


def language_task(rows: int) -> Task:
    """English Web Treebank, next words: 1,601 sentences to learn from, 400 held back; labels are the ids one later."""
    sentences = [[word.lower() for word in words] for words in data.ewt().words if len(words) > 1]
    train, held = _split(len(sentences), HELD_SENTENCES)
    vocabulary = build_vocabulary([sentences[place] for place in train], largest=rows)
    ids = vocabulary.encode(sentences, LONGEST_CONTEXT + 1)
    labels = np.where(ids[:, 1:] != 0, ids[:, 1:], IGNORED)
    inputs = np.where(labels != IGNORED, ids[:, :-1], 0)
    return Task(
        train={"ids": inputs[train]},
        labels=labels[train],
        held={"ids": inputs[held]},
        held_labels=labels[held],
        vocabulary=vocabulary,
        metric="perplexity",
    )


def _news() -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray]:
    news = data.ag_news()
    return news.texts, news.labels, *_split(len(news.labels), HELD_NEWS)


def _split(count: int, held: int) -> tuple[np.ndarray, np.ndarray]:
    """Places to train on and to hold back, the same in every run."""
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def _shared(first: Sequence[str], second: Sequence[str]) -> float:
    """Share of the words of both sides that stand in both."""
    a, b = set(first), set(second)
    return len(a & b) / max(1, len(a | b))

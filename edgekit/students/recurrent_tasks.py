"""Data of the recurrent students: essays with grades, sentences with their case, moving shapes."""

from __future__ import annotations

import numpy as np

from edgekit.students import data, lrcn, truecaser
from edgekit.students.task import Task
from edgekit.students.vocabulary import build_vocabulary

ESSAY_SENTENCES = 4
LONGEST_ESSAY = 208
LONGEST_LINE = 32
TRAINING_CLIPS, HELD_CLIPS = 320, 160
# The recipe was tuned on clips of seed 2: those held back are of another.
TRAINING_SEED, HELD_SEED = 1, 4711


def essay_task(rows: int) -> Task:
    """Essays of four SST-2 sentences; the grade, 0 to 4, is how many of them are positive.

    Essays to train on are made of training sentences, those held back of development sentences. Grades are equally
    frequent.
    """
    train, held = data.sst2("train"), data.sst2("dev")
    words, labels = _essays([t.split() for t in train.texts], train.labels, 4_000, seed=0)
    held_words, held_labels = _essays([t.split() for t in held.texts], held.labels, 400, seed=1)
    vocabulary = build_vocabulary([t.split() for t in train.texts], largest=rows)
    return Task(
        train={"ids": vocabulary.encode(words, LONGEST_ESSAY)},
        labels=labels,
        held={"ids": vocabulary.encode(held_words, LONGEST_ESSAY)},
        held_labels=held_labels,
        vocabulary=vocabulary,
    )


def _essays(
    sentences: list[list[str]], labels: np.ndarray, count: int, seed: int
) -> tuple[list[list[str]], np.ndarray]:
    rng = np.random.default_rng(seed)
    of_kind = [np.flatnonzero(labels == kind) for kind in (0, 1)]
    grades = np.arange(count) % (ESSAY_SENTENCES + 1)
    rng.shuffle(grades)
    essays = []
    for grade in grades:
        kinds = rng.permutation(np.arange(ESSAY_SENTENCES) < grade)
        essays.append([word for kind in kinds for word in sentences[rng.choice(of_kind[int(kind)])]])
    return essays, grades.astype(np.float32)


def case_task(rows: int) -> Task:
    """English Web Treebank in lower case; what is to be found is each character's case. 1,600 sentences to train on."""
    sentences = data.ewt().words
    lower = [[word.lower() for word in sentence] for sentence in sentences]
    vocabulary = build_vocabulary(lower[:1600], largest=rows, fewest=2)
    words = vocabulary.encode(lower, LONGEST_LINE)
    chars, labels = truecaser.encode(sentences, LONGEST_LINE)
    return Task(
        train={"words": words[:1600], "chars": chars[:1600]},
        labels=labels[:1600],
        held={"words": words[1600:], "chars": chars[1600:]},
        held_labels=labels[1600:],
        vocabulary=vocabulary,
    )


def clip_task(rows: int) -> Task:
    """Made clips of moving shapes (`lrcn.clips`). `rows` means nothing here."""
    frames, labels = lrcn.clips(TRAINING_CLIPS, seed=TRAINING_SEED)
    held, held_labels = lrcn.clips(HELD_CLIPS, seed=HELD_SEED)
    return Task({"frames": frames}, labels, {"frames": held}, held_labels)

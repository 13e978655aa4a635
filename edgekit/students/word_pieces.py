"""SST-2 in word pieces for students of BERT's kind, which begin with what MiniLM knows of each piece.

A few thousand sentences do not teach a Transformer what words mean: trained from nothing, BERT-small stays at chance.
Its table therefore begins with MiniLM's, brought to the student's width. Nothing but the table is taken over.
"""

from __future__ import annotations

import numpy as np
import torch

from edgekit.students import data, minilm
from edgekit.students.bert import BertClassifier
from edgekit.students.task import Task
from edgekit_runtime import text
from edgekit_runtime.preprocess import TextInput

LONGEST = 64  # pieces of a sentence, with the marks at both ends
SPREAD = 0.5  # standard deviation of the table that begins, as of a seeded one
QUIET = 0.1  # what is left of seeded places and types: they tell nothing yet, and would drown the words


def sentences_task(rows: int) -> Task:
    """SST-2: ids and mask [N, LONGEST] int64, class of the sentence. `rows` means nothing here.

    Raises:
        UsageError: MiniLM's package is not installed.
    """
    encoder = text.load(minilm.package_folder())
    rule = TextInput(mask="mask", max_length=LONGEST, padding="max_length")
    train, held = data.sst2("train"), data.sst2("dev")
    return Task(
        train=text.encode("ids", rule, encoder, list(train.texts)),
        labels=train.labels,
        held=text.encode("ids", rule, encoder, list(held.texts)),
        held_labels=held.labels,
    )


def begin(student: BertClassifier) -> None:
    """Writes MiniLM's table over the student's, projected on the student's width; edits the student.

    Narrower than MiniLM: its principal directions. Wider: zeros behind, which learning fills.

    Raises:
        UsageError: MiniLM's package is not installed.
    """
    embeddings = student.bert.embeddings
    table = embeddings.word_embeddings.weight
    known = minilm.build().bert.embeddings.word_embeddings.weight.detach().numpy()
    known = known - known.mean(0)
    _, directions = np.linalg.eigh(known.T @ known)
    places = known @ directions[:, ::-1][:, : table.shape[1]]
    with torch.no_grad():
        embeddings.position_embeddings.weight *= QUIET
        embeddings.token_type_embeddings.weight *= QUIET
        table[1:] = 0.0
        table[1:, : places.shape[1]] = torch.from_numpy((SPREAD / places.std() * places[1:]).astype(np.float32))

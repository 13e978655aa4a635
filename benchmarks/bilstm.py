"""The two-layer BiLSTM classifier, trained here on SST-2, both formats."""

from __future__ import annotations

from benchmarks.sst2 import run_student


def run() -> str:
    return run_student(
        "bilstm_classifier",
        "What the two formats make of a BiLSTM today; its targets belong to the matrix of all students. Unrolled by "
        "litert-torch alone, 64 steps are 4,101 operators and 32 s of conversion.",
    )

"""Kim's text CNN, trained here on SST-2, both formats."""

from __future__ import annotations

from benchmarks.sst2 import run_student


def run() -> str:
    return run_student("text_cnn", "Targets: top-1 within 1 point, bytes ≤ 0.27x, both formats.")

"""Runs benchmarks by name (default: all) and writes docs/results/NAME.md.

What follows one of `WORDS` is its own: `python -m benchmarks matrix text_cnn resnet20 --fresh`.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

from benchmarks.page import environment_lines

NAMES = (
    "stock",
    "resnet",
    "minilm",
    "text_cnn",
    "bilstm",
    "recurrent",
    "overhead",
    "conversion",
    "matrix",
    "profiler",
    "which_student",
    "few_shot",
    "tables",
    "prediction",
    "cuts",
    "exits",
    "bottleneck",
    "planning",
    "policies",
    "link",
    "serving",
    "outages",
)
# Those whose `run` takes words of its own.
WORDS = ("matrix", "prediction", "which_student", "cuts", "exits", "bottleneck")
RESULTS = Path(__file__).parent.parent / "docs" / "results"


def main() -> int:
    wanted, rest = list(sys.argv[1:] or NAMES), []
    if wanted[0] in WORDS:
        wanted, rest = wanted[:1], wanted[1:]
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        print(f"== {name}", flush=True)
        start = time.monotonic()
        body = importlib.import_module(f"benchmarks.{name}").run(*([rest] if rest else []))
        print(body, flush=True)
        lines = [f"# {name}", "", f"Written by `python -m benchmarks {name}`.", "", body, "", *environment_lines(), ""]
        (RESULTS / f"{name}.md").write_text("\n".join(lines))
        print(f"-- {time.monotonic() - start:.0f} s, docs/results/{name}.md\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

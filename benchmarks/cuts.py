"""Every reference student cut: are the pieces equal to the whole, bit by bit, and what does a chain cost?

    python -m benchmarks cuts                       all students, then the two chains that are timed
    python -m benchmarks cuts text_cnn resnet20     these; the page keeps the others as last seen
    --places    conversion and proof only: what a busy machine cannot change
    --fresh     make everything again
    --jobs 1    conversions at a time; 2 unless said

Each student is a process of its own with a time limit, and leaves a JSON file under build/cuts/: an interrupted run
goes on where it stopped. What other code than today's made is made again, and so is what failed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.fingerprint import fingerprint
from benchmarks.page import table, target
from benchmarks.steps import fresh_step
from edgekit.students import registry

FOLDER = Path(__file__).parent.parent / "build" / "cuts"
LIMIT_S = {"places": 300, "chain": 400}
CHAINED = ("resnet20", "minilm")
HEADER = ("student", "graph", "places", "cut", "given up: bits differ", "pieces on disk / whole", "why it stays whole")
COSTS = ("student", "segments", "whole, ms", "chain joined, ms", "ratio [95 %]", "one by one", "target", "")

PLACES = (
    "Students at their tiny size, `--split-points auto`, both formats. Each place is compared with the uncut graph as "
    "head and tail at batch 1, 8 and 3 and at short and long sizes of every other axis; a place whose bits differ is "
    "given up, and counted here. Places: where one tensor separates before from after, and those of more tensors that "
    "were cut. Pieces on disk: bytes of all pieces over those of the whole file."
)
CHAINS = (
    "A chain that is run through every segment, against the uncut graph, full size, one thread, alternated. `Joined` "
    "is what `Chain` does with segments between which nobody looks; `one by one` calls the engine for each segment."
)


def run(words: Sequence[str] = ()) -> str:
    parser = argparse.ArgumentParser(prog="python -m benchmarks cuts")
    parser.add_argument("students", nargs="*", choices=[[], *registry.STUDENTS], metavar="STUDENT")
    parser.add_argument("--places", action="store_true", help="conversion and proof only, nothing is timed")
    parser.add_argument("--fresh", action="store_true", help="make everything again")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="conversions at a time")
    asked = parser.parse_args(words)
    names = list(asked.students or registry.STUDENTS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(max(asked.jobs, 1)) as pool:
        list(pool.map(lambda name: _step("places", name, asked.fresh), names))
    for name in () if asked.places else (one for one in CHAINED if one in names):
        _step("chain", name, asked.fresh)
    return page(_read("places"), _read("chain"))


def _step(step: str, name: str, fresh: bool) -> None:
    path = FOLDER / f"{name}.{step}.json"
    mark = fingerprint(step, registry.get(name), None)
    fresh_step(path, mark, ["benchmarks.cut_steps", step, name, str(FOLDER)], LIMIT_S[step], again=fresh)


def _read(step: str) -> dict[str, dict[str, Any]]:
    paths = {name: FOLDER / f"{name}.{step}.json" for name in registry.STUDENTS}
    return {name: msgspec.json.decode(path.read_bytes()) for name, path in paths.items() if path.is_file()}


def page(places: dict[str, dict[str, Any]], chains: dict[str, dict[str, Any]]) -> str:
    """The page of what the steps left.

    Args:
        places: Of each student that ran: `rows` as `cut_steps.places_step` writes them, or `trouble`.
        chains: Of the students whose chains were timed: as `cut_steps.chain_step` writes it, or `trouble`.
    """
    rows = [row for name, found in places.items() for row in _rows(name, found)]
    parts = [PLACES, _sums(places), table(HEADER, rows)]
    missing = [name for name in registry.STUDENTS if name not in places]
    parts += [f"Not run: {', '.join(missing)}."] if missing else []
    timed = [_cost(name, chains[name]) for name in CHAINED if name in chains]
    parts += [CHAINS, table(COSTS, timed)] if timed else ["Chains: not timed."]
    return "\n\n".join(parts)


def _sums(places: dict[str, dict[str, Any]]) -> str:
    lines = []
    for kind in ("onnx", "tflite"):
        rows = [row for found in places.values() for row in found.get("rows", ()) if row["graph"].startswith(kind)]
        whole = Counter(row["whole"] for row in rows if row["whole"])
        told = "; ".join(f"{count} stay whole: {why}" for why, count in whole.items())
        lines.append(
            f"- {kind}: {len(rows)} graphs, {sum(r['places'] for r in rows)} places, {sum(r['cut'] for r in rows)} cut "
            f"and equal to the whole bit by bit, {sum(len(r['differ']) for r in rows)} given up because bits differ"
            + (f"; {told}" if told else "")
        )
    return "\n".join(lines)


def _rows(name: str, found: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    if "trouble" in found:
        yield name, "-", "-", "-", "-", "-", found["trouble"]
    for row in found.get("rows", ()):
        given_up = "; ".join(f"{place}: {why}" for place, why in row["differ"].items()) or "0"
        share = f"{row['share']:.2f}" if row["share"] else "-"
        yield name, row["graph"], row["places"], row["cut"], given_up, share, row["whole"]
    for why in found.get("refused", ()):
        yield name, "-", "-", "-", "-", "-", why


def _cost(name: str, found: dict[str, Any]) -> tuple[object, ...]:
    if "trouble" in found:
        return name, "-", "-", "-", found["trouble"], "-", "-", "-"
    times, low, high = found["ratio"]
    return (
        found["name"],
        found["segments"],
        f"{found['whole_ms']:.3f}",
        f"{found['joined_ms']:.3f}",
        f"{times:.3f} [{low:.3f}, {high:.3f}]",
        f"{found['one_by_one']:.2f}x",
        *target("≤ 1.05x", times <= 1.05),
    )

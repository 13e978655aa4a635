"""What a large look-up table costs in memory: resident after opening and after requests, against the table's bytes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import edgekit
from benchmarks.page import table
from edgekit.students import ngram

GRAMS, REQUESTS = 128, 50
# Opened in a process of its own, with nothing but the runtime: pages that only this process holds (USS).
WORKER = """
import json, sys
import numpy as np, psutil
import edgekit_runtime as er
from edgekit_runtime import engines
path, graph, rows, length, requests = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
engines.get("onnxruntime" if graph.startswith("onnx") else "litert")
read = lambda: (lambda m: (m.uss, m.rss))(psutil.Process().memory_full_info())
before = read()
with er.open(path, graph=graph, threads=1) as session:
    opened = read()
    for seed in range(requests):
        session.run({"ids": np.random.default_rng(seed).integers(1, rows, (1, length))})
    print(json.dumps([[o - b, a - b] for b, o, a in zip(before, opened, read())]))
"""


def run() -> str:
    rows_of_table = ngram.ROWS["full"]
    with tempfile.TemporaryDirectory() as place:
        samples = [ngram.example(1, 16 * (1 + n % 16), seed=n) for n in range(64)]
        bundle = edgekit.convert(
            ngram.build(),
            out=Path(place) / "ngram.edge",
            example=ngram.example(1, GRAMS),
            calibration=samples,
            split_points=("none",),
            max_drop=0.1,
            dynamic=("ids:0=B:1-64", "ids:1=T:1-512"),
        )
        rows = []
        for graph in bundle.manifest.graphs:
            arguments = [str(bundle.root), graph.id, str(rows_of_table), str(GRAMS), str(REQUESTS)]
            told = subprocess.run(
                [sys.executable, "-c", WORKER, *arguments], capture_output=True, check=True, text=True
            )
            (uss, rss) = json.loads(told.stdout.splitlines()[-1])
            read = GRAMS * ngram.WIDTH["full"] * (1 if graph.precision == "int8" else 4)
            rows.append((graph.id, *(_mb(n) for n in (graph.bytes, uss[0], uss[1], rss[1])), f"{read / 1e3:.0f} kB"))
    header = (
        "graph",
        "on disk",
        "mapped and own, opened",
        f"after {REQUESTS} requests",
        "resident after",
        "values of rows a request reads",
    )
    return (
        f"Row 7 at full size ({rows_of_table:,} rows of {ngram.WIDTH['full']}), {GRAMS} n-grams a request, each graph "
        f"in a process of its own; memory above that of the process with its engine loaded.\n\n{table(header, rows)}"
    )


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"

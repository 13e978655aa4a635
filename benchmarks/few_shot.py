"""Few-shot heads on a frozen MiniLM: TREC with 8 questions a class, the body in fp32 and in int8, ten draws."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import edgekit
import edgekit_runtime as er
from benchmarks.page import table
from edgekit.students import data, few_shot, minilm
from edgekit_converters.head import replace_head

EXAMPLES, DRAWS, HELD = 8, 10, 500
GRAPHS = ("onnx.fp32", "onnx.int8", "tflite.int8")


def run() -> str:
    questions = data.trec()
    order = np.random.default_rng(0).permutation(len(questions.texts))
    held, pool = order[:HELD], order[HELD : HELD + 1500]
    texts = [questions.texts[place] for place in (*held, *pool)]
    labels = questions.labels[np.concatenate([held, pool])]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "calib.txt").write_text("\n".join(texts[HELD : HELD + 100]), encoding="utf-8")
        body = edgekit.convert(
            str(minilm.package_folder()),
            out=folder / "body.edge",
            calibration=folder / "calib.txt",
            split_points=("none",),
            progress=lambda line: print(line, file=sys.stderr, flush=True),
            dynamic=("input_ids:0=B:1-8", "input_ids:1=T:1-64", "attention_mask:0=B:1-8", "attention_mask:1=T:1-64"),
        )
        output = body.manifest.outputs[0].name
        embedded = {}
        for graph in GRAPHS:
            with er.open(body.root, graph=graph, threads=1) as session:
                embedded[graph] = few_shot.embed(session, texts, output)
        right: dict[str, list[float]] = {graph: [] for graph in (*GRAPHS, "head of fp32 on onnx.int8")}
        start = time.perf_counter()
        for seed in range(DRAWS):
            shown = HELD + few_shot.examples_of(labels[HELD:], EXAMPLES, seed)
            heads = {graph: few_shot.fit_head(e[shown], labels[shown], output=output) for graph, e in embedded.items()}
            for graph, head in heads.items():
                right[graph].append(_right(head.scores({output: embedded[graph][:HELD]}), labels[:HELD]))
            crossed = heads["onnx.fp32"].scores({output: embedded["onnx.int8"][:HELD]})
            right["head of fp32 on onnx.int8"].append(_right(crossed, labels[:HELD]))
        fit_s = (time.perf_counter() - start) / (DRAWS * len(GRAPHS))
        start = time.perf_counter()
        with replace_head(body.root, heads["onnx.int8"], questions.names, folder / "mine.edge") as mine:
            replaced_s = time.perf_counter() - start
            same = [graph.sha256 for graph in mine.manifest.graphs] == [g.sha256 for g in body.manifest.graphs]
    rows = [
        (name, f"{100 * np.mean(seen):.1f}", f"{100 * np.min(seen):.1f} to {100 * np.max(seen):.1f}")
        for name, seen in right.items()
    ]
    return "\n\n".join(
        [
            f"TREC, {EXAMPLES} questions a class, {HELD} held back; mean of {DRAWS} draws of the examples. A head is "
            f"fitted in {1e3 * fit_s:.0f} ms and put into the bundle in {replaced_s:.2f} s; the graphs stay "
            f"the same files: {'yes' if same else 'NO'}.",
            table(("body", "right, %", "least to most"), rows),
        ]
    )


def _right(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(scores.argmax(1) == labels))

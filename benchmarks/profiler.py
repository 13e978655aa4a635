"""Can the profiler be believed? A/A comparisons, planted slowdowns, a CPU hog, and its own overhead.

Every finished trial is kept in `build/benchmarks/profiler.jsonl`: the page can be stopped and taken up again, and each
call works for at most EDGEKIT_BENCHMARK_S seconds (default 1500). Delete the file to begin anew.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.page import table, target
from edgekit.profiler.comparison import compare
from edgekit.profiler.measure import make_plan, run_plan
from edgekit.profiler.process import Worker
from edgekit.profiler.targets import plan, resolve
from edgekit.profiler.trial import begin, finish

KEPT = Path("build") / "benchmarks" / "profiler.jsonl"
MODELS = Path(__file__).parent.parent.parent / "shared" / "data" / "models" / "mlperf_tiny"
TRIALS = 40
HOGGED = 10
OVERHEAD_ROUNDS = 9
LAYERS, SLOWER = 20, 22  # equal layers: two more of twenty are 10 % more work

BARE = """
import json, sys, time
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
inputs = dict(np.load(sys.argv[2]))
samples, end = [], time.perf_counter() + 1.2
while time.perf_counter() < end:
    start = time.perf_counter_ns()
    session.run(None, inputs)
    samples.append((time.perf_counter_ns() - start) / 1e6)
print(json.dumps(samples[len(samples) // 3:]))
"""
HOG = "import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: sum(range(10000))"


def run() -> str:
    end = time.monotonic() + float(os.environ.get("EDGEKIT_BENCHMARK_S", "1500"))
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        chain, slower = _chain(Path(name) / "chain.onnx", LAYERS), _chain(Path(name) / "slower.onnx", SLOWER)
        tflite = MODELS / "vww_96_float.tflite"
        graphs = [chain, tflite] if tflite.exists() else [chain]
        steps: list[tuple[str, int, Callable[[int], dict[str, Any]]]] = [
            ("overhead_onnxruntime", OVERHEAD_ROUNDS, lambda n: _beside_onnxruntime(chain, Path(name))),
            ("overhead_litert", OVERHEAD_ROUNDS, lambda n: _beside_litert(MODELS, Path(name))),
            ("hog", HOGGED, lambda n: _hogged(graphs[n % len(graphs)])),
            ("same", TRIALS, lambda n: _compared(graphs[n % len(graphs)], graphs[n % len(graphs)])),
            ("planted", TRIALS, lambda n: _compared(slower, chain)),
        ]
        for step, count, act in steps:
            for number in range(len(_kept(step)), count):
                if time.monotonic() > end:
                    break
                row = {"step": step, **act(number)}
                print(json.dumps(row), file=sys.stderr, flush=True)
                with KEPT.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    return _page()


def _kept(step: str) -> list[dict[str, Any]]:
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    return [row for row in map(json.loads, lines) if row["step"] == step]


def _compared(a: Path, b: Path) -> dict[str, Any]:
    found = compare(a, b)
    return {
        "graph": b.suffix,
        "verdict": found.verdict,
        "ratio": found.ratio,
        "interval": found.interval_95,
        "seconds": found.seconds,
        "foreign_cores": statistics.fmean(run.foreign_cores for run in found.runs),
    }


def _hogged(graph: Path) -> dict[str, Any]:
    """A profile with as many busy neighbours as there are cores."""
    hogs = [subprocess.Popen([sys.executable, "-c", HOG.format(seconds=120)]) for _ in range(os.cpu_count() or 1)]
    try:
        (found,) = run_plan(make_plan(graph))
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    return {"graph": graph.suffix, "verdict": found.verdict.kind, "reasons": found.verdict.reasons}


def _beside_onnxruntime(graph: Path, folder: Path) -> dict[str, Any]:
    """The profiler's median and that of a bare loop around the same session, in fresh processes one after the other."""
    (job,), _ = plan(resolve(graph))
    inputs = job.inputs([{"name": "x", "dtype": "float32", "shape": [32, 256]}])
    assert inputs is not None
    np.savez(folder / "x.npz", **inputs)
    command = [sys.executable, "-c", BARE, str(graph), str(folder / "x.npz")]

    def theirs() -> tuple[float, float]:
        samples = json.loads(subprocess.check_output(command))
        return statistics.median(samples), min(samples)

    return _in_turn(lambda: _ours(graph, folder), theirs, len(_kept("overhead_onnxruntime")))


def _beside_litert(models: Path, folder: Path) -> dict[str, Any]:
    """The profiler's median and that of LiteRT's own benchmark tool, which prints hundredths of a millisecond."""
    graph = models / "pretrainedResnet_large_float.tflite"
    if not graph.exists():
        return {"skipped": "the data folder is absent"}
    out = folder / "litert.json"
    command = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model", "--model", str(graph)]
    command += ["--num_runs", "300", "--warmup_runs", "100", "--num_threads", "1", "--result_json", str(out)]

    def theirs() -> tuple[float, float]:
        subprocess.run(command, check=True, capture_output=True)
        latency = json.loads(out.read_text())["latency"]
        return latency["median_ms"], latency["min_ms"]

    return _in_turn(lambda: _ours(graph, folder), theirs, len(_kept("overhead_litert")))


Times = tuple[float, float]  # median and minimum, ms


def _in_turn(ours: Callable[[], Times], theirs: Callable[[], Times], number: int) -> dict[str, Any]:
    """Both once, the other one first in every second round."""
    order = (("ours", ours), ("theirs", theirs))
    row: dict[str, Any] = {}
    for name, act in order if number % 2 else order[::-1]:
        row[f"{name}_ms"], row[f"{name}_min_ms"] = act()
    return row


def _ours(graph: Path, folder: Path) -> Times:
    (job,), _ = plan(resolve(graph))
    with Worker(folder, job.label) as worker:
        begin(worker, job)
        finish(worker, job, folder)
        worker.ask("warm", limit_s=1.0)
        samples = worker.ask("sample", duration_s=0.8, min_runs=3, max_runs=10_000)["samples_ms"]
        return float(np.median(samples)), min(samples)


def _chain(path: Path, layers: int) -> Path:
    """x [32, 256] through so many layers of MatMul and Relu with weights of their own."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for number in range(layers):
        values = generator.normal(0, 0.08, (256, 256)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [f"m{number}"]))
        nodes.append(helper.make_node("Relu", [f"m{number}"], [f"r{number}"]))
        last = f"r{number}"
    shape = [32, 256]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _page() -> str:
    same, planted, hogged = _kept("same"), _kept("planted"), _kept("hog")
    other = sum(row["verdict"] != "no_difference_shown" for row in same)
    noisy = sum(row["verdict"] == "too_noisy" for row in same)
    found = sum(row["verdict"] == "slower" for row in planted)
    told = sum(row["verdict"] != "sound" for row in hogged)
    rows: list[tuple[object, ...]] = []
    if same:
        rows += [
            (f"A/A, {len(same)} of {TRIALS} done: anything but no_difference_shown", other, *target("≤ 6", other <= 6)),
            ("... of them too_noisy", noisy, *target("≤ 4", noisy <= 4)),
            _ratios(same),
        ]
    if planted:
        enough = found / len(planted) >= 34 / 40
        rows.append((f"10 % planted, {len(planted)} of {TRIALS} done: found", found, *target("≥ 34 of 40", enough)))
    rows += _times([*same, *planted])
    if hogged:
        rows.append(
            (f"CPU hog, {len(hogged)} of {HOGGED} done: noisy or invalid", told, *target("each", told == len(hogged)))
        )
    rows += _overheads()
    foreign = statistics.median(row["foreign_cores"] for row in [*same, *planted]) if same or planted else 0.0
    return "\n\n".join(
        [
            "A/A: one graph against itself (an ONNX chain and a TFLite network in turn). Planted: 22 equal layers "
            "against 20. Overhead: medians of fresh processes one after the other, the least disturbed of each side.",
            table(("what", "seen", "target", ""), rows),
            f"Other processes used {foreign:.2f} cores (median over comparisons) meanwhile.",
        ]
    )


def _ratios(rows: list[dict[str, Any]]) -> tuple[object, ...]:
    near = sum(abs(row["ratio"] - 1) <= 0.02 for row in rows)
    worst = max(rows, key=lambda row: abs(np.log(row["ratio"])))
    seen = f"{near} of {len(rows)}; furthest {worst['ratio']:.3f} ({worst['verdict']})"
    return "A/A ratios within 2 %", seen, *target("all", near == len(rows))


def _times(rows: list[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    if rows:
        longest = max(row["seconds"] for row in rows)
        yield "longest comparison", f"{longest:.1f} s", *target("≤ 30 s", longest <= 30)


def _overheads() -> Iterator[tuple[object, ...]]:
    names = {"overhead_onnxruntime": "a bare loop around the session", "overhead_litert": "LiteRT's benchmark tool"}
    for step, name in names.items():
        rows = [row for row in _kept(step) if "ours_ms" in row]
        for what, keys in (("median", ("ours_ms", "theirs_ms")), ("minimum", ("ours_min_ms", "theirs_min_ms"))):
            if rows:
                ours, theirs = (min(row[key] for row in rows) for key in keys)
                ratio = ours / theirs
                seen = f"{ratio:.3f} ({ours:.3f} and {theirs:.3f} ms, best of {len(rows)} rounds)"
                yield f"{what} against {name}", seen, *target("within 3 %", abs(ratio - 1) <= 0.03)

"""MiniLM-L6 with its real weights: fidelity, invariance, bytes, and speed at T = 128 beside the stock tools."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import edgekit
import edgekit_runtime as er
from benchmarks.alternate import alternate, ratio, told
from benchmarks.material import sentences
from benchmarks.page import table
from benchmarks.rivals import openvino_int8
from edgekit.students import data, minilm
from edgekit_converters.stock import onnx_dynamic, tflite_dynamic
from edgekit_converters.verify.metrics import cosine

LENGTH = 128
DYNAMIC = ("input_ids:0=B:1-32", "input_ids:1=T:1-128", "attention_mask:0=B:1-32", "attention_mask:1=T:1-128")
RUNGS = "16, 32, 64, 128"


def run() -> str:
    folder = minilm.package_folder()
    train, held = data.sst2("train").texts, data.sst2("dev").texts
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        for name, texts in (("calibration", train[:64]), ("eval", held[:200])):
            (work / f"{name}.txt").write_text("\n".join(texts))
        bundle = edgekit.convert(
            str(folder),
            out=work / "minilm.edge",
            dynamic=DYNAMIC,
            calibration=work / "calibration.txt",
            eval=work / "eval.txt",
            metric="cosine",
            max_drop=0.005,
        )
        fidelity = [
            _fidelity(bundle, graph, held) for graph in ("onnx.fp32", "onnx.int8", "tflite.fp32", "tflite.int8")
        ]
        speed = _speed(bundle, work)
    return "\n\n".join(
        [
            f"200 held-back sentences of SST-2; dynamic batch and length, TFLite as a ladder ({RUNGS}). Targets: "
            "worst cosine ≥ 0.995; bytes ≤ 0.27x; padding or batching changes an embedding by less than 1e-4 "
            "(1 - cosine); at T = 128 not slower than the best stock tool with the engine edgekit chooses.",
            table(
                ("graph", "cosine min", "cosine mean", "bytes", "of fp32", "padding: 1 - cos", "batch: 1 - cos"),
                fidelity,
            ),
            speed,
        ]
    )


def _fidelity(bundle: er.Bundle, graph: str, texts: tuple[str, ...]) -> tuple[object, ...]:
    entry = bundle.graph(graph)
    fp32 = bundle.graph(f"{entry.format}.fp32")
    with (
        er.open(bundle.root, graph="onnx.fp32", threads=1) as reference,
        er.open(bundle.root, graph=graph, threads=1) as session,
    ):
        inputs = [session.encode(text=text) for text in texts[:200]]
        wanted = [reference.run(x)["embedding"] for x in inputs]
        got = [session.run(x)["embedding"] for x in inputs]
        cosines = [cosine(a, b) for a, b in zip(wanted, got, strict=True)]
        padded = [session.run(_padded(x))["embedding"] for x in inputs[:100]]
        batches = [session.encode(text=list(texts[i : i + 8])) for i in range(0, 96, 8)]
        batched = np.concatenate([session.run(x)["embedding"] for x in batches])
    padding = max(1 - cosine(a, b) for a, b in zip(got, padded, strict=False))
    batch = max(1 - cosine(a, b) for a, b in zip(got, batched, strict=False))
    return (
        graph,
        f"{min(cosines):.4f}",
        f"{np.mean(cosines):.4f}",
        entry.bytes,
        f"{entry.bytes / fp32.bytes:.3f}x",
        f"{padding:.1e}",
        f"{batch:.1e}",
    )


def _padded(inputs: dict[str, np.ndarray], extra: int = 13) -> dict[str, np.ndarray]:
    room = min(extra, LENGTH - inputs["input_ids"].shape[1])
    return {name: np.pad(array, ((0, 0), (0, room))) for name, array in inputs.items()}


def _speed(bundle: er.Bundle, work: Path) -> str:
    rng = np.random.default_rng(0)
    ids = {
        "input_ids": rng.integers(1000, 20000, (1, LENGTH)),
        "attention_mask": np.ones((1, LENGTH), np.int64),
    }
    calls: dict[str, Callable[[], object]] = {}
    sessions = []
    for graph in ("onnx.fp32", "onnx.int8", "tflite.fp32", "tflite.int8"):
        session = er.open(bundle.root, graph=graph, threads=1)
        sessions.append(session)
        calls[f"edgekit {graph}"] = lambda s=session: s.run(ids)
    calls |= _rivals(work, ids, sessions)
    seen = alternate(calls, 60)
    for session in sessions:
        session.close()
    ours = min((name for name in seen if name.startswith("edgekit")), key=lambda name: seen[name].median_ms)
    rivals = {name: t for name, t in seen.items() if not name.startswith("edgekit")}
    best = min(rivals, key=lambda name: rivals[name].median_ms)
    rows = [(name, timing) for name, timing in sorted(seen.items(), key=lambda item: item[1].median_ms)]
    chosen = f"{ours} against the best rival ({best}): {told(ratio(seen[best], seen[ours]))}"
    return table((f"T = {LENGTH}, one thread", "median ms [p10, p90]"), rows) + f"\n\n{chosen}"


def _rivals(work: Path, ids: dict[str, np.ndarray], sessions: list[er.Session]) -> dict[str, Callable[[], object]]:
    from edgekit_converters.capture import capture, parse_source
    from edgekit_converters.capture.axes import parse_dynamic

    student = capture(
        parse_source(str(minilm.package_folder())), name="rival", example=ids, dynamic=parse_dynamic(DYNAMIC)
    )
    onnx_dynamic(student, work / "rival.onnx")
    tflite_dynamic(student, work / "rival.tflite")
    calls: dict[str, Callable[[], object]] = {}
    session = er.open(work / "rival.onnx", threads=1)
    sessions.append(session)
    calls["onnxruntime quantize_dynamic"] = lambda: session.run(ids)
    lite = er.open(work / "rival.tflite", threads=1)
    sessions.append(lite)
    renamed = dict(zip([t.name for t in lite.inputs], (ids["input_ids"], ids["attention_mask"]), strict=True))
    calls["litert-torch + ai-edge-quantizer"] = lambda: lite.run(renamed)
    openvino = openvino_int8(work / "rival.fp32.onnx", sentences("train", 64))
    if openvino is not None:
        calls["OpenVINO + NNCF"] = lambda: openvino(ids)
    return calls

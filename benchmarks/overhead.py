"""What the runtime costs: importing it, and one `session.run` above the engine's own call."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import edgekit
import edgekit_runtime as er
from benchmarks.alternate import alternate
from benchmarks.page import table

IMPORT = """
import sys, time
import numpy, onnxruntime
start = time.perf_counter()
import edgekit_runtime
elapsed = (time.perf_counter() - start) * 1e3
assert "torch" not in sys.modules
print(elapsed)
"""


def run() -> str:
    imports = [float(subprocess.check_output([sys.executable, "-c", IMPORT])) for _ in range(15)]
    rows: list[tuple[object, ...]] = [
        ("import edgekit_runtime above numpy + onnxruntime", f"{statistics.median(imports):.1f} ms", "≤ 60 ms")
    ]
    with tempfile.TemporaryDirectory() as folder:
        rows += _runs(Path(folder))
    return table(("what", "median", "target"), rows)


def _runs(folder: Path) -> list[tuple[object, ...]]:
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    bundle = edgekit.convert(
        module, out=folder / "tiny.edge", example={"input": np.ones((1, 16), np.float32)}, precision="fp32"
    )
    return [_onnx(bundle), _litert(bundle)]


def _overhead(name: str, calls: dict[str, object]) -> tuple[object, ...]:
    seen = alternate(calls, 5)  # type: ignore[arg-type]
    difference = [1e3 * (a - b) for a, b in zip(seen["session"].samples, seen["engine"].samples, strict=True)]
    return f"session.run above the engine's own call, {name}", f"{statistics.median(difference):.1f} µs", "≤ 20 µs"


def _onnx(bundle: er.Bundle) -> tuple[object, ...]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    bare = onnxruntime.InferenceSession(str(bundle.graph_path("onnx.fp32")), options)
    inputs = {"input": np.ones((1, 16), np.float32)}
    with er.open(bundle.root, graph="onnx.fp32", threads=1) as session:
        calls = {"session": lambda: session.run(inputs), "engine": lambda: bare.run(None, inputs)}
        return _overhead("ONNX Runtime", calls)


def _litert(bundle: er.Bundle) -> tuple[object, ...]:
    from ai_edge_litert.interpreter import Interpreter

    bare = Interpreter(str(bundle.graph_path("tflite.fp32")), num_threads=1)
    runner = bare.get_signature_runner(next(iter(bare.get_signature_list())))
    inputs = {"input": np.ones((1, 16), np.float32)}
    with er.open(bundle.root, graph="tflite.fp32", threads=1) as session:
        return _overhead("LiteRT", {"session": lambda: session.run(inputs), "engine": lambda: runner(**inputs)})

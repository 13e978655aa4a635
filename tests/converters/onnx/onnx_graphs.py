"""Text graphs as onnx-ir models, run before and after a pass."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from edgekit_converters.onnx.session import open_session, run_session, serialize


def parse(text: str, **constants: np.ndarray) -> ir.Model:
    """A model from `agraph (...) => (...) {...}`; the constants become initializers of those names."""
    header = '<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>\n'
    proto = onnx.parser.parse_model(header + text)
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for index, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def run(model: ir.Model, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    return run_session(open_session(serialize(model)), inputs)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sqnr_db(want: np.ndarray, got: np.ndarray) -> float:
    return float(20 * np.log10(np.linalg.norm(want) / max(np.linalg.norm(want - got), 1e-30)))

"""onnxruntime for the converter's own work: running graphs in memory, one thread, quiet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_runtime.errors import EngineMissing

if TYPE_CHECKING:
    import onnx_ir as ir


def serialize(model: ir.Model) -> bytes:
    """The graph as bytes, the same for equal graphs."""
    import onnx_ir as ir

    proto = ir.to_proto(model)
    constants = {tensor.name for tensor in proto.graph.initializer}
    told = [value for value in proto.graph.value_info if value.name not in constants]
    proto.graph.ClearField("value_info")  # a constant says its own type and shape
    proto.graph.value_info.extend(told)
    return proto.SerializeToString(deterministic=True)


def open_session(model: ir.Model | bytes | Path, *, optimise: bool = True, save_optimised: Path | None = None) -> Any:
    """An onnxruntime session on the CPU with one thread.

    Args:
        model: Graph, its bytes, or its file.
        optimise: False runs the graph as it is written.
        save_optimised: Where to write the engine's optimised graph.

    Raises:
        EngineMissing: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineMissing("onnxruntime is not installed", remedy="pip install 'edgekit[onnxruntime]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save_optimised is not None:
        options.optimized_model_filepath = str(save_optimised)
    source = str(model) if isinstance(model, Path) else model if isinstance(model, bytes) else serialize(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """All outputs by name; inputs that the graph does not have are left out."""
    wanted = {tensor.name for tensor in session.get_inputs()}
    found = session.run(None, {name: np.ascontiguousarray(value) for name, value in inputs.items() if name in wanted})
    return dict(zip([tensor.name for tensor in session.get_outputs()], found, strict=True))


def run_model(model: ir.Model, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Runs a graph once."""
    return run_session(open_session(model), inputs)

"""OpenVINO with NNCF, where it is installed (`make benchmark` installs it)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]


def openvino_int8(
    onnx_path: Path, samples: Sequence[Arrays], transformer: bool = True
) -> Callable[[Arrays], object] | None:
    """NNCF post-training int8 with its documented call, compiled for one thread on the CPU. None: not installed."""
    path = onnx_path.with_suffix(".openvino.xml")
    return open_openvino(path) if save_openvino(onnx_path, samples, path, transformer) else None


def save_openvino(onnx_path: Path, samples: Sequence[Arrays], path: Path, transformer: bool = True) -> bool:
    """Quantizes with NNCF's documented call and writes OpenVINO's form of the graph. False: not installed."""
    try:
        import nncf
        import openvino
    except ImportError:
        return False
    nncf.set_log_level("ERROR")
    model = openvino.Core().read_model(str(onnx_path))
    kind = nncf.ModelType.TRANSFORMER if transformer else None
    openvino.save_model(nncf.quantize(model, nncf.Dataset(list(samples)), model_type=kind), str(path), False)
    return True


def open_openvino(path: Path) -> Callable[[Arrays], object]:
    """Compiles a saved graph for one thread on the CPU."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda inputs: request.infer(inputs)

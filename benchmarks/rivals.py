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
    try:
        import nncf
        import openvino
    except ImportError:
        return None
    nncf.set_log_level("ERROR")
    core = openvino.Core()
    model = core.read_model(str(onnx_path))
    kind = nncf.ModelType.TRANSFORMER if transformer else None
    quantized = nncf.quantize(model, nncf.Dataset(list(samples)), model_type=kind)
    compiled = core.compile_model(
        quantized, "CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    )
    request = compiled.create_infer_request()
    return lambda inputs: request.infer(inputs)

"""ONNX Runtime on an NVIDIA card. Loaded by its name only: no bundle is put on a card unasked.

A session asks for the CUDA provider; what it cannot run goes to the CPU provider, and the profile's `delegate` shows
it. Where CUDA does not start, ONNX Runtime goes on without it and only says so in a log: here that is refused. The
provider has no int8 kernels, so an int8 graph is refused too, before it is opened; fp16 is a matter of the graph, which
has to be an fp16 one. A run includes the copies to the card and back, as an application sees them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit_runtime.engines.onnx_bytes import operator_types
from edgekit_runtime.engines.onnxruntime import OnnxGraph, OnnxRuntime, refusal
from edgekit_runtime.errors import EngineMissing, Refused
from edgekit_runtime.macs import ONNX_INT8


class OnnxRuntimeGpu(OnnxRuntime):
    """The engine `onnxruntime-gpu` (CUDA execution provider).

    Attributes:
        provider: The execution provider asked for.
    """

    name = "onnxruntime-gpu"
    provider = "CUDAExecutionProvider"

    def __init__(self) -> None:
        super().__init__()
        if self.provider not in self._ort.get_available_providers():
            raise EngineMissing(
                f"this onnxruntime has no {self.provider}: it has {', '.join(self._ort.get_available_providers())}",
                remedy="pip uninstall -y onnxruntime && pip install 'edgekit[onnxruntime-gpu]', where there is a card",
            )

    def load(self, path: Path, *, threads: int = 1, signature: str = "") -> OnnxGraph:
        """Opens an ONNX file on the card. See `base.Engine.load`.

        Raises:
            Refused: Also an int8 graph, and a card that does not start.
        """
        if path.is_file():
            check_kinds(path.name, operator_types(path.read_bytes()))
        return super().load(path, threads=threads, signature=signature)

    def _open(self, path: Path, options: Any, model: bytes | None = None) -> Any:
        try:
            providers = list(dict.fromkeys((self.provider, "CPUExecutionProvider")))
            session = self._ort.InferenceSession(model or str(path), options, providers=providers)
        except Exception as error:  # ORT's errors share no base but Exception; all mean: refused
            raise refusal(path, error, self.version) from error
        if session.get_providers()[0] != self.provider:
            raise Refused(
                f"{self.provider} did not start: {path.name} would run on {session.get_providers()[0]}",
                remedy="check the card's driver and CUDA libraries (nvidia-smi), or run on the engine onnxruntime",
            )
        return session


def check_kinds(file: str, kinds: frozenset[str], of: str = "the CUDA provider") -> None:
    """Refuses an int8 graph (pure).

    Args:
        file: Its name, for the message.
        kinds: Its operator types.
        of: Who would run it, for the message.

    Raises:
        Refused: Some operator computes in int8, or quantizes for one that does.
    """
    int8 = sorted(kinds & (ONNX_INT8 | {"QuantizeLinear", "DynamicQuantizeLinear"}))
    if int8:
        raise Refused(
            f"{file} is an int8 graph ({', '.join(int8[:4])}): {of} has no int8 kernels",
            remedy="take the fp16 or fp32 graph on a card",
        )

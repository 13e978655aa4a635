"""ONNX Runtime behind the engine protocol."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.engines import onnx_bytes
from edgekit_runtime.engines.base import Arrays, middle_mean
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.macs import ONNX_INT8, macs, read_bytes
from edgekit_runtime.manifest import Tensor
from edgekit_runtime.measurement import OpCost

# Element types as ONNX Runtime spells them, by the numpy names the manifest uses.
DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(bool)": "bool",
    "tensor(string)": "str",
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}
# Element sizes by the spelling of the profile.
_ITEM_BYTES = {"float": 4, "double": 8, "float16": 2, "bfloat16": 2, "bool": 1}

# Where a model given as bytes finds its external data.
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"

# The element type that tells whether the multiplication itself is 8-bit (QLinearAdd and the like have no MACs anyway).
_EIGHT_BIT = ("int8", "uint8")


class OnnxRuntime:
    """The engine `onnxruntime` (CPU execution provider)."""

    name = "onnxruntime"
    formats = ("onnx",)

    def __init__(self) -> None:
        import onnxruntime

        self._ort = onnxruntime
        self.version: str = onnxruntime.__version__

    def load(self, path: Path, *, threads: int = 1, signature: str = "") -> OnnxGraph:
        """Opens an ONNX file. See `base.Engine.load`."""
        if signature:
            raise UsageError(f"{path.name} is an ONNX file: it has no signatures, {signature!r} was asked for")
        return OnnxGraph(self._open(path, self._options(threads)), path.name)

    def load_joined(self, paths: Sequence[Path], outputs: Collection[str], *, threads: int = 1) -> OnnxGraph:
        """Opens consecutive pieces of one graph as one graph that gives the outputs named.

        Args:
            paths: Files of the pieces in the order they run, in one folder beside the weights they share.
            outputs: Names of outputs of any of them.
            threads: Threads inside one operator.

        Raises:
            Refused: The engine does not take them (before 1.20 it finds no shared weights from bytes).
        """
        model = onnx_bytes.join([path.read_bytes() for path in paths], outputs)
        options = self._options(threads)
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(paths[0].parent))
        return OnnxGraph(self._open(paths[-1], options, model), paths[-1].name)

    def trace(
        self, path: Path, inputs: Mapping[str, np.ndarray], *, threads: int = 1, runs: int = 1
    ) -> Sequence[OpCost]:
        """What ran, operator by operator. See `base.Engine.trace`.

        Kernels that pack their weights at opening hide the weights' shapes from the profile, so the shapes come from a
        second session that does not pack; the times come from the first, which runs as `load` does.
        """
        timed = self._profile(path, inputs, threads, runs, packed=True)
        try:
            shaped = self._profile(path, inputs, threads, 1, packed=False)
        except Refused:  # a kernel that exists in packed form only; what the first session tells must do
            shaped = timed
        shapes = {_key(event): event["args"] for event in shaped}
        return _costs(timed, shapes, runs)

    def _options(self, threads: int) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        return options

    def _open(self, path: Path, options: Any, model: bytes | None = None) -> Any:
        try:
            return self._ort.InferenceSession(model or str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ORT's errors share no base but Exception; all mean: refused
            raise refusal(path, error, self.version) from error

    def _profile(
        self, path: Path, inputs: Mapping[str, np.ndarray], threads: int, runs: int, *, packed: bool
    ) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory(prefix="edgekit-trace-") as folder:
            options = self._options(threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "trace")
            if not packed:
                options.add_session_config_entry("session.disable_prepacking", "1")
            graph = OnnxGraph(self._open(path, options), path.name)
            for _ in range(runs + 1 if packed else runs):  # one to warm up, left out below
                graph.run(inputs)
            events = json.loads(Path(graph.end_profiling()).read_text())
        kernels = [event for event in events if event.get("cat") == "Node" and "op_name" in event.get("args", {})]
        return _without_first(kernels) if packed else kernels


class OnnxGraph:
    """One ONNX Runtime session. `run` is safe from several threads, as the session is."""

    def __init__(self, session: Any, file: str) -> None:
        self.inputs = tuple(_tensor(value) for value in session.get_inputs())
        self.outputs = tuple(_tensor(value) for value in session.get_outputs())
        self._names = [tensor.name for tensor in self.outputs]
        self._session = session
        self._run = session.run
        self._file = file

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Runs once. See `base.LoadedGraph.run`."""
        names = self._names
        try:
            return dict(zip(names, self._run(names, inputs), strict=True))
        except Exception as error:  # ORT's errors share no base but Exception
            if self._session is None:
                raise UsageError(f"{self._file} is closed", remedy="open it again") from error
            raise Refused(
                f"onnxruntime failed while running {self._file}: {_first_line(error)}",
                remedy="check the values given (indices in range?); `edgekit verify` tells whether the file is sound",
            ) from error

    def end_profiling(self) -> str:
        """Ends the profile and returns the path of its file."""
        return str(self._session.end_profiling())

    def close(self) -> None:
        """Frees the session."""
        self._session = self._run = None


def _tensor(value: Any) -> Tensor:
    shape = tuple(
        size if isinstance(size, int) else (size or f"{value.name}_{axis}") for axis, size in enumerate(value.shape)
    )
    return Tensor(name=value.name, dtype=DTYPES.get(value.type, value.type), shape=shape)


def _first_line(error: BaseException) -> str:
    return str(error).replace("[ONNXRuntimeError] : ", "").strip().split("\n")[0]


def refusal(path: Path, error: Exception, version: str) -> Refused:
    """Why ONNX Runtime does not take a file, in words, with the operator where it names one."""
    text = _first_line(error)
    if not path.exists():
        return Refused(f"{path} does not exist", remedy="check the path")
    if "INVALID_PROTOBUF" in text or "ModelProto" in text:
        return Refused(f"{path.name} is not a whole ONNX file: {text}", remedy="copy or export the file again")
    if "opset" in text and "support" in text:
        return Refused(
            f"onnxruntime {version} is too old for {path.name}: {text}",
            remedy="upgrade onnxruntime, or convert again with a lower --opset",
        )
    if "NOT_IMPLEMENTED" in text or "is not a registered function/op" in text or "No Op registered" in text:
        return Refused(
            f"onnxruntime {version} has no kernel for an operator of {path.name}: {text}",
            remedy="upgrade onnxruntime, or keep the operator it names in another precision (--keep-float)",
        )
    return Refused(f"onnxruntime {version} refuses {path.name}: {text}", remedy="check the file with onnx.checker")


def _key(event: Mapping[str, Any]) -> tuple[str, str]:
    return str(event["name"]), str(event["args"]["op_name"])


def _without_first(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leaves out each node's first execution (allocation, cold caches)."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for event in events:
        if _key(event) in seen:
            kept.append(event)
        seen.add(_key(event))
    return kept


# Types that ONNX Runtime's profile calls by another name than numpy.
_NAMES = {"float": "float32", "double": "float64"}


def _costs(
    events: Sequence[dict[str, Any]], shapes: Mapping[tuple[str, str], Mapping[str, Any]], runs: int
) -> tuple[OpCost, ...]:
    """One row a node in order of first execution; `ms` and counts are per run (a node in a loop runs several times)."""
    micros: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in events:
        micros[_key(event)].append(int(event["dur"]))
    rows = []
    providers = {_key(event): str(event["args"].get("provider", "")) for event in events}
    for key, seen in micros.items():
        name, kind = key
        arguments = shapes.get(key, {})
        inputs = [next(iter(item.items())) for item in arguments.get("input_type_shape", []) if item]
        outputs = [next(iter(item.items())) for item in arguments.get("output_type_shape", []) if item]
        repeats = max(1, round(len(seen) / runs))
        given, made = [shape for _, shape in inputs], [shape for _, shape in outputs]
        count = macs(kind, given, made)
        read = read_bytes(kind, [_bytes(dtype, shape) for dtype, shape in inputs], given, made)
        rows.append(
            OpCost(
                name=name.removesuffix("_kernel_time"),
                kind=kind,
                ms=middle_mean(seen) * len(seen) / runs / 1e3,
                macs=None if count is None else count * repeats,
                bytes=repeats * (read + sum(_bytes(dtype, shape) for dtype, shape in outputs)),
                int8=_is_int8(kind, [dtype for dtype, _ in inputs]),
                delegate=providers[key],
                calls=repeats,
                inputs=tuple(map(tuple, given)),
                outputs=tuple(map(tuple, made)),
                dtype=_NAMES.get(outputs[0][0], outputs[0][0]) if outputs else "",
            )
        )
    return tuple(rows)


def _is_int8(kind: str, dtypes: Sequence[str]) -> bool:
    return kind in ONNX_INT8 or (kind.startswith("QLinear") and any(dtype in _EIGHT_BIT for dtype in dtypes))


def _bytes(dtype: str, shape: Sequence[int]) -> int:
    digits = "".join(character for character in dtype if character.isdigit())
    item = _ITEM_BYTES.get(dtype, int(digits) // 8 if digits else 4)
    return item * int(np.prod(shape, dtype=np.int64))

"""What other servers need to be the tail side: a Triton model repository, and a KServe manifest over it.

    DIR/NAME/config.pbtxt                      the full model: its file, and the weights beside it
    DIR/NAME/1/model.onnx
    DIR/NAME.tail.SPLITPOINT/config.pbtxt      each tail of an ONNX graph: segments joined, weights inside
    DIR/NAME.tail.SPLITPOINT/1/model.onnx

    DIR/inferenceservice.yaml                  with --to kserve, where the repository lies in DIR/models

Names are those that `er.open(bundle, server=..., ours=False)` calls. TFLite graphs stay out: Triton does not run them.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from edgekit.files import whole_folder
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.chain import Chain
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Graph, SplitPoint, Tensor
from edgekit_runtime.remote.pieces import batch_axis

TYPES = {
    "bool": "TYPE_BOOL",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}
_FILE = "model.onnx"


class NotForTriton(Refused):
    """A model whose tensors Triton cannot be told of."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: Where.
        models: Names as clients call them, the full model first.
        left_out: Split points whose tail Triton cannot run, each with the reason.
    """

    folder: Path
    models: tuple[str, ...]
    left_out: tuple[str, ...]


def triton(bundle: Bundle, out: Path, graph: str = "") -> Exported:
    """Writes a model repository.

    Args:
        bundle: Its files checked.
        out: A new or empty folder.
        graph: Id of the full ONNX graph that is served under the bundle's name; empty: fp32, or the first there is.

    Raises:
        UsageError: The folder holds something, or there is no such graph.
        Refused: The bundle has no ONNX graph, or onnx is not installed.
    """
    manifest = bundle.manifest
    served = _served(bundle, graph)
    _empty(out)
    names = [manifest.name]
    full = bundle.graph_path(served)
    folder = _model(out, manifest.name, _config(bundle, manifest.name, served.inputs, served.outputs))
    # Weights beside a graph are found by their name: they keep it, in the same folder.
    for name in served.data:
        shutil.copyfile(bundle.root / name, folder / Path(name).name)
    shutil.copyfile(full, folder / _FILE)
    left_out: list[str] = []
    for point in manifest.split_points:
        if bundle.graph(point.of).format != "onnx":
            left_out.append(f"{point.id}: Triton does not run {bundle.graph(point.of).format}")
            continue
        name = f"{manifest.name}.tail.{point.id}"
        try:
            _tail(bundle, point, out, name)
        except NotForTriton as error:
            left_out.append(f"{point.id}: {error.message}")
            continue
        names.append(name)
    return Exported(out, tuple(names), tuple(left_out))


def kserve(bundle: Bundle, out: Path, storage_uri: str, graph: str = "") -> Exported:
    """Writes a model repository under `out/models` and the manifest of an InferenceService that serves it by Triton.

    Args:
        bundle: Its files checked.
        out: A new or empty folder.
        storage_uri: Where the cluster finds what is in `out/models`: `s3://`, `gs://`, `pvc://` and the like.
        graph: As for `triton`.

    Raises:
        UsageError: As for `triton`, or the address is none.
        Refused: As for `triton`.
    """
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", storage_uri):
        raise UsageError(
            f"--storage-uri {storage_uri!r} is no address that a cluster can read",
            remedy="--storage-uri s3://BUCKET/models (or gs://, pvc://CLAIM/models), and copy DIR/models there",
        )
    _empty(out)
    made = triton(bundle, out / "models", graph)
    (out / "inferenceservice.yaml").write_text(manifest_text(bundle.manifest.name, storage_uri))
    return dataclasses.replace(made, folder=out)


def manifest_text(name: str, storage_uri: str) -> str:
    """The InferenceService as YAML: V2 over gRPC, which is what an edgekit device speaks.

    Args:
        name: Of the bundle; made a DNS label (lower case letters, digits and dashes, 63 at most).
        storage_uri: Of the model repository.
    """
    label = re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-") or "edgekit"
    return f"""apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {json.dumps(label)}
spec:
  predictor:
    model:
      modelFormat:
        name: triton
      protocolVersion: grpc-v2
      storageUri: {json.dumps(storage_uri)}
      ports:
        - name: h2c
          protocol: TCP
          containerPort: 9000
"""


def config(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], most: int) -> str:
    """A Triton model configuration (ModelConfig as protobuf text).

    Args:
        name: Of the model and its folder.
        inputs: As the file has them.
        outputs: As the file has them.
        most: Largest batch; 0: the first axis of some tensor is no batch axis, and every axis is listed.

    Raises:
        NotForTriton: A dtype that Triton does not have, or a tensor without axes: Triton wants at least one in `dims`,
            and takes an empty reshape only behind a batch axis.
    """
    lines = [f"name: {json.dumps(name)}", 'platform: "onnxruntime_onnx"', f"max_batch_size: {most}"]
    for kind, tensors in (("input", inputs), ("output", outputs)):
        for tensor in tensors:
            if tensor.dtype not in TYPES:
                raise NotForTriton(
                    f"{tensor.name} is {tensor.dtype}, which Triton does not take", remedy="edgekit serve"
                )
            if not tensor.shape:
                raise NotForTriton(
                    f"{tensor.name} has no axes, which Triton does not take", remedy="edgekit serve, or give it an axis"
                )
            sizes = [size if isinstance(size, int) else -1 for size in tensor.shape[1 if most else 0 :]]
            lines += [
                f"{kind} {{",
                f"  name: {json.dumps(tensor.name)}",
                f"  data_type: {TYPES[tensor.dtype]}",
                f"  dims: {json.dumps(sizes)}",
                "}",
            ]
    if most:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"


def _served(bundle: Bundle, graph: str) -> Graph:
    full = [row for row in bundle.manifest.graphs if row.role == "full" and row.format == "onnx"]
    if not full:
        raise Refused("the bundle has no ONNX graph, and Triton runs no other", remedy="convert with --format onnx")
    if not graph:
        return next((row for row in full if row.precision == "fp32"), full[0])
    found = next((row for row in full if row.id == graph), None)
    if found is None:
        raise UsageError(
            f"--graph {graph}: no full ONNX graph of that id", remedy=f"one of: {', '.join(row.id for row in full)}"
        )
    return found


def _empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"-o {out} is there already", remedy="name a new or an empty folder")


def _config(bundle: Bundle, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> str:
    batch = batch_axis(bundle.manifest, (*inputs, *outputs))
    # Triton lists the axes behind the batch, and there must be one.
    alone = any(len(tensor.shape) < 2 for tensor in (*inputs, *outputs))
    most = next((axis.max for axis in bundle.manifest.axes if axis.symbol == batch and not alone), 0)
    return config(name, inputs, outputs, most)


def _model(out: Path, name: str, text: str) -> Path:
    """The folder of one model's only version, made, with the configuration above it."""
    folder = out / name / "1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(text)
    return folder


def _tail(bundle: Bundle, point: SplitPoint, out: Path, name: str) -> None:
    """The segments behind a split point as one file with its weights."""
    with Chain(bundle, point.of, start=point.id) as chain:
        inputs, outputs = chain.inputs, chain.outputs
    folder = _model(out, name, _config(bundle, name, inputs, outputs))
    pieces = [bundle.graph_path(bundle.graph(piece)) for piece in point.after]
    try:
        from edgekit_converters.cut.onnx_tail import write_tail

        write_tail(pieces, {tensor.name for tensor in outputs}, folder / _FILE)
    except ModuleNotFoundError as error:  # onnx itself is imported when a tail is written
        raise Refused(
            f"a tail is written with the package {error.name}", remedy="pip install 'edgekit[convert]'"
        ) from error


def exported(bundle: Bundle, to: str, out: Path, graph: str = "", storage_uri: str = "") -> Exported:
    """`triton` or `kserve`, by name; the folder is written whole or not at all.

    Raises:
        UsageError: Another name, an option that does not belong to it, or a folder that cannot be written.
    """
    if to not in ("triton", "kserve"):
        raise UsageError(f"--to {to} is not known", remedy="triton or kserve")
    if storage_uri and to == "triton":
        raise UsageError("--storage-uri belongs to --to kserve", remedy="leave it out")
    with whole_folder(out, "-o") as folder:
        made = kserve(bundle, folder, storage_uri, graph) if to == "kserve" else triton(bundle, folder, graph)
    return dataclasses.replace(made, folder=out)

"""The bundle's vocabulary: `manifest.json` as frozen, strictly typed structs.

Unknown keys are refused on reading, so that a newer bundle is never half understood. Every number carries its unit in
its name. `dump` writes canonical bytes (sorted keys, two-space indent, newline at the end): equal manifests are equal
files, and `bundle_id` is the sha256 of those bytes. As the manifest lists the sha256 of every file, the id covers them.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from edgekit_runtime.cuts import Exit as Exit
from edgekit_runtime.cuts import First as First
from edgekit_runtime.cuts import OperatingPoint as OperatingPoint
from edgekit_runtime.cuts import SplitPoint as SplitPoint
from edgekit_runtime.cuts import WireTensor as WireTensor
from edgekit_runtime.errors import BundleInvalid
from edgekit_runtime.strict import Base as Base

SCHEMA = "edgekit.bundle/1"

Format = Literal["onnx", "tflite"]
Precision = Literal["fp32", "fp16", "int8"]
Role = Literal["full", "segment", "exit", "encoder", "decode_step"]
AxisRole = Literal["batch", "length", "other"]


class Quantization(Base, frozen=True, kw_only=True):
    """Affine int8: real = scale * (q - zero_point)."""

    scale: float
    zero_point: int


class Tensor(Base, frozen=True, kw_only=True):
    """A named tensor of the student or of one graph.

    Attributes:
        name: Name as in `forward`, or the key of the returned dict.
        dtype: numpy name, for example `float32`, `int64`.
        shape: One entry an axis: a number, or the symbol of a dynamic axis.
        min: Smallest value seen or allowed; None where unknown.
        max: Largest value seen or allowed; None where unknown.
        quantization: Where the tensor is int8 at the graph's border.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    min: float | None = None
    max: float | None = None
    quantization: Quantization | None = None


class Axis(Base, frozen=True, kw_only=True):
    """A dynamic axis, shared by all tensors whose shape names its symbol.

    Attributes:
        symbol: Name used in shapes.
        min: Smallest size allowed.
        max: Largest size allowed.
        role: `batch` when samples along it are independent (measured, not assumed), `length` when padding it with
            zeros at the end leaves the answer as it is (measured), else `other`.
    """

    symbol: str
    min: int
    max: int
    role: AxisRole


class Signature(Base, frozen=True, kw_only=True):
    """One rung of a ladder of fixed sizes inside one TFLite file."""

    name: str
    sizes: dict[str, int]


class Graph(Base, frozen=True, kw_only=True):
    """One runnable file of the bundle.

    Attributes:
        id: `FORMAT.PRECISION[.VARIANT]` for full graphs.
        bytes: Of the file and its data.
        data: Files of weights beside it, which the engine maps into memory; their hashes stand in `files`.
        inputs: Names are the student's; dtype and shape the file's own (TFLite takes int32 where torch takes int64).
        signatures: Ladder rungs in rising order of size; empty when the file takes every size itself.
        engine: Engine that the figures of this graph were proven on.
        min_engine_version: Oldest version of that engine that runs the file.
        macs: Multiply-accumulates of one sample at the example's size; None where not counted.
        int8_weight_bytes_fraction: Bytes of int8 weights over bytes of all weights, counted in the file.
        executed_int8_macs_fraction: MACs run by int8 kernels, counted in the engine's optimised graph.
        promised_int8_weight_bytes_fraction: The same share as the recipe decided it.
        promised_int8_macs_fraction: Share of MACs that the recipe wanted in int8.
        speed_given_back_macs_fraction: MACs of operators that went back to fp32 because int8 was not faster.
        speed_given_back_weight_bytes_fraction: fp32 weight bytes of those whose weights went back as well.
        recipe: Path of the resolved recipe (JSON), empty when the graph was not quantized here.
        ships_because: Why this graph is in the bundle with this precision.
        of: For a segment or an exit: id of the full graph it is a piece of.
        weights: File of the bundle that holds the weights this file points to; empty when it holds its own.
    """

    id: str
    format: Format
    precision: Precision
    variant: str = ""
    targets: tuple[str, ...] = ()
    role: Role = "full"
    path: str
    bytes: int
    sha256: str
    data: tuple[str, ...] = ()
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    signatures: tuple[Signature, ...] = ()
    engine: str
    min_engine_version: str
    macs: int | None = None
    int8_weight_bytes_fraction: float = 0.0
    executed_int8_macs_fraction: float = 0.0
    promised_int8_weight_bytes_fraction: float = 0.0
    promised_int8_macs_fraction: float = 0.0
    speed_given_back_macs_fraction: float = 0.0
    speed_given_back_weight_bytes_fraction: float = 0.0
    recipe: str = ""
    ships_because: str = ""
    of: str = ""
    weights: str = ""


class State(Base, frozen=True, kw_only=True):
    """A pair of tensors that carries a streaming student's state from one step to the next."""

    input: str
    output: str
    initial: Literal["zeros"] = "zeros"


class Decoding(Base, frozen=True, kw_only=True):
    """How the graphs `encoder` and `decode_step` of a bundle make a sequence. See `decoding.greedy`.

    Attributes:
        token: Input of `decode_step` that takes the last token, [B].
        scores: Output of `decode_step` with a score for each token, [B, V].
        states: What one step hands to the next; zeros at the start.
        begin: Token that starts every sequence; never part of an answer.
        end: Token that ends it; never part of an answer.
        limit: Most tokens of an answer. Shorter answers are filled up with 0.
        output: Name of the answer, [B, limit] int64.
    """

    token: str
    scores: str
    states: tuple[State, ...] = ()
    begin: int
    end: int
    limit: int
    output: str = "tokens"


class Action(Base, frozen=True, kw_only=True):
    """One way to answer a request, with its measured accuracy."""

    id: str
    kind: Literal["local", "exit", "split", "offload", "cascade", "variant"]
    graphs: tuple[str, ...]
    codec: str = "none"
    operating_point: str = ""
    accuracy_drop: float | None = None
    interval_95: tuple[float, float] | None = None
    n: int = 0


class Quality(Base, frozen=True, kw_only=True):
    """What the gate saw for one graph and one slice of the data.

    `drop` is reference less value where higher is better, else value less reference: positive is worse.
    """

    graph: str
    slice: str = "all"
    metric: str
    higher_is_better: bool
    reference: float
    value: float
    drop: float
    interval_95: tuple[float, float]
    n: int
    labels: bool
    gate: Literal["passed", "failed"]
    reason: str


class Parity(Base, frozen=True, kw_only=True):
    """How far one graph's outputs are from the reference on the same inputs.

    Attributes:
        max_error_fraction: Largest absolute difference over the reference output's range.
        cosine_min: Smallest cosine over samples.
        sqnr_db: Signal to quantization noise over all samples; None when the outputs are identical.
        same_label_fraction: Share of samples with the same argmax over the last axis; None for non-scores.
    """

    graph: str
    output: str
    n: int
    max_error_fraction: float
    cosine_min: float
    sqnr_db: float | None
    same_label_fraction: float | None = None


class Refusal(Base, frozen=True, kw_only=True):
    """A format and precision that was asked for and is not in the bundle."""

    format: str
    precision: str
    reason: str


class Source(Base, frozen=True, kw_only=True):
    """Where the student came from and how it was captured."""

    kind: str
    exporter: str
    parameters: int | None = None
    notes: tuple[str, ...] = ()


class Calibration(Base, frozen=True, kw_only=True):
    """How many samples calibrated the graphs, and the sha256 of their bytes."""

    samples: int
    sha256: str


class FileEntry(Base, frozen=True, kw_only=True):
    """Size and hash of one file of the bundle."""

    bytes: int
    sha256: str


class Manifest(Base, frozen=True, kw_only=True):
    """Everything a device must know about the bundle. See docs/bundle.md for the folder around it."""

    schema: Literal["edgekit.bundle/1"] = "edgekit.bundle/1"
    name: str
    version: int = 1
    tool_versions: dict[str, str]
    created: str | None = None
    source: Source
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    axes: tuple[Axis, ...] = ()
    states: tuple[State, ...] = ()
    decoding: Decoding | None = None
    graphs: tuple[Graph, ...]
    split_points: tuple[SplitPoint, ...] = ()
    exits: tuple[Exit, ...] = ()
    operating_points: tuple[OperatingPoint, ...] = ()
    actions: tuple[Action, ...] = ()
    quality: tuple[Quality, ...] = ()
    parity: tuple[Parity, ...] = ()
    refused: tuple[Refusal, ...] = ()
    calibration: Calibration | None = None
    files: dict[str, FileEntry]


def dump(manifest: Manifest) -> bytes:
    """Writes a manifest as canonical JSON bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def load(data: bytes) -> Manifest:
    """Reads `manifest.json`.

    Raises:
        BundleInvalid: The bytes are not JSON, carry another schema, or do not fit this one.
    """
    try:
        schema = msgspec.json.decode(data, type=dict[str, object]).get("schema")
    except msgspec.MsgspecError as error:
        remedy = "copy the bundle again, whole, or convert the student again"
        raise BundleInvalid(f"manifest.json is not readable: {error}", remedy=remedy) from error
    if schema != SCHEMA:
        raise BundleInvalid(
            f"manifest.json has schema {schema!r}; this edgekit reads {SCHEMA!r}",
            remedy="upgrade edgekit (pip install -U edgekit) or convert the student again with this version",
        )
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BundleInvalid(
            f"manifest.json does not fit {SCHEMA}: {error}", remedy="convert the student again"
        ) from error


def bundle_id(manifest_bytes: bytes) -> str:
    """The bundle's identity: sha256 over the manifest's bytes, which list the sha256 of every other file."""
    return hashlib.sha256(manifest_bytes).hexdigest()

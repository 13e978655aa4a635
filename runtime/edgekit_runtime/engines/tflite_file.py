"""What a TFLite file says of itself, read without any engine and with every offset checked.

Only what edgekit needs: operators with their versions, tensors, signatures, the oldest runtime the file asks for. The
field numbers are those of tensorflow/compiler/mlir/lite/schema/schema.fbs (version 3).
"""

from __future__ import annotations

import dataclasses
import mmap
from pathlib import Path

from edgekit_runtime.engines.flatbuffer import Damaged, Table, root
from edgekit_runtime.engines.tflite_ops import operator_name, type_name
from edgekit_runtime.errors import Refused


@dataclasses.dataclass(frozen=True)
class FileTensor:
    """A tensor as declared. `shape` has -1 for sizes left open; `constant`: its data is in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    constant: bool
    variable: bool


@dataclasses.dataclass(frozen=True)
class FileOperator:
    """An operator with the indices of its tensors (-1: an optional input that is absent).

    Attributes:
        body: Subgraph that is run whatever the condition (an IF whose branches are the same), -1 for other operators.
    """

    kind: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    body: int = -1


@dataclasses.dataclass(frozen=True)
class Subgraph:
    """One subgraph: tensors, its own inputs and outputs, operators in order of execution."""

    tensors: tuple[FileTensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[FileOperator, ...]


@dataclasses.dataclass(frozen=True)
class FileSignature:
    """A named entry point: tensor index by the name a caller uses."""

    name: str
    subgraph: int
    inputs: dict[str, int]
    outputs: dict[str, int]


@dataclasses.dataclass(frozen=True)
class TfliteFile:
    """The structure of a file.

    Attributes:
        min_runtime_version: From the file's metadata; empty where it does not tell.
    """

    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[FileSignature, ...]
    min_runtime_version: str

    @property
    def stateful(self) -> bool:
        """Some tensor keeps its value from one run to the next."""
        return any(tensor.variable for subgraph in self.subgraphs for tensor in subgraph.tensors)

    def users(self, tensor: int, subgraph: int = 0) -> tuple[str, ...]:
        """Kinds of the operators that read a tensor."""
        return tuple(op.kind for op in self.subgraphs[subgraph].operators if tensor in op.inputs)


def read(path: Path) -> TfliteFile:
    """Reads and checks a file's structure.

    Raises:
        Refused: Not a TFLite file, or truncated or damaged (says what does not fit).
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as view,
        ):
            return parse(view)
    except (OSError, ValueError) as error:
        raise Refused(f"{path.name} cannot be read: {error}", remedy="check the path and the file") from error
    except Damaged as error:
        raise Refused(
            f"{path.name} is not a whole TFLite file: {error.message}", remedy="copy or convert the file again"
        ) from error


def parse(data: memoryview) -> TfliteFile:
    """Reads a file's bytes.

    Raises:
        Damaged: Something in it does not fit (says what).
    """
    model = root(data, b"TFL3")
    schema_version = model.integer(0, "<I")
    if schema_version != 3:
        raise Damaged(f"its schema version is {schema_version}; every TFLite runtime in use reads 3")
    buffers = _buffers(model, len(data))
    codes = [_code(table) for table in model.tables(1)]
    subgraphs = tuple(_subgraph(table, codes, buffers) for table in model.tables(2))
    if not subgraphs:
        raise Damaged("it holds no graph")
    _within(tuple(op.body for part in subgraphs for op in part.operators), len(subgraphs), "IF", lowest=-1)
    signatures = tuple(_signature(table, subgraphs) for table in model.tables(7))
    return TfliteFile(subgraphs, signatures, _min_runtime(model))


def _buffers(model: Table, size: int) -> list[bool]:
    """For each buffer: does it hold data? Data behind the flatbuffer (files above 2 GB) must lie in the file too."""
    filled = []
    for table in model.tables(4):
        offset, length = table.integer(1, "<Q"), table.integer(2, "<Q")
        if offset > 1 and offset + length > size:
            raise Damaged(f"weights at byte {offset} run past the end of the file ({size} bytes)")
        filled.append(len(table.data(0)) > 0 or length > 0)
    return filled


def _code(table: Table) -> tuple[str, int]:
    number = max(table.integer(0, "<b"), table.integer(3))
    name = operator_name(number)
    return (f"CUSTOM:{table.text(1)}" if name == "CUSTOM" else name, table.integer(2, default=1))


def _tensor(table: Table, buffers: list[bool]) -> FileTensor:
    buffer = table.integer(2, "<I")
    if buffer >= max(len(buffers), 1):
        raise Damaged(f"tensor {table.text(3)!r} has buffer {buffer}, the file has {len(buffers)}")
    return FileTensor(
        name=table.text(3),
        dtype=type_name(table.integer(1, "<b")),
        shape=table.integers(7) or table.integers(0),
        constant=bool(buffers and buffers[buffer]),
        variable=bool(table.integer(5, "<B")),
    )


def _subgraph(table: Table, codes: list[tuple[str, int]], buffers: list[bool]) -> Subgraph:
    tensors = tuple(_tensor(item, buffers) for item in table.tables(0))
    operators = tuple(_operator(item, codes, len(tensors)) for item in table.tables(3))
    inputs, outputs = table.integers(1), table.integers(2)
    _within(inputs + outputs, len(tensors), "the graph's border", lowest=0)
    return Subgraph(tensors, inputs, outputs, operators)


def _operator(table: Table, codes: list[tuple[str, int]], tensors: int) -> FileOperator:
    index = table.integer(0, "<I")
    if index >= len(codes):
        raise Damaged(f"an operator has code {index}, the file has {len(codes)}")
    kind, version = codes[index]
    inputs, outputs = table.integers(1), table.integers(2)
    _within(inputs + outputs, tensors, kind, lowest=-1)
    return FileOperator(kind, version, inputs, outputs, _body(table) if kind == "IF" else -1)


def _body(table: Table) -> int:
    options = table.table(4)
    if options is None:
        return -1
    then, otherwise = options.integer(0), options.integer(1)
    return then if then == otherwise else -1


def _signature(table: Table, subgraphs: tuple[Subgraph, ...]) -> FileSignature:
    name, index = table.text(2), table.integer(4, "<I")
    if index >= len(subgraphs):
        raise Damaged(f"signature {name!r} names graph {index}, the file has {len(subgraphs)}")
    maps = [{item.text(0): item.integer(1, "<I") for item in table.tables(field)} for field in (0, 1)]
    for names in maps:
        _within(tuple(names.values()), len(subgraphs[index].tensors), f"signature {name!r}", lowest=0)
    return FileSignature(name, index, *maps)


def _within(indices: tuple[int, ...], count: int, where: str, *, lowest: int) -> None:
    for index in indices:
        if not lowest <= index < count:
            raise Damaged(f"{where} names number {index}, the file has {count} there")


def _min_runtime(model: Table) -> str:
    """The oldest runtime that knows every operator of the file, as its converter wrote it."""
    wanted = [table.integer(1, "<I") for table in model.tables(6) if table.text(0) == "min_runtime_version"]
    if not wanted:
        return ""
    for number, table in enumerate(model.tables(4)):
        if number == wanted[0]:
            return bytes(table.data(0)).split(b"\0")[0].decode("ascii", "replace")
    raise Damaged(f"its metadata names buffer {wanted[0]}, which it does not have")

"""Large weights in a file beside the graph, which onnxruntime maps into memory instead of reading it.

    before: onnx.int8.onnx (52 MB: parsed and copied when it is opened)
    after:  onnx.int8.onnx (some KB) + onnx.int8.data (51 MB: mapped; a page is read when a request touches it)

A table of which a request reads a few hundred rows then costs memory for those rows, not for the table. Tensors begin
at multiples of a page, as mapping demands.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_converters.onnx.defaults import drop_defaults
from edgekit_converters.onnx.session import serialize
from edgekit_runtime.errors import Refused

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

# Bytes of a tensor from which a file of its own pays: below, parsing takes less than a millisecond.
LARGE = 4 << 20
PAGE = 4096


def write(model: ir.Model, path: Path, name: str) -> tuple[Path, ...]:
    """Writes a graph, and what is large in it to `NAME.data` beside it; in place the model then refers to that file.

    Args:
        model: The graph.
        path: Of the `.onnx` file.
        name: Of the data file, without its ending: the graph looks for it by this name wherever it lies.

    Returns:
        The data file, where there is one.
    """
    import onnx_ir as ir

    drop_defaults(model)
    values = [value.const_value for value in model.graph.initializers.values()]
    if all(tensor is None or tensor.nbytes < LARGE for tensor in values):
        path.write_bytes(serialize(model))
        return ()
    data = path.with_name(f"{name}.data")
    ir.external_data.unload_from_model(
        model, path.parent, data.name, size_threshold_bytes=LARGE, alignment=PAGE, align_threshold=LARGE
    )
    path.write_bytes(serialize(model))
    return (data,)


def read(path: Path) -> ir.Model:
    """Reads a graph with all its weights in memory."""
    import onnx_ir as ir

    model = ir.load(path)
    return ir.external_data.load_to_model(model)


def copy(source: Path, path: Path, taken: str) -> tuple[Path, ...]:
    """Copies a graph byte for byte, and the files its tensors lie in, which it looks for by the same names.

    Args:
        source: The `.onnx` file.
        path: Of the copy.
        taken: Name that the copy will have in the bundle: no data file may be called so.

    Returns:
        The data files' copies, beside the graph or in folders there.

    Raises:
        Refused: A data file is missing, lies outside the graph's folder or has the graph's own name.
    """
    import onnx

    names = locations(onnx.load(source, load_external_data=False).graph)
    path.write_bytes(source.read_bytes())
    copies = []
    for name in names:
        data, beside = source.parent / name, path.parent / name
        remedy = "save it again: onnx.save(model, FILE, save_as_external_data=True, location='weights.data')"
        if not data.resolve().is_relative_to(source.parent.resolve()) or Path(name).is_absolute():
            raise Refused(f"{source.name}: its weights lie outside its folder, in {name}", remedy=remedy)
        if not data.is_file():
            raise Refused(f"{source.name}: its weights should lie in {name}, which is not there", remedy=remedy)
        if Path(name) in (Path(taken), Path(path.name)):
            raise Refused(f"{source.name}: its weights lie in a file named as the graph, {name}", remedy=remedy)
        beside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data, beside)
        copies.append(beside)
    return tuple(copies)


def locations(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Files outside the graph that its constants lie in, as it names them, in alphabetical order."""
    external = {
        entry.value
        for tensor in _tensors(graph)
        if tensor.data_location == tensor.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return tuple(sorted(external))


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)

"""Large weights in a file beside the graph, which onnxruntime maps into memory instead of reading it.

    before: onnx.int8.onnx (52 MB: parsed and copied when it is opened)
    after:  onnx.int8.onnx (some KB) + onnx.int8.data (51 MB: mapped; a page is read when a request touches it)

A table of which a request reads a few hundred rows then costs memory for those rows, not for the table. Tensors begin
at multiples of a page, as mapping demands.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_converters.onnx.session import serialize

if TYPE_CHECKING:
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

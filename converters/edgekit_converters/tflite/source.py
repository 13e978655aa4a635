"""A `.tflite` file as the source: taken as it is, given a signature where it has none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit_converters.captured import Captured
from edgekit_converters.tflite import flatbuffer, ladder
from edgekit_converters.tflite.min_version import minimum_runtime
from edgekit_converters.tflite.passes.names import entries
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Tensor


def take(student: Captured, target: Path) -> tuple[flatbuffer.Model, str]:
    """Writes a `.tflite` source to `target`; byte for byte the same where it already has a signature.

    Args:
        student: A captured `.tflite` file.
        target: Where to write.

    Returns:
        The model and the oldest runtime that runs it.

    Raises:
        Refused: Not a TFLite file, damaged, or its inputs or outputs are not those of the student.
    """
    if student.path is None:
        raise TypeError("a .tflite student carries its path")
    model = flatbuffer.read(student.path)
    subgraph = flatbuffer.main_subgraphs(model)[0]
    _check(student, "inputs", student.inputs, subgraph.inputs)
    _check(student, "outputs", student.outputs, subgraph.outputs)
    if model.signatureDefs:
        target.write_bytes(student.path.read_bytes())
        return model, minimum_runtime(model)
    signature = flatbuffer.schema().SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = ladder.ONLY.encode(), 0
    signature.inputs = entries([tensor.name for tensor in student.inputs], subgraph.inputs)
    signature.outputs = entries([tensor.name for tensor in student.outputs], subgraph.outputs)
    model.signatureDefs = [signature]
    target.write_bytes(flatbuffer.serialize(model))
    return model, minimum_runtime(model)


def _check(student: Captured, what: str, tensors: Sequence[Tensor], indices: Sequence[int]) -> None:
    if len(tensors) != len(indices):
        name = student.path.name if student.path else student.name
        raise Refused(
            f"{name} has {len(indices)} {what} where {len(tensors)} were captured",
            remedy="convert the file that was captured",
        )

"""Pieces of an ONNX file as files of their own, whose weights stay in the whole file.

    graphs/onnx.int8.onnx            the whole graph, as it was
    graphs/onnx.int8.seg0.onnx       nodes of the first piece; weights: "bytes 1,234 to 3,538 of onnx.int8.onnx"
    graphs/onnx.int8.seg1.onnx       ...

ONNX's external data is a file, an offset and a length: the whole graph's own file serves, so every weight exists once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_converters.cut.onnx_flow import captured
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Tensor

if TYPE_CHECKING:
    import onnx

# Constants below this many bytes stay in the piece: pointing to them would take as much.
_OUTSIDE = 128


class Whole:
    """A graph file that pieces are cut from."""

    def __init__(self, path: Path) -> None:
        import onnx

        self.path = path
        self.model = onnx.load(path, load_external_data=False)
        self._data = path.read_bytes()
        self._makers = {name: i for i, node in enumerate(self.model.graph.node) for name in node.output if name}
        self._constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._inputs = {value.name: value for value in self.model.graph.input}
        self._outputs = {value.name: value for value in self.model.graph.output}
        self._offsets: dict[str, int] = {}

    def piece(self, given: Sequence[Tensor], wanted: Sequence[Tensor]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
        """The nodes that lead from some tensors to others.

        Args:
            given: Tensors that the piece gets.
            wanted: Tensors that it makes.

        Returns:
            The model, and the inputs of the student that it reads as well.

        Raises:
            Refused: It needs something that is neither.
        """
        import onnx

        nodes, constants, inputs = self._needed({t.name for t in given}, [t.name for t in wanted])
        model = onnx.ModelProto()
        model.ir_version = self.model.ir_version
        model.opset_import.extend(self.model.opset_import)
        model.graph.name = self.model.graph.name
        model.graph.node.extend(self.model.graph.node[index] for index in nodes)
        model.graph.initializer.extend(self._outside(self._constants[name]) for name in constants)
        read = {name for index in nodes for name in self._read(index)}
        model.graph.input.extend(_value(tensor) for tensor in given if tensor.name in read)
        model.graph.input.extend(self._inputs[name] for name in inputs)
        model.graph.output.extend(self._outputs.get(tensor.name) or _value(tensor) for tensor in wanted)
        return model, inputs

    def _needed(self, given: Collection[str], wanted: Sequence[str]) -> tuple[list[int], list[str], tuple[str, ...]]:
        nodes: set[int] = set()
        constants: dict[str, None] = {}
        inputs: set[str] = set()
        stack = list(wanted)
        seen = set(given)
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in self._makers:
                index = self._makers[name]
                nodes.add(index)
                stack += self._read(index)
            elif name in self._constants:
                constants.setdefault(name)
            elif name in self._inputs:
                inputs.add(name)
            else:
                raise Refused(
                    f"{self.path.name}: nothing makes the tensor {name!r}", remedy="check it with onnx.checker"
                )
        order = [name for name in self._inputs if name in inputs]
        return sorted(nodes), sorted(constants), tuple(order)

    def _read(self, index: int) -> list[str]:
        node = self.model.graph.node[index]
        return [name for name in (*node.input, *captured(node)) if name]

    def _outside(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        """The constant with its bytes left in the whole file."""
        import onnx

        if len(tensor.raw_data) < _OUTSIDE:
            return tensor
        if tensor.name not in self._offsets:
            self._offsets[tensor.name] = self._find(tensor)
        at = self._offsets[tensor.name]
        if at < 0:
            return tensor
        outside = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        outside.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", self.path.name), ("offset", at), ("length", len(tensor.raw_data))):
            outside.external_data.add(key=key, value=str(value))
        return outside

    def _find(self, tensor: onnx.TensorProto) -> int:
        """Where the file holds these bytes; equal bytes elsewhere serve as well. -1: it does not."""
        return self._data.find(tensor.raw_data)


def _value(tensor: Tensor) -> onnx.ValueInfoProto:
    import numpy as np
    import onnx

    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return onnx.helper.make_tensor_value_info(tensor.name, kind, list(tensor.shape))

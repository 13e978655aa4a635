"""Attributes that say what is so without them.

before: Conv(group=1, pads=[0, 0], auto_pad=NOTSET, strides=[1], dilations=[1], kernel_shape=[3])    130 bytes
after:  Conv(kernel_shape=[3])                                                                        40 bytes
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

# Lists as long as there are axes, whose default the text of the operators' specification gives.
_WINDOWS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")
_AN_AXIS = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}


def drop_defaults(model: ir.Model) -> int:
    """Removes attributes that hold their operator's default, in place, and returns how many.

    Operators of other domains than ONNX's own have no specification here and stay as they are.
    """
    count = 0
    for node in model.graph.all_nodes():
        if node.domain in ("", "ai.onnx"):
            version = node.version or model.opset_imports[node.domain]
            for name in _idle(node, version):
                del node.attributes[name]
                count += 1
    return count


def _idle(node: ir.Node, version: int) -> list[str]:
    """Names of the node's attributes that hold the default of this version of the operator."""
    import onnx

    try:
        told = onnx.defs.get_schema(node.op_type, version, "").attributes
    except onnx.defs.SchemaError:
        return []
    found = []
    for name, attribute in node.attributes.items():
        value, default = attribute.value, told[name].default_value if name in told else None
        if node.op_type in _WINDOWS and name in _AN_AXIS:
            if all(entry == _AN_AXIS[name] for entry in value):
                found.append(name)
        elif default is not None and default.type == int(attribute.type):
            usual = onnx.helper.get_attribute_value(default)
            if value == (usual.decode() if isinstance(usual, bytes) else usual):
                found.append(name)
    return found

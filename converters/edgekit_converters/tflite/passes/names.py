"""Pass: names that a person knows.

    before: inputs `args_0`, output `output_0`; tensors `pkg.module.Net/torch.nn.modules.linear.Linear_fc;2`
    after:  inputs and outputs of every signature as in the student, tensors `fc/FULLY_CONNECTED`

Module paths stay (they carry `--keep-float` patterns and reports), class paths and folder names go. With more than one
signature the tensors of each are prefixed `NAME/`; the rest of the name is then equal for the same tensor of two
signatures, which is how calibration shares one scale between them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from edgekit_converters.tflite.flatbuffer import Model, is_constant, operators, schema, text
from edgekit_converters.tflite.weighted import WEIGHT_OPERAND

# `package.module.Class_attribute` or `Class_attribute`: the attribute is what the person wrote in the module.
_PART = re.compile(r"^(?:.*\.)?(?P<cls>[^._]+)_(?P<attribute>[^.]+)$")


def rename(model: Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Gives tensors short names and the signatures the student's names, in place.

    Args:
        model: As litert-torch wrote it: the subgraph's inputs and outputs stand in the student's order.
        inputs: Names of the student's inputs.
        outputs: Names of the student's outputs.
    """
    several = len(model.signatureDefs) > 1
    for signature in model.signatureDefs:
        subgraph = model.subgraphs[signature.subgraphIndex]
        prefix = f"{text(signature.signatureKey)}/" if several else ""
        _name_tensors(model, subgraph, prefix, inputs, outputs)
        signature.inputs = entries(inputs, subgraph.inputs)
        signature.outputs = entries(outputs, subgraph.outputs)
        subgraph.name = signature.signatureKey


def shorten(model: Model) -> None:
    """Leaves the names that something reads, in place; for the file.

        before: `t16/fc/FULLY_CONNECTED`, its constants `t16/fc/FULLY_CONNECTED.in1`; `t32/fc/FULLY_CONNECTED`, ...
        after:  `fc/FULLY_CONNECTED` and no name; `fc/FULLY_CONNECTED` and no name

    Names of computed tensors carry module paths for recipes, ranges and places to cut. Constants are found by the
    operators that read them. Tensors of two signatures that differ in nothing are then written once (`tables`).
    """
    signatures = [text(signature.signatureKey) for signature in model.signatureDefs or []]
    for subgraph in model.subgraphs:
        border = {int(index) for index in (*subgraph.inputs, *subgraph.outputs)}
        for index, tensor in enumerate(subgraph.tensors):
            kept = index in border or not is_constant(model, tensor)
            tensor.name = tensor_key(text(tensor.name), signatures).encode() if kept else b""


def tensor_key(name: str, signatures: Sequence[str]) -> str:
    """A tensor's name without its signature's prefix: equal for the same tensor of two signatures."""
    head, separator, rest = name.partition("/")
    return rest if separator and head in signatures else name


def module_path(*names: str) -> str:
    """`a.b.Net/a.c.Block_layer1/torch.nn.Linear_fc;3` -> `layer1/fc`.

    A fused operator carries the paths of all it was fused from: the deepest one is its own, of equals the last.
    """
    paths = [_attributes(path) for name in names for path in re.split(r";\d*;?", name) if path]
    deepest: list[str] = []
    for path in reversed(paths):
        if len(path) > len(deepest):
            deepest = path
    return "/".join(deepest)


def _attributes(path: str) -> list[str]:
    matches = (_PART.match(part) for part in path.split("/"))
    return [match["attribute"] for match in matches if match]


def entries(names: Sequence[str], indices: Sequence[int]) -> list[Any]:
    """Signature entries that give tensors (by index in the subgraph) their outward names."""
    maps = []
    for name, index in zip(names, indices, strict=True):
        entry = schema().TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), int(index)
        maps.append(entry)
    return maps


def _origin(model: Model, subgraph: Any, kind: str, operator: Any) -> list[str]:
    """Names that tell where an operator comes from: its output's, and its weights' where it has some."""
    own = text(subgraph.tensors[operator.outputs[0]].name)
    if kind not in WEIGHT_OPERAND:
        return [own.split(";;")[0]]
    constants = [
        text(subgraph.tensors[int(index)].name)
        for index in operator.inputs[1:]
        if int(index) >= 0 and is_constant(model, subgraph.tensors[int(index)])
    ]
    return [own, *constants]


def _name_tensors(model: Model, subgraph: Any, prefix: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    new: dict[int, str] = {}
    border = set(inputs) | set(outputs)
    for name, index in zip(outputs, subgraph.outputs, strict=True):
        new.setdefault(int(index), name)
    for name, index in zip(inputs, subgraph.inputs, strict=True):
        new[int(index)] = name
    counts: Counter[str] = Counter(border)
    for kind, operator in operators(model, subgraph):
        path = module_path(*_origin(model, subgraph, kind, operator))
        stem = f"{path}/{kind}" if path else kind
        counts[stem] += 1
        # An inner tensor may not be called like an input or output: a later tool would confuse them.
        unique = stem if counts[stem] == 1 else f"{stem}:{counts[stem]}"
        for position, index in enumerate(operator.outputs):
            new.setdefault(int(index), unique if position == 0 else f"{unique}.out{position}")
        for position, index in enumerate(operator.inputs):
            if int(index) >= 0:
                new.setdefault(int(index), f"{unique}.in{position}")
    for index, tensor in enumerate(subgraph.tensors):
        tensor.name = f"{prefix}{new.get(index, f'unused{index}')}".encode()

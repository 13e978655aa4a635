"""Pass: calls a scan's body once a step, in the place of the markers that `torch_passes.mark_scan` left.

before: STABLEHLO_COMPOSITE edgekit.scan.0 (c [..], xs [T, ..], others); the body as a signature edgekit.scan.0.0
after:  UNPACK(xs): T rows;  T times: c, y = IF(true, c, row, others) -> PACK [T, ..]
where both branches of IF are the body's subgraph, shared by all steps and all signatures of its shapes
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit_converters.tflite.flatbuffer import Model, dtype_of, operators, shape_of, text
from edgekit_converters.tflite.passes.build import Builder
from edgekit_converters.tflite.passes.step_recurrent import MARKER
from edgekit_converters.tflite.torch_passes.mark_scan import PREFIX, MarkedScan


def take_bodies(model: Model) -> None:
    """Bodies are no signatures of the student: takes them from the list in place; `step_scan` finds them by name."""
    kept = []
    for signature in model.signatureDefs:
        key = text(signature.signatureKey)
        if key.startswith(PREFIX):
            model.subgraphs[signature.subgraphIndex].name = key.encode()
        else:
            kept.append(signature)
    model.signatureDefs = kept


def step_scan(model: Model, scans: dict[str, MarkedScan]) -> int:
    """Replaces all markers in place and returns how many.

    Args:
        model: With the bodies among its subgraphs (`take_bodies`).
        scans: By name.
    """
    count = 0
    bodies: dict[int, list[int]] = {}
    for subgraph in list(model.subgraphs):
        made: list[Any] = []
        for kind, operator in operators(model, subgraph):
            name = text(operator.builtinOptions2.name) if kind == MARKER else ""
            if name in scans:
                made += _steps(model, subgraph, operator, scans[name], bodies)
                count += 1
            else:
                made.append(operator)
        subgraph.operators = made
    for number, distinct in bodies.items():  # IF answers wrongly where a subgraph names one tensor twice
        model.subgraphs[number].outputs = distinct
    return count


def _steps(model: Model, subgraph: Any, marker: Any, scan: MarkedScan, bodies: dict[int, list[int]]) -> list[Any]:
    """The operators of one marker; `bodies` learns which of a body's tensors are answered, each once."""
    build = Builder(model, subgraph)
    operands = [int(index) for index in marker.inputs]
    last = scan.carries + scan.sequences
    carries, sequences, others = operands[: scan.carries], operands[scan.carries : last], operands[last:]
    steps = shape_of(subgraph.tensors[sequences[0]])[0]
    rows = [
        build.operator(
            "UNPACK", [one], [shape_of(subgraph.tensors[one])[1:]] * steps, "UnpackOptions",
            dtypes=[dtype_of(subgraph.tensors[one])] * steps, axis=0, num=steps,
        )
        for one in sequences
    ]  # fmt: skip
    number = _body(
        model, scan.name, [shape_of(subgraph.tensors[i]) for i in (*carries, *(r[0] for r in rows), *others)]
    )
    inside = model.subgraphs[number]
    distinct = list(dict.fromkeys(map(int, inside.outputs)))
    places = [distinct.index(int(index)) for index in inside.outputs]
    tensors = [inside.tensors[index] for index in distinct]
    bodies.setdefault(number, distinct)
    always = build.constant(np.ones((), np.bool_))
    answers: list[list[int]] = [[] for _ in places[scan.carries :]]
    for step in range(steps):
        outputs = build.operator(
            "IF", [always, *carries, *(row[step] for row in rows), *others],
            [shape_of(tensor) for tensor in tensors], "IfOptions", dtypes=[dtype_of(tensor) for tensor in tensors],
            thenSubgraphIndex=number, elseSubgraphIndex=number,
        )  # fmt: skip
        outputs = [outputs[place] for place in places]
        carries = outputs[: scan.carries]
        for answer, output in zip(answers, outputs[scan.carries :], strict=True):
            answer.append(output)
    by_place = dict(zip(scan.used, map(int, marker.outputs), strict=True))
    for place, own in enumerate(carries):
        if place in by_place:
            shape, dtype = shape_of(tensors[places[place]]), dtype_of(tensors[places[place]])
            sizes = build.constant(np.array(shape, np.int32))
            build.operator("RESHAPE", [own, sizes], [shape], "ReshapeOptions", dtypes=[dtype], newShape=list(shape))
            build.operators[-1].outputs = [by_place[place]]
    for place, parts in enumerate(answers, start=scan.carries):
        if place in by_place:
            row = tensors[places[place]]
            build.operator(
                "PACK", parts, [(steps, *shape_of(row))], "PackOptions", dtypes=[dtype_of(row)],
                axis=0, valuesCount=steps,
            )  # fmt: skip
            build.operators[-1].outputs = [by_place[place]]
    return build.operators


def _body(model: Model, name: str, shapes: list[tuple[int, ...]]) -> int:
    """Index of the subgraph of a body that takes these shapes."""
    for number, subgraph in enumerate(model.subgraphs):
        if text(subgraph.name).startswith(f"{name}.") and shapes == [
            shape_of(subgraph.tensors[int(index)]) for index in subgraph.inputs
        ]:
            return number
    raise ValueError(f"{name} was lowered for other shapes than {shapes}")

"""Writes the pieces of a TFLite graph: one file, one signature a piece and rung, every weight once.

graphs/tflite.int8.tflite          the whole graph: signatures t16, t32
graphs/tflite.int8.pieces.tflite   seg0.t16, seg0.t32, seg1.t16, …, exit.early.t16: subgraphs that share buffers
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import msgspec

from edgekit_converters.cut.pieces import Pieces, Plan, Plans
from edgekit_converters.cut.tflite_flow import tensor_names
from edgekit_converters.staging import Staging
from edgekit_converters.tflite.flatbuffer import Model, is_constant, main_subgraphs, operators, read, schema, serialize
from edgekit_converters.tflite.passes.compact import compact
from edgekit_converters.tflite.passes.names import entries
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Graph, Signature, Tensor
from edgekit_runtime.paths import sha256


class TflitePieces:
    """Cuts one staged `.tflite` file."""

    def __init__(self, stage: Staging, full: Graph) -> None:
        self._stage, self._full = stage, full

    def write(self, plans: Plans) -> Pieces:
        """Writes the file with every piece and describes each."""
        model = read(self._stage.root / self._full.path)
        rungs = main_subgraphs(model)
        signatures = self._full.signatures or (Signature(name="", sizes={}),)
        made: list[Graph] = []
        subgraphs: list[Any] = []
        definitions: list[Any] = []
        for plan in (*plans.segments, *plans.heads):
            short = plan.id.removeprefix(f"{self._full.id}.")
            own: list[Signature] = []
            inputs: tuple[Tensor, ...] = ()
            for number, (rung, signature) in enumerate(zip(rungs, signatures, strict=True)):
                key = f"{short}.{signature.name}" if signature.name else short
                subgraph, given = cut(model, rung, number, plan)
                definition = schema().SignatureDefT()
                definition.signatureKey, definition.subgraphIndex = key.encode(), len(model.subgraphs) + len(subgraphs)
                definition.inputs = entries(given, subgraph.inputs)
                definition.outputs = entries([tensor.name for tensor in plan.wanted], subgraph.outputs)
                subgraph.name = key.encode()
                subgraphs.append(subgraph)
                definitions.append(definition)
                own.append(Signature(name=key, sizes=signature.sizes))
                inputs = self._inputs(plan, given)
            made.append(self._graph(plan, tuple(own), inputs))
        model.subgraphs += subgraphs
        model.signatureDefs = definitions
        compact(model)
        path = self._path()
        path.write_bytes(serialize(model))
        size, digest = path.stat().st_size, sha256(path)
        graphs = tuple(msgspec.structs.replace(graph, bytes=size, sha256=digest) for graph in made)
        return Pieces(graphs, plans.split_points, plans.exits)

    def remove(self, pieces: Pieces) -> None:
        """Takes the file away again."""
        self._path().unlink()

    def _path(self) -> Any:
        return self._stage.root / "graphs" / f"{self._full.id}.pieces.tflite"

    def _inputs(self, plan: Plan, given: Sequence[str]) -> tuple[Tensor, ...]:
        known = {tensor.name: tensor for tensor in (*self._full.inputs, *plan.given)}
        return tuple(known[name] for name in given)

    def _graph(self, plan: Plan, signatures: tuple[Signature, ...], inputs: tuple[Tensor, ...]) -> Graph:
        return Graph(
            id=plan.id,
            format="tflite",
            precision=self._full.precision,
            variant=self._full.variant,
            targets=self._full.targets,
            role=plan.role,
            path=self._path().relative_to(self._stage.root).as_posix(),
            bytes=0,
            sha256="",
            inputs=inputs,
            outputs=plan.wanted,
            signatures=signatures,
            engine=self._full.engine,
            min_engine_version=self._full.min_engine_version,
            macs=plan.macs,
            of=self._full.id,
        )


def cut(model: Model, rung: Any, number: int, plan: Plan) -> tuple[Any, list[str]]:
    """A subgraph with the operators that lead from some tensors of a rung to others.

    Args:
        model: The model.
        rung: Its subgraph.
        number: The rung's number.
        plan: Which tensors it gets and makes.

    Returns:
        The subgraph (its tensors are copies, their buffers are shared), and the names of its inputs in order. Variables
        (the state of an LSTM, afresh at every run) go along with the operators that read them.

    Raises:
        Refused: It needs a tensor that nothing makes.
    """
    names = tensor_names(model, rung, number)
    index_of = {name: index for index, name in names.items()}
    makers = {int(index): op for _, op in operators(model, rung) for index in op.outputs}
    given = {index_of[tensor.name] for tensor in plan.given}
    borders = {int(index) for index in rung.inputs}
    wanted = [index_of[tensor.name] for tensor in plan.wanted]
    needed: set[int] = set()
    read: set[int] = set()
    stack = list(wanted)
    while stack:
        index = stack.pop()
        if index in given or index in borders:
            read.add(index)
        elif index in makers and id(makers[index]) not in needed:
            needed.add(id(makers[index]))
            stack += [int(i) for i in makers[index].inputs if int(i) >= 0]
        elif index not in makers and not is_constant(model, rung.tensors[index]) and not rung.tensors[index].isVariable:
            raise Refused(f"nothing makes tensor {index} of the TFLite graph", remedy="convert the student again")
    made = schema().SubGraphT()
    made.tensors = [copy.copy(tensor) for tensor in rung.tensors]
    made.operators = [copy.deepcopy(operator) for _, operator in operators(model, rung) if id(operator) in needed]
    order = [i for i in (*(index_of[t.name] for t in plan.given), *map(int, rung.inputs)) if i in read]
    made.inputs, made.outputs = list(dict.fromkeys(order)), wanted
    return made, [names[index] for index in made.inputs]

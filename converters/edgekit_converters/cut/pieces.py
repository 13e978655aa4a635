"""What a cut graph consists of: segments, heads of exits, and their entries in the manifest. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec

from edgekit_converters.cut.branches import Branch
from edgekit_converters.cut.flow import Place
from edgekit_converters.cut.onnx_flow import Seen
from edgekit_runtime.manifest import Exit, Graph, Manifest, Role, SplitPoint, Tensor, WireTensor


@dataclasses.dataclass(frozen=True)
class Plan:
    """One piece to be cut out.

    Attributes:
        id: Of its graph.
        role: `segment` or `exit`.
        given: Tensors it gets from the piece before.
        wanted: Tensors it makes.
        macs: Multiply-accumulates of one sample.
    """

    id: str
    role: Role
    given: tuple[Tensor, ...]
    wanted: tuple[Tensor, ...]
    macs: int


@dataclasses.dataclass(frozen=True)
class Plans:
    """All pieces of one full graph: the segments in order, then the heads of the exits."""

    segments: tuple[Plan, ...]
    heads: tuple[Plan, ...]
    split_points: tuple[SplitPoint, ...]
    exits: tuple[Exit, ...]


@dataclasses.dataclass(frozen=True)
class Pieces:
    """The pieces as files of the bundle."""

    graphs: tuple[Graph, ...]
    split_points: tuple[SplitPoint, ...]
    exits: tuple[Exit, ...]

    def listed(self, manifest: Manifest) -> Manifest:
        """The manifest with these pieces. Exits of the whole student give way to those of its chains."""
        return msgspec.structs.replace(
            manifest,
            graphs=(*manifest.graphs, *self.graphs),
            split_points=(*manifest.split_points, *self.split_points),
            exits=(*(item for item in manifest.exits if item.of), *self.exits) if self.exits else manifest.exits,
        )


def describe(
    graph: Graph, seen: Seen, chosen: Sequence[Place], branches: Sequence[Branch], exits: Sequence[str]
) -> Plans:
    """Plans the pieces of a full graph.

    Args:
        graph: The full graph.
        seen: Its tensors.
        chosen: Places in order of depth, each wholly behind the one before.
        branches: The early exits.
        exits: Outputs in order of depth, the full answer last; empty without exits.
    """
    wires = [tuple(seen.tensors[name] for name in place.tensors) for place in chosen]
    answers = tuple(t for t in graph.outputs if not exits or t.name == exits[-1])
    total = chosen[-1].macs_before + chosen[-1].macs_after
    depths = [0, *(place.macs_before for place in chosen), total]
    segments = []
    for number in range(len(chosen) + 1):
        given = wires[number - 1] if number else ()
        passed = {tensor.name for tensor in given}
        wanted = tuple(t for t in wires[number] if t.name not in passed) if number < len(chosen) else answers
        name = f"{graph.id}.seg{number}"
        segments.append(Plan(name, "segment", given, wanted, depths[number + 1] - depths[number]))
    ids = [segment.id for segment in segments]
    points = tuple(
        SplitPoint(
            id=f"{graph.id}.{place.name}",
            tensors=tuple(map(_wire, wire)),
            tail_inputs=place.tail_inputs,
            bytes=place.bytes,
            before=tuple(ids[: number + 1]),
            after=tuple(ids[number + 1 :]),
            of=graph.id,
            place=place.name,
            macs_before=place.macs_before,
            macs_after=place.macs_after,
        )
        for number, (place, wire) in enumerate(zip(chosen, wires, strict=True))
    )
    heads, ends = _exits(graph, seen, points, branches, exits)
    return Plans(tuple(segments), heads, points, ends)


def _exits(
    graph: Graph, seen: Seen, points: Sequence[SplitPoint], branches: Sequence[Branch], exits: Sequence[str]
) -> tuple[tuple[Plan, ...], tuple[Exit, ...]]:
    by_place = {point.place: point for point in points}
    output = {tensor.name: tensor for tensor in graph.outputs}
    heads, ends = [], []
    for branch in branches:
        point = by_place.get(branch.place.name)
        if point is None:  # its place was given up: the exit goes with it
            continue
        head = ""
        if branch.output not in branch.place.tensors:  # else the answer itself crosses: nothing is left to compute
            head = f"{graph.id}.exit.{branch.output}"
            given = tuple(seen.tensors[name] for name in branch.place.tensors)
            heads.append(Plan(head, "exit", given, (output[branch.output],), branch.macs))
        ends.append(
            Exit(id=f"{graph.id}.{branch.output}", output=branch.output, after=point.id, of=graph.id, graph=head)
        )
    if ends:
        ends.append(Exit(id=f"{graph.id}.{exits[-1]}", output=exits[-1], of=graph.id))
    return tuple(heads), tuple(ends)


def _wire(tensor: Tensor) -> WireTensor:
    codes = tensor.quantization
    return WireTensor(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tensor.shape,
        scale=codes.scale if codes else None,
        zero_point=codes.zero_point if codes else None,
    )

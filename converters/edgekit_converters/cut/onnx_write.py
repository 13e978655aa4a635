"""Writes the pieces of an ONNX graph beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from edgekit_converters.cut.onnx_layout import pictures, turn, turned_plan, turned_point
from edgekit_converters.cut.onnx_segments import Whole
from edgekit_converters.cut.pieces import Pieces, Plan, Plans
from edgekit_converters.staging import Staging
from edgekit_runtime.manifest import Graph
from edgekit_runtime.paths import sha256


@dataclasses.dataclass
class OnnxPieces:
    """Cuts one staged `.onnx` file. The pieces lie beside it and point to its weights."""

    stage: Staging
    full: Graph

    def __post_init__(self) -> None:
        self._whole = Whole(self.stage.root / self.full.path)

    def write(self, plans: Plans) -> Pieces:
        """Writes every piece and describes it."""
        names = pictures(self._whole.model, plans)
        graphs = tuple(self._piece(plan, names) for plan in (*plans.segments, *plans.heads))
        return Pieces(graphs, tuple(turned_point(point, names) for point in plans.split_points), plans.exits)

    def remove(self, pieces: Pieces) -> None:
        """Takes the files away again."""
        for graph in pieces.graphs:
            (self.stage.root / graph.path).unlink()

    def _piece(self, plan: Plan, names: Mapping[str, str]) -> Graph:
        model, inputs = self._whole.piece(plan.given, plan.wanted)
        turn(model, names)
        plan = turned_plan(plan, names)
        path = self.stage.root / "graphs" / f"{plan.id}.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        student = {tensor.name: tensor for tensor in self.full.inputs}
        read = {value.name for value in model.graph.input}
        return Graph(
            id=plan.id,
            format="onnx",
            precision=self.full.precision,
            variant=self.full.variant,
            targets=self.full.targets,
            role=plan.role,
            path=path.relative_to(self.stage.root).as_posix(),
            bytes=path.stat().st_size,
            sha256=sha256(path),
            inputs=(*(t for t in plan.given if t.name in read), *(student[name] for name in inputs)),
            outputs=plan.wanted,
            engine=self.full.engine,
            min_engine_version=self.full.min_engine_version,
            macs=plan.macs,
            of=self.full.id,
            weights=self.full.path,
        )

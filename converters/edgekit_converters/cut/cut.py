"""Cuts the graphs of a staged bundle.

full graph ─ see ─► flow ─ survey ─► places ─ choose ─► series ─ write ─► segments, exit heads
                                                   ▲                            │ prove, bit by bit
                                                   └──── without those that differ
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.cut import probes, tflite_flow
from edgekit_converters.cut.choose import NONE, Map, choose, few, replaced, survey
from edgekit_converters.cut.counted import counted
from edgekit_converters.cut.crossings import represent
from edgekit_converters.cut.flow import Place
from edgekit_converters.cut.onnx_flow import Seen, see
from edgekit_converters.cut.onnx_write import OnnxPieces
from edgekit_converters.cut.padded import at_rung_size, cut_to_size
from edgekit_converters.cut.pieces import describe
from edgekit_converters.cut.prove import differing
from edgekit_converters.cut.tflite_write import TflitePieces
from edgekit_converters.draft import Progress
from edgekit_converters.staging import Staging
from edgekit_converters.tflite import flatbuffer
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import EdgekitError, Refused, UsageError
from edgekit_runtime.manifest import Graph, Manifest
from edgekit_runtime.segments import answers


@dataclasses.dataclass(frozen=True)
class Cutting:
    """What cutting works with.

    Attributes:
        stage: The bundle in the making.
        student: What was captured.
        samples: Real inputs, one sample each.
        calibration: What calibrated the graphs, one sample each: on these it is chosen which places stand for others.
        golden: Golden inputs.
        wanted: `auto`, `auto:5`, `all`, `none` or names of places.
        exits: Outputs in order of depth, the full answer last.
        named_by: The fp32 ONNX graph, whose steps carry the names of modules; it is looked into once where it is the
            staged file itself. None where there is none.
        progress: Called with a line a step.
        stand_ins: For each place the one that stands for it, once a graph has told; empty before.
    """

    stage: Staging
    student: Captured
    samples: Sequence[Arrays]
    calibration: Sequence[Arrays]
    golden: Arrays
    wanted: tuple[str, ...]
    exits: tuple[str, ...]
    named_by: Path | None
    progress: Progress
    stand_ins: dict[str, str] = dataclasses.field(default_factory=dict)


def cut_all(work: Cutting, manifest: Manifest) -> Manifest:
    """Cuts every full graph of a staged bundle and writes the pieces; returns the manifest with them listed.

    Raises:
        UsageError: A place that does not exist or cannot be cut, exits that are not in order of depth.
    """
    whole = any(graph.role == "full" for graph in manifest.graphs)
    if not whole or (work.wanted == (NONE,) and not work.exits):
        return manifest
    first = _naming(work)
    known = (*first[1].kept, *first[1].rest) if first else ()
    for graph in manifest.graphs:
        if graph.role != "full":
            continue
        work.progress(f"cutting {graph.id}")
        path = work.stage.root / graph.path
        try:
            if first and path == work.named_by:
                seen, surveyed = first
            else:
                seen = _see_onnx(work, path) if graph.format == "onnx" else _see_tflite(work, graph)
                surveyed = survey(seen.flow, work.exits, known)
            manifest = _cut(work, manifest, graph, seen, surveyed)
        except (Refused, UsageError) as error:
            # What was asked was found to make sense on the graph that names the places: another graph may lack it.
            if isinstance(error, UsageError) and not known:
                raise
            _stays_whole(work, graph, error)
            continue
        known = known or (*surveyed.kept, *surveyed.rest)
    return manifest


def _stays_whole(work: Cutting, graph: Graph, error: EdgekitError) -> None:
    """Leaves the reason where the places would stand, and no piece."""
    work.progress(f"{graph.id} stays whole: {error.message}")
    for pattern in ("seg*", "exit.*", "pieces.*"):
        for path in (work.stage.root / "graphs").glob(f"{graph.id}.{pattern}"):
            path.unlink()
    _write_places(work, graph, ({"fate": f"stays whole: {error.told}"},))


def _write_places(work: Cutting, graph: Graph, rows: Sequence[dict[str, object]]) -> None:
    work.stage.write(f"assets/cuts/{graph.id}.json", msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")


def _naming(work: Cutting) -> tuple[Seen, Map] | None:
    """The fp32 ONNX graph looked into, after whose places those of all others are named; None where there is none.

    Raises:
        UsageError: What was asked for does not exist there.
    """
    if work.named_by is None:
        return None
    try:
        seen = _see_onnx(work, work.named_by)
        surveyed = survey(seen.flow, work.exits)
    except Refused:  # told where the graph itself is cut
        return None
    choose(surveyed, work.wanted)
    return seen, surveyed


def _see_tflite(work: Cutting, graph: Graph) -> Seen:
    sizes = probes.sizes_of(work.student.inputs, work.samples[0])
    model = flatbuffer.read(work.stage.root / graph.path)
    return tflite_flow.see(model, graph.signatures, work.student.axes, sizes)


def _see_onnx(work: Cutting, path: Path) -> Seen:
    student, sample = work.student, work.samples[0]
    batch = _batch(student)
    sizes = probes.looked_at(student.axes, sample, student.inputs)
    return see(path, [probes.at(student.inputs, work.samples, one, batch) for one in sizes], student.axes, sizes)


def _batch(student: Captured) -> str:
    return next((axis.symbol for axis in student.axes if axis.role == "batch"), "")


def _cut(work: Cutting, manifest: Manifest, graph: Graph, seen: Seen, surveyed: Map) -> Manifest:
    """Cuts one graph; places that do not answer bit by bit as the whole are given up and the rest is cut again.

    So are those that another one stands for: what crosses at all of them is known only once the pieces run. A place
    where a tensor was cut to the request's size is first tried again with that tensor as the rung has it.
    """
    student = work.student
    requests = [
        probes.at(student.inputs, work.samples, sizes, _batch(student))
        for sizes in probes.proven(student.axes, work.samples[0], student.inputs)
    ]
    chosen = choose(surveyed, work.wanted)
    lost = replaced(chosen, surveyed, work.stand_ins)
    chosen = tuple(place for place in chosen if place.name not in lost)
    writer = OnnxPieces(work.stage, graph) if graph.format == "onnx" else TflitePieces(work.stage, graph)
    while chosen:
        pieces = writer.write(describe(graph, seen, chosen, surveyed.branches, work.exits))
        listed = pieces.listed(manifest)
        work.stage.write_manifest(msgspec.structs.replace(listed, files=work.stage.files()))
        with open_bundle(work.stage.root) as bundle:
            wrong = differing(bundle, graph, pieces.split_points, requests)
            padded = cut_to_size(graph, [p for p in pieces.split_points if p.id in wrong], student.axes)
            k = few(work.wanted)
            if not wrong and k and not work.stand_ins:
                work.stand_ins.update(represent(bundle, graph, work.calibration, k))
                named = replaced(chosen, surveyed, work.stand_ins)
                wrong = {point.id: named[point.place] for point in pieces.split_points if point.place in named}
            if not wrong:
                golden = answers(bundle, graph, work.golden, graph.engine)
                listed = counted(work.stage.root, listed, graph, work.golden, golden)
                break
        seen = at_rung_size(seen, frozenset().union(*padded.values()), student.axes)
        gone = wrong.keys() - padded.keys()
        lost |= {point.place: wrong[point.id] for point in pieces.split_points if point.id in gone}
        chosen = tuple(place for place in chosen if place.name not in lost)
        writer.remove(pieces)
    else:
        golden, listed = {}, manifest
    for name, arrays in golden.items():
        work.stage.write_arrays(f"golden/{name}.npz", arrays)
    _write_places(work, graph, places_table(surveyed, chosen, lost))
    return listed


def places_table(surveyed: Map, chosen: Sequence[Place], lost: dict[str, str]) -> tuple[dict[str, object], ...]:
    """Every place where one tensor crosses, and every one that was chosen or cannot be used, with its fate."""
    used = {place.tensors for place in chosen}
    rows: list[dict[str, object]] = []
    for place in sorted((*surveyed.kept, *surveyed.rest), key=lambda p: (p.macs_before, len(p.steps_before))):
        if len(place.tensors) > 1 and not place.illegal and place.tensors not in used:
            continue
        fate = "cut" if place.tensors in used else lost.get(place.name) or place.reason or "not asked for"
        rows.append(
            {
                "place": place.name,
                "ends": place.ends,
                "tensors": place.tensors,
                "tail_inputs": place.tail_inputs,
                "bytes": place.bytes,
                "macs_before": place.macs_before,
                "macs_after": place.macs_after,
                "fate": fate,
            }
        )
    return tuple(rows)

"""A bundle cut down to some of its graphs: what one kind of device needs, and nothing else.

kept      the graphs named, their pieces (segments, exits), encoders of their format, golden answers, recipes, assets
left out  every other graph with what belongs to it alone; what the gate said of it stays, for the record
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

import msgspec

from edgekit_converters.staging import staging
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.errors import UsageError
from edgekit_runtime.manifest import Graph, Manifest


def keep_graphs(
    bundle: str | os.PathLike[str], graphs: Collection[str], out: str | os.PathLike[str], *, force: bool = False
) -> Bundle:
    """Writes a bundle that holds only these graphs and their pieces. Its id is new, its files are the same bytes.

    Args:
        bundle: The whole bundle.
        graphs: Ids of graphs that answer requests by themselves.
        out: Where the new bundle goes; ends with `.edge`.
        force: Replace what is there.

    Raises:
        UsageError: The bundle has no such graph.
        Refused: The bundle cannot be read.
    """
    with open_bundle(bundle) as source:
        source.check_files()
        manifest = slimmed(source.manifest, graphs)
        dropped = [graph for graph in source.manifest.graphs if graph not in manifest.graphs]
        gone = files_of(source.manifest, dropped) - files_of(source.manifest, manifest.graphs)
        with staging(Path(out), force=force) as stage:
            for name in sorted(set(source.manifest.files) - gone):
                target = stage.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source.root / name, target)
            stage.write_manifest(msgspec.structs.replace(manifest, files=stage.files()))
            return open_bundle(stage.publish())


def slimmed(manifest: Manifest, graphs: Collection[str]) -> Manifest:
    """The manifest with these graphs and what refers to them alone; `files` is left as it was. Pure.

    Raises:
        UsageError: The bundle has no such graph.
    """
    missing = sorted(set(graphs) - {graph.id for graph in manifest.graphs})
    if missing:
        known = ", ".join(graph.id for graph in manifest.graphs)
        raise UsageError(f"the bundle has no graph {missing[0]!r}", remedy=f"it has: {known}")
    named = [graph for graph in manifest.graphs if graph.id in graphs]
    encoders = {(graph.format, graph.precision) for graph in named if graph.role == "decode_step"}
    stays = {graph.id for graph in named}
    stays |= {graph.id for graph in manifest.graphs if graph.of in stays}
    stays |= {
        graph.id for graph in manifest.graphs if graph.role == "encoder" and (graph.format, graph.precision) in encoders
    }
    points = tuple(point for point in manifest.split_points if {*point.before, *point.after} <= stays)
    places = {point.id for point in points}
    return msgspec.structs.replace(
        manifest,
        graphs=tuple(graph for graph in manifest.graphs if graph.id in stays),
        split_points=points,
        exits=tuple(exit for exit in manifest.exits if not exit.after or exit.after in places),
        operating_points=tuple(point for point in manifest.operating_points if set(point.graph_chain) <= stays),
        actions=tuple(action for action in manifest.actions if set(action.graphs) <= stays),
        parity=tuple(parity for parity in manifest.parity if parity.graph in stays),
    )


def files_of(manifest: Manifest, graphs: Collection[Graph]) -> set[str]:
    """Files of the bundle that belong to these graphs: their own, their weights, recipes and golden answers."""
    found: set[str] = set()
    for graph in graphs:
        found |= {graph.path, *graph.data, graph.recipe, graph.weights}
        found |= {f"golden/{graph.id}.npz", f"assets/cuts/{graph.id}.json"}
    return found & set(manifest.files)

"""Golden inputs on this machine: the same graph must give here what it gave where it was made.

Kernels differ between machines (order of additions, instruction sets), so equality has a tolerance: fp32 within 1e-3 of
the output's range; int8 by direction (cosine at least 0.999), since one rounding step of a deep layer moves an output
by more than that without changing the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from edgekit_runtime import engines
from edgekit_runtime import open as open_session
from edgekit_runtime.bundle import Arrays, Bundle, open_bundle
from edgekit_runtime.errors import BundleInvalid, Refused
from edgekit_runtime.manifest import Graph
from edgekit_runtime.segments import answers
from edgekit_runtime.selection import ANSWERING

FP32_TOLERANCE = 1e-3
INT8_COSINE = 0.999


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        name: Files, or a graph or piece on an engine.
        ok: It is as it was where the bundle was made.
        detail: Figures, or the reason.
        checked: False: no engine of this machine runs it, so that nothing is known of it.
    """

    name: str
    ok: bool
    detail: str
    checked: bool = True


def verify_bundle(path: object) -> list[Check]:
    """Checks files and golden answers of every graph on every engine here.

    Raises:
        BundleInvalid: The bundle cannot even be opened (a damaged manifest, a path that leaves the folder).
    """
    with open_bundle(path) as bundle:  # type: ignore[arg-type]
        try:
            names = bundle.check_files()
            checks = [Check("files", True, f"{len(names)} files with the sha256 the manifest lists")]
        except BundleInvalid as error:
            # What the files say is not to be trusted any more: nothing is run.
            return [Check("files", False, error.told)]
        inputs, golden = bundle.golden_inputs(), bundle.golden()
        for graph in bundle.manifest.graphs:
            if graph.role in (*ANSWERING, "encoder"):
                checks += _graph_checks(bundle, graph, inputs, golden.get(graph.id, {}))
            if graph.role == "full":
                checks += _piece_checks(bundle, graph, inputs, golden)
    return checks


def failures(checks: Sequence[Check]) -> list[Check]:
    """The checks that speak against a bundle here.

    A format without an engine is no failure on a device that has another one; where nothing could be run, all of it is.
    """
    ran = any(check.checked for check in checks if check.name != "files")
    return [check for check in checks if not check.ok and (check.checked or not ran)]


def _piece_checks(bundle: Bundle, graph: Graph, inputs: Arrays, golden: dict[str, Arrays]) -> list[Check]:
    """Every segment and exit head of a full graph, each on what the segment before it gives here."""
    found = []
    for name in engines.for_format(graph.format):
        try:
            pieces = answers(bundle, graph, inputs, name)
        except Refused as error:
            found.append(Check(f"pieces of {graph.id} on {name}", False, error.told))
            continue
        for piece, answer in pieces.items():
            ok, detail = compare_golden(graph.precision, golden.get(piece, {}), answer)
            ok, detail = (ok, detail) if piece in golden else (False, "the bundle carries no golden answer for it")
            found.append(Check(f"{piece} on {name}", ok, detail))
    return found


def _graph_checks(bundle: Bundle, graph: Graph, inputs: Arrays, golden: Arrays) -> list[Check]:
    names = engines.for_format(graph.format)
    if not names:
        return [
            Check(graph.id, False, f"no engine for {graph.format}: {engines.pip_lines({graph.format})}", checked=False)
        ]
    if not golden:
        return [Check(graph.id, False, "the bundle carries no golden answer for it")]
    found = []
    for name in names:
        try:
            with open_session(bundle.root, graph=graph.id, engine=name, threads=1) as session:
                answer = session.run(inputs)
        except Refused as error:
            found.append(Check(f"{graph.id} on {name}", False, error.told))
            continue
        ok, detail = compare_golden(graph.precision, golden, answer)
        found.append(Check(f"{graph.id} on {name}", ok, detail))
    return found


def compare_golden(precision: str, golden: Arrays, answer: Arrays) -> tuple[bool, str]:
    """Whether an answer is the golden one within the tolerance of its precision, and the worst figure."""
    worst_error, worst_cosine = 0.0, 1.0
    for name, want in golden.items():
        got = answer.get(name)
        if got is None or got.shape != want.shape or not np.isfinite(got).all():
            return False, f"output {name}: {'missing' if got is None else f'shape {got.shape} or NaN'}"
        a, b = want.ravel().astype(np.float64), got.ravel().astype(np.float64)
        span = float(np.ptp(a)) or float(np.abs(a).max()) or 1.0
        worst_error = max(worst_error, float(np.abs(a - b).max()) / span)
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        worst_cosine = min(worst_cosine, float(a @ b) / norm if norm else float(np.array_equal(a, b)))
    ok = worst_error <= FP32_TOLERANCE if precision == "fp32" else worst_cosine >= INT8_COSINE
    return ok, f"error {worst_error:.1e} of range, cosine {worst_cosine:.6f}"

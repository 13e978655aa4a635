"""The work behind a row of the matrix, one step a process: `python -m benchmarks.rows STEP NAME FOLDER [trained]`.

    train     where there is a recipe: once, kept for the next run
    convert   edgekit.convert, then what "works" asks for: parity, sizes, batch, padding
    stock     the tools underneath with their defaults, files kept for timing
    speed     everything above in alternation

Each step writes FOLDER/NAME.STEP.json. A step that fails or runs out of time costs its own columns only.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

import edgekit
import edgekit_runtime as er
from benchmarks import held, rivals
from benchmarks.alternate import alternate, ratio
from benchmarks.cells import FORMATS, Cell, Held, Quality, Slice, Speed
from benchmarks.material import Arrays, Material, inputs_at, material, recipe_of, sizes_of, timed_sizes
from benchmarks.stock import tell_attempt
from edgekit.students import registry, sampling, train
from edgekit_converters.capture import capture
from edgekit_converters.capture.axes import parse_dynamic
from edgekit_converters.data import load_samples
from edgekit_converters.stock import Attempt, attempts
from edgekit_converters.verify.metrics import cosine
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.manifest import Graph
from edgekit_runtime.selection import ANSWERING

TIMED_S = 8.0


def train_step(name: str, folder: Path, trained: bool) -> dict[str, object]:
    """Trains by the student's recipe, once: another run of the matrix does not change the weights."""
    place = folder / f"{name}.material"
    recipe = recipe_of(registry.get(name))
    if trained and recipe is not None and not (place / "eval.npz").is_file():
        train.train(recipe, place, progress=lambda line: print(line, file=sys.stderr, flush=True))
    return {}


def convert_step(name: str, folder: Path, trained: bool) -> dict[str, object]:
    start = time.monotonic()
    made = material(name, folder, trained)
    student = made.student
    began = time.monotonic()
    bundle = edgekit.convert(
        made.module,
        out=folder / f"{name}.edge",
        calibration=made.calibration,
        eval=made.evaluation,
        dynamic=student.dynamic(),
        exits=student.exits,
        states=tuple(f"{before}={after}" for before, after in student.states),
        example=inputs_at(student, timed_sizes(student), 0),
        name=name,
        force=True,
        **made.judged_by,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    seconds = time.monotonic() - began
    cells = {kind: _cell(bundle, made, kind) for kind in FORMATS}
    seen = next((cell.quality for cell in cells.values() if cell.quality is not None), None)
    own = _held(made, bundle, seen.metric) if seen is not None and seen.labels else None
    whole = time.monotonic() - start
    return {"trained": made.trained, "seconds": seconds, "all_seconds": whole, "cells": cells, "held": own}


def _held(made: Material, bundle: er.Bundle, metric: str) -> Held | None:
    example = inputs_at(made.student, timed_sizes(made.student), 0)
    samples = load_samples(made.evaluation, role="evaluation", example=example)
    together = any(axis.role == "batch" for axis in made.student.axes)
    return held.held(made.module, samples, metric, _judged(bundle), together=together)  # type: ignore[arg-type]


def _cell(bundle: er.Bundle, made: Material, kind: str) -> Cell:
    graphs = {graph.precision: graph for graph in _answering(bundle) if graph.format == kind}
    reasons = {r.precision: r.reason for r in bundle.manifest.refused if r.format == kind}
    if not graphs:
        return Cell(refused=reasons.get("all") or "; ".join(reasons.values()))
    fp32, int8 = graphs.get("fp32"), graphs.get("int8")
    shipped = int8 or fp32
    assert shipped is not None
    errors = [p.max_error_fraction for p in bundle.manifest.parity if fp32 is not None and p.graph == fp32.id]
    seen, failures, worst = {}, [], max(errors, default=0.0)
    for graph in filter(None, (fp32, int8)):
        with er.open(bundle.root, graph=graph.id, threads=1) as session:
            ran, wrong, error = _sizes(session, made)
            batch, padding = _invariance(session, made.student)
        failures += wrong
        seen = ran
        worst = max(worst, error) if graph is fp32 else worst
    quality = _quality(bundle, int8) if int8 is not None else None
    given = _given_back(bundle, int8)
    return Cell(
        int8_refused=reasons.get("int8", ""),
        fp32_error=worst,
        quality=quality,
        slices=_slices(bundle, int8),
        weights=shipped.int8_weight_bytes_fraction,
        macs=shipped.executed_int8_macs_fraction,
        size=shipped.bytes / fp32.bytes if fp32 is not None else 1.0,
        batch=batch,
        padding=padding,
        sizes=seen,
        failures=failures,
        back_for_quality=len(given["quality"]),
        back_for_speed=len(given["speed"]),
        back_for_speed_bytes=_share(bundle, int8, given["speed"]),
        cuts=sorted({point.place for point in bundle.manifest.split_points if point.of == shipped.id}),
        why=shipped.ships_because,
    )


def _answering(bundle: er.Bundle) -> list[Graph]:
    """Graphs that answer as the student does, in their usual numeric form."""
    return [graph for graph in bundle.manifest.graphs if graph.role in ANSWERING and not graph.variant]


def _judged(bundle: er.Bundle) -> str:
    """The output that the gate judges."""
    return bundle.manifest.exits[-1].output if bundle.manifest.exits else bundle.manifest.outputs[0].name


def _slices(bundle: er.Bundle, graph: Graph | None) -> list[Slice]:
    return [
        Slice(q.slice, q.reference, q.value, q.drop, q.interval_95, q.n, q.gate)
        for q in bundle.manifest.quality
        if graph is not None and q.graph == graph.id and q.slice != "all"
    ]


def _quality(bundle: er.Bundle, graph: Graph) -> Quality:
    judged = _judged(bundle)
    gate = next(q for q in bundle.manifest.quality if q.graph == graph.id and q.slice == "all")
    parities = [p for p in bundle.manifest.parity if p.graph == graph.id]
    near = next((p for p in parities if p.output == judged), parities[0])
    return Quality(
        metric=gate.metric,
        reference=gate.reference,
        value=gate.value,
        drop=gate.drop,
        interval_95=gate.interval_95,
        n=gate.n,
        labels=gate.labels,
        agreement=near.same_label_fraction,
        cosine=near.cosine_min,
        sqnr_db=near.sqnr_db,
    )


def _recipe(bundle: er.Bundle, graph: Graph | None) -> list[dict[str, object]]:
    path = bundle.file(graph.recipe) if graph is not None and graph.recipe else None
    return msgspec.json.decode(path.read_bytes())["ops"] if path is not None else []


def _given_back(bundle: er.Bundle, graph: Graph | None) -> dict[str, list[dict[str, object]]]:
    ops = _recipe(bundle, graph)
    return {why: [op for op in ops if f"given back for {why}" in str(op["reason"])] for why in ("quality", "speed")}


def _share(bundle: er.Bundle, graph: Graph | None, given: Sequence[dict[str, object]]) -> float:
    """Share of the weight bytes that operators given back hold in floating point."""
    ops = _recipe(bundle, graph)
    whole = sum(int(str(op.get("weight_bytes", 0))) for op in ops)
    part = sum(int(str(op.get("weight_bytes", 0))) for op in given if op["scheme"] == "float")
    return part / whole if whole else 0.0


def _sizes(session: er.Session, made: Material) -> tuple[dict[str, list[int]], list[str], float]:
    """Runs five sizes of each axis: those that ran, what failed, and the largest error against the student."""
    ran: dict[str, list[int]] = {}
    failures, worst = [], 0.0
    start = timed_sizes(made.student) | {
        a.symbol: min(a.max, max(a.min, 16)) for a in made.student.axes if a.role != "batch"
    }
    for symbol, sizes in sizes_of(made.student).items():
        for size in sizes:
            inputs = inputs_at(made.student, start | {symbol: size}, seed=size)
            try:
                got = session.run(inputs)
            except EdgekitError as error:
                failures.append(f"{session.graph.id} at {symbol}={size}: {error.message}")
                continue
            want = sampling.run(made.module, inputs)  # type: ignore[arg-type]
            if any(got[name].shape != want[name].shape for name in want):
                failures.append(f"{session.graph.id} at {symbol}={size}: another shape than the student's answer")
                continue
            worst = max([worst, *(_error(want[name], got[name]) for name in want)])
            ran.setdefault(symbol, []).append(size)
    return ran, failures, worst


def _error(want: np.ndarray, got: np.ndarray) -> float:
    if not want.size:
        return 0.0
    span = max(float(want.max() - want.min()), float(np.abs(want).max()), 1e-12)
    return float(np.abs(got - want).max()) / span


def _invariance(session: er.Session, student: registry.Student) -> tuple[float | None, float | None]:
    """Worst cosine of each sample alone against in a batch, and of a sample against itself padded with zeros."""
    roles = {axis.symbol: axis.role for axis in student.axes}
    batch = padding = None
    if "batch" in roles.values():
        size = min(6, next(axis.max for axis in student.axes if axis.role == "batch"))
        together = inputs_at(student, timed_sizes(student) | {"B": size}, 3)
        whole = session.run(together)
        alone = [session.run({n: a[i : i + 1] for n, a in together.items()}) for i in range(size)]
        batch = min(_near(whole[n][i : i + 1], alone[i][n]) for i in range(size) for n in whole)
    long = [axis for axis in student.axes if axis.role == "length"]
    if long:
        padding = min(_padded(session, student, seed, [axis.symbol for axis in long]) for seed in range(4))
    return batch, padding


def _padded(session: er.Session, student: registry.Student, seed: int, symbols: Sequence[str]) -> float:
    bounds = {axis.symbol: axis for axis in student.axes}
    short = timed_sizes(student) | {s: max(bounds[s].min, min(bounds[s].max - 1, 9 + 2 * seed)) for s in symbols}
    inputs = inputs_at(student, short, seed)
    more = {s: min(bounds[s].max, short[s] + 11) for s in symbols}
    padded = {
        tensor.name: np.pad(
            inputs[tensor.name],
            [(0, more[size] - short[size] if size in more else 0) for size in tensor.shape],  # type: ignore[index]
        )
        for tensor in student.inputs
    }
    plain, other = session.run(inputs), session.run(padded)
    return min(_near(plain[name], other[name]) for name in plain)


def _near(left: np.ndarray, right: np.ndarray) -> float:
    """Cosine over the sizes that both have: a padded request answers for its padding as well."""
    common = tuple(slice(min(sizes)) for sizes in zip(left.shape, right.shape, strict=True))
    return cosine(left[common], right[common])


def stock_step(name: str, folder: Path, trained: bool) -> dict[str, object]:
    made = material(name, folder, trained=False)
    student = made.student
    example = inputs_at(student, timed_sizes(student), 0)
    captured = capture(made.module, name=name, example=example, dynamic=parse_dynamic(student.dynamic()))
    if captured.parts:  # the tools take one program
        return {"stock": {}, "files": {}, "openvino": ""}
    samples = load_samples(made.calibration, role="calibration").inputs
    alike = [inputs_at(student, timed_sizes(student), seed) for seed in range(24)]
    others = [
        inputs_at(student, timed_sizes(student) | {s: sizes[len(sizes) // 2]}, 9)
        for s, sizes in sizes_of(student).items()
    ]
    told: dict[str, str] = {}
    files: dict[str, str] = {}
    for attempt in attempts(captured, samples, folder / f"{name}.stock"):
        told[attempt.tool] = tell_attempt(captured, attempt, alike, others)
        if attempt.path is not None:
            files[attempt.tool] = str(attempt.path)
        # One tool that takes too long does not cost the others their columns.
        _leave(folder, name, "stock", {"stock": told, "files": files, "openvino": ""})
    told["OpenVINO + NNCF"], path = _openvino(folder / f"{name}.stock", alike)
    return {"stock": told, "files": files, "openvino": path}


def _openvino(work: Path, samples: Sequence[Arrays]) -> tuple[str, str]:
    source, path = work / "dynamic.fp32.onnx", work / "openvino.xml"
    if not source.is_file():
        return "fails: no ONNX file to start from", ""
    attention = b"Softmax" in source.read_bytes()
    try:
        made = rivals.save_openvino(source, samples, path, transformer=attention)
    except Exception as error:  # noqa: BLE001 - a rival raises anything at all; the table says what
        return f"fails: {type(error).__name__}: {str(error).strip().splitlines()[0][:60]}", ""
    return ("quantized", str(path)) if made else ("not installed", "")


def speed_step(name: str, folder: Path, trained: bool) -> dict[str, object]:
    student = registry.get(name)
    inputs = inputs_at(student, timed_sizes(student), 0)
    calls, sessions = {}, []
    bundle = folder / f"{name}.edge"
    if bundle.is_dir():
        for graph in _answering(er.open_bundle(bundle)):
            sessions.append(er.open(bundle, graph=graph.id, threads=1))
            calls[f"{graph.format}.{graph.precision}"] = lambda s=sessions[-1]: s.run(inputs)
    notes = folder / f"{name}.stock.json"
    before = msgspec.json.decode(notes.read_bytes()) if notes.is_file() else {}
    for tool, path in before.get("files", {}).items():
        call = _stock_call(Attempt(tool, Path(path)), inputs, sessions)
        if call is not None:
            calls[tool] = call
    if before.get("openvino"):
        try:
            request = rivals.open_openvino(Path(before["openvino"]))
            request(inputs)
            calls["OpenVINO + NNCF"] = lambda: request(inputs)
        except RuntimeError as error:
            print(f"OpenVINO: {error}", file=sys.stderr)
    seen = alternate(calls, TIMED_S) if calls else {}
    for session in sessions:
        session.close()
    gain = {
        kind: ratio(seen[f"{kind}.fp32"], seen[f"{kind}.int8"])
        for kind in FORMATS
        if f"{kind}.fp32" in seen and f"{kind}.int8" in seen
    }
    return {"speed": Speed({tool: timing.median_ms for tool, timing in seen.items()}, gain)}


def _stock_call(attempt: Attempt, inputs: Arrays, sessions: list[er.Session]) -> object:
    assert attempt.path is not None
    try:
        session = er.open(attempt.path, threads=1)
        names = [tensor.name for tensor in session.inputs]
        arrays = inputs if set(names) == set(inputs) else dict(zip(names, inputs.values(), strict=True))
        session.run(arrays)
    except (EdgekitError, ValueError) as error:  # ValueError: the tool left an input out
        print(f"{attempt.tool}: {error}", file=sys.stderr)
        return None
    sessions.append(session)
    return lambda: session.run(arrays)


STEPS = {"train": train_step, "convert": convert_step, "stock": stock_step, "speed": speed_step}


def main() -> int:
    step, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    warnings.simplefilter("ignore")
    done = STEPS[step](name, folder, "trained" in sys.argv[4:])
    _leave(folder, name, step, done)
    return 0


def _leave(folder: Path, name: str, step: str, found: dict[str, object]) -> None:
    path = folder / f"{name}.{step}.json"
    written = path.with_suffix(".part")
    written.write_bytes(msgspec.json.encode(found))
    written.replace(path)  # a step that is stopped meanwhile leaves no half a file


if __name__ == "__main__":
    sys.exit(main())

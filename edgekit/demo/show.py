"""The demo: both students the whole path, beside what the stock tools make of them.

    material ─► convert ─► FOLDER/digits.edge, sequences.edge ─► profile ─► table, verdicts, HTML report
            │                                       └─► predict ───┤        (devices that are not at hand)
            └─► stock tools ─► FOLDER/stock/ ──────────────────────┘

What does not depend on this machine's mood (training, conversion, the stock tools) is kept in the folder and used again
by the next run; the measurements are taken anew each time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

import edgekit_runtime as er
from edgekit.demo.elsewhere import Elsewhere, predict_elsewhere
from edgekit.demo.material import Material, prepare
from edgekit.profiler.api import profile
from edgekit.report.advice import Advice, int8_advice
from edgekit.report.write import write_report
from edgekit_runtime.bundle import Bundle, open_bundle, read_arrays
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.manifest import Quality
from edgekit_runtime.measurement import Measurement

Progress = Callable[[str], None]
SAMPLING_S = 1.0


@dataclasses.dataclass(frozen=True)
class Example:
    """One student of the demo: where it comes from and how it is converted."""

    name: str
    title: str
    dynamic: tuple[str, ...]
    exits: tuple[str, ...] = ()


PICTURES = Example(
    "digits", "CNN with three exits, digits on photographs", ("image:0=B:1-64",), ("exit_0", "exit_1", "exit_2")
)
TEXTS = Example("sequences", "BiLSTM, digits told in words", ("ids:0=B:1-64", "ids:1=T:1-40"))


@dataclasses.dataclass(frozen=True)
class Line:
    """One row of the demo's table.

    Attributes:
        graph: Graph id, or the stock tool's name.
        bytes: Size of the file; 0 where a tool failed.
        measured: Latency; None where it could not be run.
        accuracy: Top-1 on held-back data, with the paired interval of its loss against the student; None: not judged.
        note: What went wrong, or nothing.
    """

    graph: str
    bytes: int
    measured: Measurement | None
    accuracy: Quality | None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """Everything shown of one student."""

    title: str
    bundle: Path
    parameters: int
    lines: tuple[Line, ...]
    advice: tuple[Advice, ...]
    elsewhere: tuple[Elsewhere, ...]


def steps(folder: Path) -> int:
    """About how many steps a run will report, for the bar's ETA: a first run trains and converts."""
    return 15 if (folder / f"{TEXTS.name}.key").is_file() else 80


def show(folder: Path, progress: Progress) -> tuple[list[Section], Path]:
    """Runs the demo.

    Returns:
        One section a student, and the path of the HTML report.
    """
    material = prepare(folder / "material", progress=lambda line: progress(f"training: {line}"))
    sections = [
        _section(example, part, folder, progress)
        for example, part in ((PICTURES, material.pictures), (TEXTS, material.texts))
    ]
    progress("writing the report")
    bundles = [open_bundle(section.bundle) for section in sections]
    index = write_report(bundles, folder / "report")[0]
    return sections, index


def _section(example: Example, material: Material, folder: Path, progress: Progress) -> Section:
    bundle = _converted(example, material, folder, progress)
    progress(f"{example.name}: measuring edgekit's graphs")
    measured = profile(bundle.root, duration_s=SAMPLING_S)
    lines = [_own_line(bundle, document) for document in measured]
    for attempt in _stock(example, material, folder, progress):
        progress(f"{example.name}: measuring {attempt['tool']}")
        lines.append(_stock_line(bundle, material, attempt))
    advice = tuple(int8_advice(measured, bundle.manifest.quality))
    progress(f"{example.name}: predicting other devices")
    parameters = bundle.manifest.source.parameters or 0
    return Section(example.title, bundle.root, parameters, tuple(lines), advice, predict_elsewhere(bundle))


def _key(example: Example, material: Material) -> str:
    """Changes with the trained material, the tools and edgekit's own code."""
    from edgekit_converters.versions import tool_versions

    digest = hashlib.sha256(repr((example, sorted(tool_versions().items()))).encode())
    for path in (material.weights, material.calibration, material.evaluation):
        digest.update(path.read_bytes())
    for root in (Path(er.__file__).parent, Path(__file__).parents[2] / "converters" / "edgekit_converters"):
        for path in sorted(root.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _converted(example: Example, material: Material, folder: Path, progress: Progress) -> Bundle:
    from edgekit_converters.convert import convert

    out, stamp = folder / f"{example.name}.edge", folder / f"{example.name}.key"
    key = _key(example, material)
    if stamp.is_file() and stamp.read_text() == key and out.is_dir():
        progress(f"{example.name}: converted already")
        return open_bundle(out)
    stamp.unlink(missing_ok=True)
    bundle = convert(
        material.source,
        out=out,
        weights=material.weights,
        calibration=material.calibration,
        eval=material.evaluation,
        dynamic=example.dynamic,
        exits=example.exits,
        force=True,
        progress=lambda line: progress(f"{example.name}: {line}"),
    )
    stamp.write_text(key)
    return bundle


def _stock(example: Example, material: Material, folder: Path, progress: Progress) -> list[dict[str, str]]:
    """What the stock tools made, from an earlier run if nothing changed."""
    from edgekit_converters.capture import capture, parse_source
    from edgekit_converters.capture.axes import parse_dynamic
    from edgekit_converters.stock import attempts

    work = folder / "stock" / example.name
    note, key = work / "attempts.json", _key(example, material)
    if note.is_file() and json.loads(note.read_text())["key"] == key:
        found: list[dict[str, str]] = json.loads(note.read_text())["attempts"]
        return found
    progress(f"{example.name}: what the stock tools make of it")
    calibration = _samples(read_arrays(material.calibration))
    student = capture(
        parse_source(material.source),
        name=example.name,
        example=calibration[0],
        dynamic=parse_dynamic(example.dynamic),
        weights=material.weights,
    )
    rows = [
        {"tool": attempt.tool, "path": str(attempt.path or ""), "error": attempt.error}
        for attempt in attempts(student, calibration[:100], work)
    ]
    note.write_text(json.dumps({"key": key, "attempts": rows}))
    return rows


def _samples(arrays: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    inputs = {name: array for name, array in arrays.items() if name != "labels"}
    count = len(next(iter(inputs.values())))
    return [{name: array[index : index + 1] for name, array in inputs.items()} for index in range(count)]


def _own_line(bundle: Bundle, document: Measurement) -> Line:
    graph = bundle.graph(document.graph)
    quality = next((q for q in bundle.manifest.quality if q.graph == graph.id and q.slice == "all"), None)
    return Line(graph.id, graph.bytes, document, quality)


def _stock_line(bundle: Bundle, material: Material, attempt: dict[str, str]) -> Line:
    if not attempt["path"]:
        return Line(attempt["tool"], 0, None, None, attempt["error"])
    path = Path(attempt["path"])
    try:
        (document,) = profile(path, duration_s=SAMPLING_S, graph=None)
        quality = _judged(bundle, material, path, attempt["tool"])
    except EdgekitError as error:
        return Line(attempt["tool"], path.stat().st_size, None, None, error.message)
    return Line(attempt["tool"], path.stat().st_size, document, quality)


def _judged(bundle: Bundle, material: Material, path: Path, tool: str) -> Quality:
    """Top-1 of a stock file on the held-back data, judged exactly as edgekit's own graphs are."""
    from edgekit_converters.data import load_samples
    from edgekit_converters.verify.gate import judge
    from edgekit_converters.verify.metrics import METRICS

    data = load_samples(material.evaluation, role="evaluation")
    answer = bundle.manifest.exits[-1].output if bundle.manifest.exits else bundle.manifest.outputs[0].name
    with er.open(bundle.root, graph="onnx.fp32", threads=1) as student, er.open(path, threads=1) as session:
        reference = [student.run(sample)[answer] for sample in data.inputs]
        got = [list(session.run(_renamed(session, sample)).values())[-1] for sample in data.inputs]
    return judge(tool, METRICS["top1"], reference, got, data, (0.01, False))[0]


def _renamed(session: er.Session, sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The sample under the file's own names: litert-torch calls inputs args_0, args_1."""
    return dict(zip((tensor.name for tensor in session.inputs), sample.values(), strict=True))

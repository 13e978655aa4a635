"""From converted graphs to a finished manifest: verify, judge, keep what may ship, count, hash."""

from __future__ import annotations

import dataclasses
import os
from datetime import datetime, timezone

import msgspec

from edgekit_converters import promise
from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.data import Samples
from edgekit_converters.draft import Draft, Progress
from edgekit_converters.options import Options
from edgekit_converters.recipe.types import Recipe
from edgekit_converters.staging import Staging
from edgekit_converters.verify.check import Verified, golden_inputs, verify_graph
from edgekit_converters.verify.task import Task
from edgekit_converters.versions import tool_versions
from edgekit_runtime.errors import GateFailed, Refused
from edgekit_runtime.manifest import Exit, Graph, Manifest, Refusal, Source, Tensor


@dataclasses.dataclass(frozen=True)
class Job:
    """One conversion while it is sealed.

    Attributes:
        stage: The bundle in the making.
        student: What was captured.
        options: What the person asked for.
        data: What graphs are judged on: evaluation data, else calibration data, else the example.
        calibration: What calibrated them.
        task: How they are judged.
        progress: Called with a line a step.
    """

    stage: Staging
    student: Captured
    options: Options
    data: Samples
    calibration: Samples | None
    task: Task
    progress: Progress


def seal(job: Job, drafts: list[Draft], refused: list[Refusal]) -> Manifest:
    """Verifies the drafts on the staged bundle and writes the final manifest.

    Raises:
        GateFailed: int8 was asked for and no int8 graph passes the gate.
        Refused: No graph passes at all.
    """
    graphs = [_stage_graph(job.stage, draft) for draft in drafts]
    first = _manifest(job, graphs)
    job.stage.write_manifest(first)
    golden = golden_inputs(job.student, job.data)
    seen = _verify(job, graphs, golden)
    kept, dropped = _keep(seen, job)
    recipes = {draft.id: draft.recipe for draft in drafts}
    final = tuple(_counted(job, verified.graph, recipes.get(verified.graph.id)) for verified in kept)
    for line in (f"{graph.id}: {text}" for graph in final for text in promise.broken(graph)):
        job.progress(line)
    _write_golden(job.stage, golden, kept)
    manifest = msgspec.structs.replace(
        first,
        graphs=final,
        quality=tuple(quality for verified in seen for quality in verified.quality),
        parity=tuple(parity for verified in kept for parity in verified.parity),
        refused=(*refused, *dropped),
        files=job.stage.files(),
    )
    manifest = _cut(job, golden, drafts, manifest)
    manifest = msgspec.structs.replace(manifest, files=job.stage.files())
    job.stage.write_manifest(manifest)
    return manifest


def _stage_graph(stage: Staging, draft: Draft) -> Graph:
    recipe = ""
    if draft.recipe is not None:
        text = msgspec.json.format(msgspec.json.encode(draft.recipe), indent=1) + b"\n"
        recipe = stage.write(f"assets/recipes/{draft.id}.json", text)
    return stage.add_graph(draft, recipe)


def _manifest(job: Job, graphs: list[Graph]) -> Manifest:
    student, options = job.student, job.options
    # The parts of one student share their module, and so the names of their weights.
    programs = [part.program for part in (student, *student.parts.values()) if part.program is not None]
    weights = {name: value for program in programs for name, value in program.state_dict.items()}
    parameters = sum(int(value.numel()) for value in weights.values()) if programs else None
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return Manifest(
        name=options.name or options.out.stem,
        version=options.version,
        tool_versions=tool_versions(),
        created=datetime.fromtimestamp(int(epoch), timezone.utc).isoformat() if epoch else None,
        source=Source(kind=student.kind, exporter=student.exporter, parameters=parameters, notes=student.notes),
        inputs=tuple(_with_range(tensor, job.data) for tensor in student.inputs),
        outputs=student.outputs,
        axes=student.axes,
        states=student.states,
        decoding=student.decoding,
        graphs=tuple(graphs),
        exits=tuple(Exit(id=name, output=name) for name in options.exits),
        calibration=job.calibration.described() if job.calibration else None,
        files=job.stage.files(),
    )


def _with_range(tensor: Tensor, data: Samples) -> Tensor:
    """The input with the smallest and largest value seen in the data."""
    low = min(float(sample[tensor.name].min()) for sample in data.inputs)
    high = max(float(sample[tensor.name].max()) for sample in data.inputs)
    return msgspec.structs.replace(tensor, min=low, max=high)


def _verify(job: Job, graphs: list[Graph], golden: Arrays) -> list[Verified]:
    seen = []
    for graph in graphs:
        job.progress(f"verifying {graph.id} on {len(job.data)} samples")
        seen.append(verify_graph(job.stage.root, graph, job.student, job.data, golden, job.task))
    return seen


def _keep(seen: list[Verified], job: Job) -> tuple[list[Verified], list[Refusal]]:
    """Drops what fails, what is no smaller than fp32, and fp32 itself where int8 alone was asked for."""
    kept, dropped = [], []
    fp32_bytes = {
        (v.graph.format, v.graph.role): v.graph.bytes for v in seen if v.graph.precision == "fp32" and not v.failed
    }
    for verified in seen:
        graph = verified.graph
        reason = verified.failed or _failed_together(graph, seen)
        before = fp32_bytes.get((graph.format, graph.role))
        if not reason and graph.precision == "int8" and before is not None and graph.bytes >= before:
            reason = f"int8 is not smaller: {graph.bytes} bytes against {before} in fp32"
        if reason:
            dropped.append(Refusal(format=graph.format, precision=graph.precision, reason=reason))
        elif job.options.precision in ("int8", "fp16") and graph.precision == "fp32":
            continue
        else:
            kept.append(verified)
    if job.options.precision in ("int8", "fp16") and not kept:
        raise GateFailed(
            f"no {job.options.precision} graph passes: " + "; ".join(f"{d.format} {d.reason}" for d in dropped),
            remedy="--precision auto ships the best precision that passes; "
            "--max-drop, --keep-float and more calibration data help",
        )
    if not kept:
        raise Refused("; ".join(f"{d.format} {d.precision}: {d.reason}" for d in dropped), remedy="report this student")
    job.stage.discard([v.graph for v in seen if v not in kept])
    return kept, dropped


def _failed_together(graph: Graph, seen: list[Verified]) -> str:
    """Why an encoder may not ship: the decode step it goes with does not."""
    if graph.role != "encoder":
        return ""
    steps = [v for v in seen if v.graph.role == "decode_step" and v.graph.format == graph.format]
    alone = "its decode step ships in another precision"
    return next((v.failed for v in steps if v.graph.precision == graph.precision), alone)


def _counted(job: Job, graph: Graph, recipe: Recipe | None) -> Graph:
    """Fills in coverage from the final file and from the engine, and why the graph ships."""
    from edgekit_converters.onnx.coverage import coverage as onnx_coverage
    from edgekit_converters.tflite.coverage import coverage as tflite_coverage

    path = job.stage.root / graph.path
    if graph.format == "onnx":
        weights, executed, macs = onnx_coverage(path, job.student.part(graph.role).example)
    else:
        weights, executed, macs = tflite_coverage(path)
    reason = graph.ships_because or "the student's own precision"
    promised = promise.shares(recipe) if recipe is not None else (weights, executed)
    back = promise.back_for_speed(recipe) if recipe is not None else (0.0, 0.0)
    return msgspec.structs.replace(
        graph,
        macs=macs,
        int8_weight_bytes_fraction=weights,
        executed_int8_macs_fraction=executed,
        promised_int8_weight_bytes_fraction=promised[0],
        promised_int8_macs_fraction=promised[1],
        speed_given_back_weight_bytes_fraction=back[0],
        speed_given_back_macs_fraction=back[1],
        ships_because=reason,
    )


def _write_golden(stage: Staging, golden: Arrays, kept: list[Verified]) -> None:
    stage.write_arrays("golden/inputs.npz", golden)
    for verified in kept:
        stage.write_arrays(f"golden/{verified.graph.id}.npz", verified.golden)


def _cut(job: Job, golden: Arrays, drafts: list[Draft], manifest: Manifest) -> Manifest:
    from edgekit_converters.cut.cut import Cutting, cut_all
    from edgekit_converters.cut.lossy import Evidence, with_lossy_actions
    from edgekit_converters.cut.lossy_pictures import with_picture_actions

    whole = [draft for draft in drafts if draft.role == "full"]
    fp32 = next((draft.path for draft in whole if draft.format == "onnx" and draft.precision == "fp32"), None)
    staged = [graph for graph in manifest.graphs if graph.role == "full" and graph.format == "onnx"]
    shipped = next((job.stage.root / graph.path for graph in staged if graph.precision == "fp32"), None)
    work = Cutting(
        stage=job.stage,
        student=job.student,
        samples=job.data.inputs,
        calibration=(job.calibration or job.data).inputs,
        golden=golden,
        wanted=job.options.split_points,
        exits=job.options.exits,
        named_by=shipped or fp32,
        progress=job.progress,
    )
    evidence = Evidence(job.data, work.calibration, job.task, job.progress)
    manifest = with_lossy_actions(cut_all(work, manifest), job.stage, evidence)
    return with_picture_actions(manifest, job.stage, evidence)

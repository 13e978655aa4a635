"""What a row of the matrix is converted from: trained weights and real data where there are any, else seeded ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import resnet
from edgekit.students import data, minilm, picture_tasks, registry, train

if TYPE_CHECKING:
    from torch import nn

Arrays = dict[str, np.ndarray]
CALIBRATION, EVALUATION = 48, 200
LONGEST = 128  # size at which sequences are timed, where the student takes as much
# Published weights whose own data are not at hand, and what is shown to them instead: no labels.
REFERENCE = {"mobilenet_v1": picture_tasks.photographs, "autoencoder": picture_tasks.machine_sound}
# The metric of trained students that are not judged by top-1, and what int8 may lose of it (perplexity has no scale of
# its own: a share).
METRICS = {
    "pair_classifier": ("f1", "0.01"),
    "gated_cnn": ("perplexity", "1%"),
    "essay_scorer": ("qwk", "0.01"),
    "truecaser": ("f1", "0.01"),
    "bilstm_tagger": ("f1", "0.01"),
}
# Frozen bodies that read real sentences.
SENTENCES = ("minilm", "few_shot")
# Streaming forms, and whose weights and data they take, one step a sample.
STEPS = {"lrcn_step": "lrcn", "gated_cnn_step": "gated_cnn"}
# Inputs whose numbers are places on an axis: where that is cut, they must lie within it.
INDEXES = {"gcn": {"edges": "N"}}


def sizes_of(student: registry.Student) -> dict[str, list[int]]:
    """At least five sizes of each dynamic axis, the smallest and the largest among them."""
    found = {}
    for axis in student.axes:
        five = np.geomspace(axis.min, axis.max, 5).round().astype(int)
        if len(set(five.tolist())) < 5:
            five = np.linspace(axis.min, axis.max, min(5, axis.max - axis.min + 1)).round().astype(int)
        found[axis.symbol] = sorted(set(five.tolist()))
    return found


def timed_sizes(student: registry.Student) -> dict[str, int]:
    """One sample of a usual length."""
    sizes = {axis.symbol: min(axis.max, max(axis.min, LONGEST)) for axis in student.axes}
    return sizes | {axis.symbol: max(1, axis.min) for axis in student.axes if axis.role == "batch"}


def inputs_at(student: registry.Student, sizes: Mapping[str, int], seed: int) -> Arrays:
    """Seeded inputs whose axes have the sizes given (others as the student's example has them)."""
    arrays = student.example(sizes.get("B", 1), sizes.get("T", 16), size="full", seed=seed)
    for tensor in student.inputs:
        for place, symbol in enumerate(tensor.shape):
            have = arrays[tensor.name].shape[place]
            wanted = sizes.get(symbol, have) if isinstance(symbol, str) else have
            if wanted != have:
                arrays[tensor.name] = arrays[tensor.name].take(np.arange(wanted) % have, axis=place)
    for name, symbol in INDEXES.get(student.name, {}).items():
        arrays[name] = arrays[name] % sizes.get(symbol, arrays[name].max() + 1)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


@dataclasses.dataclass(frozen=True)
class Material:
    """What a row is converted from: the module, samples as `edgekit.convert` takes them, and how int8 is judged."""

    student: registry.Student
    module: object
    calibration: object
    evaluation: object
    trained: bool
    judged_by: Mapping[str, str] = dataclasses.field(default_factory=dict)


def material(name: str, folder: Path, trained: bool) -> Material:
    """Trained weights and real data where there are any and `trained` is asked for; else seeded ones."""
    student = registry.get(name)
    if trained and (folder / f"{name}.material" / "eval.npz").is_file():
        return _learnt(student, folder / f"{name}.material")
    if trained and name in resnet.checkpoints():
        return Material(student, *resnet.material(name), True)
    if trained and name in REFERENCE:
        return Material(student, picture_tasks.reference_weights(name), *REFERENCE[name](), True)
    module = student.build()
    if trained and name in STEPS and (folder / f"{STEPS[name]}.material" / "eval.npz").is_file():
        return _stepwise(student, folder / f"{STEPS[name]}.material")
    if trained and name in SENTENCES:
        calibration, evaluation = (
            [{"ids": one["input_ids"], "mask": one["attention_mask"]} for one in sentences(part, count)]
            for part, count in (("train", 64), ("dev", EVALUATION))
        )
        return Material(student, module, calibration, evaluation, True, {"metric": "cosine", "max_drop": "0.005"})
    full = timed_sizes(student)
    lengths = [full, {**full, **{a.symbol: max(a.min, full[a.symbol] // 2) for a in student.axes if a.role != "batch"}}]
    samples = [inputs_at(student, lengths[seed % 2], seed) for seed in range(CALIBRATION + EVALUATION)]
    return Material(student, module, samples[:CALIBRATION], samples[CALIBRATION:], False)


def sentences(part: str, count: int) -> list[Arrays]:
    """Sentences of SST-2 as MiniLM reads them, one a sample."""
    from edgekit_runtime import text
    from edgekit_runtime.preprocess import TextInput

    encoder = text.load(minilm.package_folder())
    rule = TextInput(mask="attention_mask", max_length=LONGEST)
    return [text.encode("input_ids", rule, encoder, [line]) for line in data.sst2(part).texts[:count]]


def _learnt(student: registry.Student, place: Path) -> Material:
    from safetensors.torch import load_file

    module = student.build()
    module.load_state_dict(load_file(place / "weights.safetensors"))
    judged_by = dict(zip(("metric", "max_drop"), METRICS[student.name], strict=True)) if student.name in METRICS else {}
    return Material(student, module, place / "calib.npz", place / "eval.npz", True, judged_by)


def _stepwise(student: registry.Student, place: Path) -> Material:
    """Steps of real sequences, each with the state that the steps before have left."""
    from safetensors.torch import load_file

    module = student.build()
    # A streaming form is the student itself, or holds it.
    getattr(module, "model", module).load_state_dict(load_file(place / "weights.safetensors"))
    calibration, evaluation = (
        steps_of(student, module, np.load(place / f"{part}.npz"), count)
        for part, count in (("calib", CALIBRATION), ("eval", EVALUATION))
    )
    return Material(student, module, calibration, evaluation, True)


def steps_of(student: registry.Student, module: nn.Module, data: Mapping[str, np.ndarray], count: int) -> list[Arrays]:
    """Inputs of `count` steps, some of each sequence, evenly over its length.

    Args:
        student: Its first input is the step, the others are states that begin with zeros.
        module: Takes and gives the states by the names of `student.states`.
        data: Sequences [N, T, ...] under the first name that is no label.
        count: Of samples.
    """
    import torch

    step, *kept = student.inputs
    sequences = next(array for name, array in data.items() if name not in ("labels", "slice"))
    each = 4
    found: list[Arrays] = []
    for sequence in sequences[: -(-count // each)]:
        states = {state.name: np.zeros((1, *state.shape[1:]), state.dtype) for state in kept}  # type: ignore[arg-type]
        length = len(sequence) if sequence.ndim > 1 else max(each, int(np.count_nonzero(sequence)))
        wanted = set(np.linspace(0, length - 1, each).round().astype(int).tolist())
        for place in range(length):
            one = sequence[place].reshape(1, *(1 if isinstance(n, str) else n for n in step.shape[1:]))
            inputs = {step.name: one, **states}
            if place in wanted:
                found.append(inputs)
            with torch.no_grad():
                outputs = module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
            states = {before: outputs[after].numpy() for before, after in student.states}
    return found[:count]


def recipe_of(student: registry.Student) -> str | None:
    """The recipe that trains this very student: one of its name may be for other pictures (MNIST instead of CIFAR)."""
    return next((name for name, recipe in train.RECIPES.items() if recipe.source == student.source), None)

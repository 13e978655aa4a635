"""Short seeded recipes for the students that have data: minutes on two cores.

    python -m edgekit.students.train text_cnn -o FOLDER

writes what `edgekit convert` takes: `weights.safetensors`, `calib.npz`, `eval.npz` (with `labels`) and, for text,
`vocab.txt`; the last line printed is the command. Nothing of the held-back set is seen in training or calibration.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.students import (
    data,
    gcn,
    integer_rnn,
    large_vocabulary,
    made_up_tasks,
    picture_tasks,
    recurrent_tasks,
    text_tasks,
    word_pieces,
)
from edgekit.students.fit import Augment, Fitted, Plan, Progress, accuracy, fit, predict
from edgekit.students.sampling import seeded
from edgekit.students.task import Task
from edgekit.students.text_tasks import LONGEST_SENTENCE
from edgekit.students.vocabulary import build_vocabulary
from edgekit_runtime.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

Arrays = dict[str, np.ndarray]
CALIBRATION_SAMPLES = 200


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one student is trained.

    Attributes:
        source: `module:function` of the factory, as `edgekit convert` takes it.
        task: Loads the data; its argument is the number of words the student's table holds.
        plan: How long and how fast; None: `trained` gives the student.
        augment: Changes a batch before it is learnt from.
        trained: Builds the student with weights that exist already.
        taught: Makes of a student what is trained in its place, with the same weights.
        begun: Writes what is known beforehand over a student's seeded weights.
    """

    source: str
    task: Callable[[int], Task]
    plan: Plan | None
    augment: Augment | None = None
    trained: Callable[[], nn.Module] | None = None
    taught: Callable[[nn.Module], nn.Module] | None = None
    begun: Callable[[Any], None] | None = None


@dataclasses.dataclass(frozen=True)
class Material:
    """The files that `edgekit convert` needs, and what training did.

    Attributes:
        source: `module:function` of the factory.
        weights: `weights.safetensors`.
        calibration: `calib.npz`, samples of the training data.
        evaluation: `eval.npz`, the held-back set with `labels`.
        vocabulary: `vocab.txt`, or None.
        preprocess: `preprocess.toml`, or None.
        metric: What int8 is judged by where that is not accuracy.
        accuracy: Of each exit on the held-back set, in order of depth.
    """

    source: str
    weights: Path
    calibration: Path
    evaluation: Path
    vocabulary: Path | None
    accuracy: tuple[float, ...]
    preprocess: Path | None = None
    metric: str = ""

    @property
    def command(self) -> str:
        """The command that makes a bundle of it."""
        rule = f" --preprocess {self.preprocess}" if self.preprocess else ""
        rule += f" --metric {self.metric}" if self.metric else ""
        return (
            f"edgekit convert {self.source} --weights {self.weights} --calibration {self.calibration} "
            f"--eval {self.evaluation}{rule} -o {self.weights.parent.name}.edge"
        )


def sst2_task(rows: int) -> Task:
    """SST-2: trained on the training sentences, judged on the development sentences."""
    train, held = data.sst2("train"), data.sst2("dev")
    words, held_words = [t.split() for t in train.texts], [t.split() for t in held.texts]
    vocabulary = build_vocabulary(words, largest=rows)
    return Task(
        train={"ids": vocabulary.encode(words, LONGEST_SENTENCE)},
        labels=train.labels,
        held={"ids": vocabulary.encode(held_words, LONGEST_SENTENCE)},
        held_labels=held.labels,
        vocabulary=vocabulary,
    )


def mnist_task(rows: int) -> Task:
    """MNIST: 10,000 pictures to train on, the last 2,000 held back. `rows` means nothing here."""
    digits = data.mnist()
    pixels = digits.pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255.0)
    return Task({"image": pixels[:10_000]}, digits.labels[:10_000], {"image": pixels[10_000:]}, digits.labels[10_000:])


def _reference(name: str, task: Callable[[int], Task]) -> Recipe:
    source = f"edgekit.students.mlperf_tiny:{name}"
    return Recipe(source, task, None, trained=lambda: picture_tasks.reference_weights(name))


def _made_up(name: str, epochs: int, rate: float) -> Recipe:
    """Students whose data are made by a rule, taught in a form of their own."""
    task, taught = made_up_tasks.TASKS[name]
    return Recipe(f"edgekit.students.{name}:build", task, Plan(epochs=epochs, batch=64, peak_rate=rate), taught=taught)


def _plain(layers: int, epochs: int) -> Recipe:
    plan = Plan(epochs=epochs, batch=64, peak_rate=4e-3, patience=epochs)
    source = f"edgekit.students.plain_cnn:plain{layers}"
    return Recipe(source, picture_tasks.cifar_task, plan, picture_tasks.shift_and_flip)


def without_padding(batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Cuts the columns that are padding in every sentence of a batch: nothing is learnt from them. Draws nothing."""
    longest = int((batch["ids"] != 0).sum(1).max())
    return {name: array[:, :longest] for name, array in batch.items()}


def _bert(size: str, plan: Plan) -> Recipe:
    return Recipe(
        f"edgekit.students.bert:bert_{size}", word_pieces.sentences_task, plan, without_padding, begun=word_pieces.begin
    )


RECIPES: dict[str, Recipe] = {
    "text_cnn": Recipe("edgekit.students.text_cnn:build", sst2_task, Plan(epochs=5, batch=50, peak_rate=1e-3)),
    "bilstm_classifier": Recipe(
        "edgekit.students.bilstm_classifier:build", sst2_task, Plan(epochs=5, batch=50, peak_rate=2e-3)
    ),
    "bert_tiny": _bert("tiny", Plan(epochs=6, batch=32, peak_rate=5e-4)),
    "bert_mini": _bert("mini", Plan(epochs=4, batch=32, peak_rate=3e-4)),
    "bert_small": _bert("small", Plan(epochs=2, batch=32, peak_rate=2e-4)),
    "large_vocabulary": Recipe(
        "edgekit.students.large_vocabulary:build",
        text_tasks.question_task,
        Plan(epochs=2, batch=16, peak_rate=3e-4),
        without_padding,
        taught=lambda student: large_vocabulary.teach(student, text_tasks.QUESTION_ROWS),
    ),
    "ngram": Recipe("edgekit.students.ngram:build", text_tasks.ngram_task, Plan(epochs=4, batch=50, peak_rate=2e-3)),
    "cmow": Recipe("edgekit.students.cmow:build", sst2_task, Plan(epochs=5, batch=50, peak_rate=1e-3)),
    "gated_cnn": Recipe(
        "edgekit.students.gated_cnn:build", text_tasks.language_task, Plan(epochs=10, batch=32, peak_rate=3e-3)
    ),
    "cdil": Recipe("edgekit.students.cdil:build", text_tasks.news_bytes_task, Plan(epochs=6, batch=32, peak_rate=3e-3)),
    "pair_classifier": Recipe(
        "edgekit.students.pair_classifier:build", text_tasks.pair_task, Plan(epochs=8, batch=32, peak_rate=1e-3)
    ),
    "char_cnn": Recipe(
        "edgekit.students.char_cnn:build", text_tasks.news_stack_task, Plan(epochs=6, batch=32, peak_rate=2e-3)
    ),
    "multi_exit": Recipe("edgekit.students.multi_exit:mnist", mnist_task, Plan(epochs=4, batch=64, peak_rate=4e-3)),
    "multi_exit_cifar": Recipe(
        "edgekit.students.multi_exit:build",
        picture_tasks.cifar_task,
        Plan(epochs=20, batch=64, peak_rate=4e-3, patience=20),
        picture_tasks.shift_and_flip,
    ),
    "resnet8": _reference("resnet8", picture_tasks.raw_cifar_task),
    "ds_cnn": _reference("ds_cnn", picture_tasks.keyword_task),
    "integer_rnn": Recipe(
        "edgekit.students.integer_rnn:build",
        sst2_task,
        Plan(epochs=6, batch=50, peak_rate=4e-3),
        taught=integer_rnn.teach,
    ),
    "lrcn": Recipe(
        "edgekit.students.lrcn:build", recurrent_tasks.clip_task, Plan(epochs=30, batch=8, peak_rate=2e-3, patience=30)
    ),
    "vit": Recipe(
        "edgekit.students.vit:build",
        picture_tasks.bright_cifar_task,
        Plan(epochs=10, batch=64, peak_rate=1e-3, patience=10, weight_decay=0.05, label_smoothing=0.1),
        picture_tasks.flip_and_light,
    ),
    "two_branch": _made_up("two_branch", epochs=4, rate=4e-3),
    "transliterator": _made_up("transliterator", epochs=8, rate=2e-3),
    "essay_scorer": Recipe(
        "edgekit.students.essay_scorer:build", recurrent_tasks.essay_task, Plan(epochs=4, batch=40, peak_rate=2e-3)
    ),
    "truecaser": Recipe(
        "edgekit.students.truecaser:build", recurrent_tasks.case_task, Plan(epochs=8, batch=16, peak_rate=5e-3)
    ),
    "gcn": Recipe(
        "edgekit.students.gcn:build",
        made_up_tasks.citation_task,
        None,
        trained=gcn.trained,
        taught=made_up_tasks.Graphs,
    ),
    "plain4": _plain(4, epochs=20),
    "plain6": _plain(6, epochs=20),
    "plain8": _plain(8, epochs=20),
    "plain10": _plain(10, epochs=15),
}


def train(
    name: str, folder: Path | str, *, size: str = "full", seed: int = 0, progress: Progress | None = None
) -> Material:
    """Trains a student by its recipe and writes its files.

    Args:
        name: A key of `RECIPES`.
        folder: Made if need be.
        size: `full`, which the factory builds without arguments, or `tiny`.
        seed: Of weights, split and order.
        progress: Called with one line an epoch.

    Raises:
        UsageError: No recipe of that name, or the data are not there.
    """
    if name not in RECIPES:
        raise UsageError(f"there is no recipe for {name!r}", remedy=f"one of: {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    module_name, function = recipe.source.split(":")
    factory = getattr(importlib.import_module(module_name), function)
    module: nn.Module = recipe.trained() if recipe.trained else factory(size=size, seed=seed)
    rows = next((len(p) for key, p in module.state_dict().items() if key.split(".")[0] in ("embedding", "table")), 0)
    task = recipe.task(rows)
    form = recipe.taught(module) if recipe.taught else module
    if recipe.plan is not None:
        _restart_heads(module, seed)
        if recipe.begun is not None:
            recipe.begun(module)
        plan = dataclasses.replace(recipe.plan, seed=seed)
        fit(form, task.train, task.labels, plan, augment=recipe.augment, progress=progress)
    return save(recipe.source, module.eval(), task, Path(folder), form=form)


def _restart_heads(module: nn.Module, seed: int) -> None:
    # An untrained student answers loudly (sampling.spread_answers); learning goes better from quiet heads.
    from torch import nn

    with seeded(seed):
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear) and name.split(".")[0] in ("head", "heads"):
                layer.reset_parameters()


def save(
    source: str,
    module: nn.Module,
    task: Task,
    folder: Path,
    calibration: Arrays | None = None,
    *,
    form: nn.Module | None = None,
) -> Material:
    """Writes a trained student and its data.

    Args:
        source: `module:function` of the factory.
        module: The trained student.
        task: Its data.
        folder: Made if need be.
        calibration: Samples to calibrate on; without them the task's, or the first 200 training samples.
        form: What was trained in the module's place.

    Returns:
        The paths, and the accuracy on the held-back set.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    found = accuracy(predict(form or module, task.held), task.held_labels)
    calibration = calibration or task.calibration
    if calibration is None:
        calibration = {name: array[:CALIBRATION_SAMPLES] for name, array in task.train.items()}
    asked = inspect.signature(module.forward).parameters  # what is only taught with is no input
    material = Material(
        source=source,
        weights=folder / "weights.safetensors",
        calibration=folder / "calib.npz",
        evaluation=folder / "eval.npz",
        vocabulary=folder / "vocab.txt" if task.vocabulary else None,
        accuracy=found,
        preprocess=folder / "preprocess.toml" if task.preprocess else None,
        metric=task.metric,
    )
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, material.weights)
    held: dict[str, Any] = {name: array for name, array in task.held.items() if name in asked}
    held["labels"] = task.held_labels if task.judged is None else task.judged
    if task.slices is not None:
        held["slice"] = task.slices
    kept: dict[str, Any] = {name: array for name, array in calibration.items() if name in asked}
    np.savez(material.calibration, **kept)
    np.savez(material.evaluation, **held)
    if task.vocabulary is not None and material.vocabulary is not None:
        task.vocabulary.save(material.vocabulary)
    if material.preprocess is not None:
        material.preprocess.write_text(task.preprocess, encoding="utf-8")
    return material


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m edgekit.students.train NAME -o FOLDER`."""
    parser = argparse.ArgumentParser(prog="python -m edgekit.students.train", description="train a reference student")
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder for weights and data")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    try:
        material = train(chosen.name, chosen.output, seed=chosen.seed, progress=lambda line: _say(sys.stderr, line))
    except UsageError as error:
        _say(sys.stderr, str(error))
        return error.exit_code
    exits = ", ".join(f"{value:.1%}" for value in material.accuracy)
    _say(sys.stderr, f"right on the held-back set: {exits}")
    _say(sys.stdout, material.command)
    return 0


def _say(stream: object, line: str) -> None:
    stream.write(f"{line}\n")  # type: ignore[attr-defined]
    stream.flush()  # type: ignore[attr-defined]


__all__ = ["RECIPES", "Fitted", "Material", "Plan", "Recipe", "Task", "fit", "main", "save", "train"]

if __name__ == "__main__":
    sys.exit(main())

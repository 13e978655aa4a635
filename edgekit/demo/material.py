"""Trains the demo's two students once and keeps what `edgekit convert` needs.

    prepare(folder) ──► folder/digits/        weights.safetensors  calib.npz  eval.npz  material.json
                    └─► folder/digits_text/   the same, for the BiLSTM

`material.json` is written last: a run that was interrupted is started again, a finished one is used as it is. It holds
the key of everything the files depend on, so that another seed or another version of this code trains anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekit.demo import compose, models
from edgekit.students import fit as fitting
from edgekit.students import train as training
from edgekit.students.fit import Plan, Progress
from edgekit.students.train import Material, Task


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the CNN's training: small pictures first, because they cost a ninth of the large ones.

    Attributes:
        side: Pixels of a picture's side.
        scales: Smallest and largest enlargement of the digit.
        pictures: How many are composed.
        epochs: Passes over them.
        peak_rate: Largest learning rate.
    """

    side: int
    scales: tuple[float, float]
    pictures: int
    epochs: int
    peak_rate: float


STAGES = (
    Stage(side=32, scales=(3.0, 4.0), pictures=3000, epochs=4, peak_rate=4e-3),
    Stage(side=64, scales=compose.SCALES, pictures=3600, epochs=1, peak_rate=3e-3),
    Stage(side=compose.SIDE, scales=compose.SCALES, pictures=2000, epochs=1, peak_rate=2e-3),
)
LONGEST_SENTENCE = 40
TEXT_PLAN = Plan(epochs=7, batch=32, peak_rate=5e-3, patience=7)


@dataclasses.dataclass(frozen=True)
class DemoMaterial:
    """What the demo converts.

    Attributes:
        pictures: The CNN with three exits.
        texts: The BiLSTM.
        trained: Whether this call trained them; False: they lay in the folder already.
    """

    pictures: Material
    texts: Material
    trained: bool


def prepare(folder: Path | str, seed: int = 0, progress: Progress | None = None) -> DemoMaterial:
    """Trains both students, or finds them already trained.

    Args:
        folder: Where they are kept; made if need be.
        seed: Of splits, pictures, weights and training.
        progress: Called with a short line for each step.

    Returns:
        Paths and accuracies of both.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    say = progress or (lambda line: None)
    pictures, trained_pictures = _once(Path(folder) / "digits", seed, lambda at: _train_pictures(at, seed, say))
    texts, trained_texts = _once(Path(folder) / "digits_text", seed, lambda at: _train_texts(at, seed, say))
    return DemoMaterial(pictures, texts, trained_pictures or trained_texts)


def _train_pictures(folder: Path, seed: int, say: Progress) -> Material:
    import torch

    train, held = compose.ground("train", seed), compose.ground("evaluation", seed)
    # The layout that torch's CPU convolutions are fastest in; the values are the same.
    module = models.digits_cnn(seed).to(memory_format=torch.channels_last)
    for number, stage in enumerate(STAGES):
        rng = np.random.default_rng([seed, number])
        picks = rng.integers(0, len(train.labels), stage.pictures)
        image = compose.to_float(compose.pictures(train, picks, rng, stage.side, stage.scales, mirror=True))
        plan = Plan(epochs=stage.epochs, batch=32, peak_rate=stage.peak_rate, stop_fraction=0.05, seed=seed)
        label = f"CNN, pictures of {stage.side} pixels"
        fitting.fit(module, {"image": image}, train.labels[picks], plan, progress=_prefixed(say, label))
    module = module.to(memory_format=torch.contiguous_format)
    calibration = _pictures("calibration", compose.ground("calibration", seed), seed)
    task = Task({}, np.empty(0, np.int64), _pictures("evaluation", held, seed), held.labels)
    return training.save("edgekit.demo.models:digits_cnn", module, task, folder, calibration)


def _pictures(part: compose.Part, source: compose.Ground, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, len(STAGES), list(compose.DIGITS).index(part)])
    return {"image": compose.to_float(compose.pictures(source, np.arange(len(source.labels)), rng))}


def _train_texts(folder: Path, seed: int, say: Progress) -> Material:
    train, held = compose.ground("train", seed), compose.ground("evaluation", seed)
    module = models.digits_bilstm(seed)
    ids = compose.sentences(train.digits, LONGEST_SENTENCE)
    plan = dataclasses.replace(TEXT_PLAN, seed=seed)
    fitting.fit(module, {"ids": ids}, train.labels, plan, progress=_prefixed(say, "BiLSTM"))
    calibration = {"ids": compose.sentences(compose.ground("calibration", seed).digits, LONGEST_SENTENCE)}
    task = Task({}, np.empty(0, np.int64), {"ids": compose.sentences(held.digits, LONGEST_SENTENCE)}, held.labels)
    return training.save("edgekit.demo.models:digits_bilstm", module, task, folder, calibration)


def _prefixed(say: Progress, label: str) -> Progress:
    return lambda line: say(f"{label}: {line}")


def _once(folder: Path, seed: int, make: Callable[[Path], Material]) -> tuple[Material, bool]:
    """The finished material in `folder` if it was made from the same seed and code, else a new one."""
    note = folder / "material.json"
    found = _read(note, folder, _key(seed))
    if found is not None:
        return found, False
    note.unlink(missing_ok=True)
    material = make(folder)
    document = {"key": _key(seed), "source": material.source, "accuracy": material.accuracy}
    note.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return material, True


def _read(note: Path, folder: Path, key: str) -> Material | None:
    try:
        document = json.loads(note.read_text(encoding="utf-8"))
        if document["key"] != key:
            return None
        material = Material(
            source=document["source"],
            weights=folder / "weights.safetensors",
            calibration=folder / "calib.npz",
            evaluation=folder / "eval.npz",
            vocabulary=None,
            accuracy=tuple(document["accuracy"]),
        )
    except (OSError, ValueError, KeyError):
        return None
    complete = all(path.is_file() for path in (material.weights, material.calibration, material.evaluation))
    return material if complete else None


def _key(seed: int) -> str:
    """Changes with the seed and with the code that composes, builds and trains."""
    digest = hashlib.sha256(str(seed).encode())
    students = Path(fitting.__file__).parent
    code = (Path(__file__), Path(compose.__file__), Path(models.__file__))
    shared = (students / name for name in ("fit.py", "layers.py", "multi_exit.py", "bilstm_classifier.py"))
    for path in (*code, *shared):
        digest.update(path.read_bytes())
    return digest.hexdigest()

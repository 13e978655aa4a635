"""Calibration and evaluation data: whatever form a person has them in becomes `Samples`, checked before use.

FILE.npz            arrays named as the inputs, first axis = sample; optional `labels` and `slice`
FOLDER of .npy      one file an input (INPUT.npy, first axis = sample), or one file a sample for a single input
FILE.jsonl, .txt    one text a line (`{"text": ..., "label": ...}`), with a tokenizer
module:function     yields dicts of arrays (one sample each), optionally with `labels` and `slice`
a dict or a list    in Python: a dict of arrays as in .npz, or a list of dicts
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.named import find_named
from edgekit_runtime.bundle import read_arrays
from edgekit_runtime.errors import BundleInvalid, Refused, UsageError
from edgekit_runtime.manifest import Calibration

LABELS, SLICE = "labels", "slice"
FEW = 8
Encode = Callable[[str], Arrays]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Inputs of n samples, each with its leading axis kept, and what is known about them.

    Attributes:
        origin: Where they came from, for errors.
        inputs: n dicts of arrays.
        labels: n labels (any shape a sample), or None.
        slices: n group names, or None.
    """

    origin: str
    inputs: tuple[Arrays, ...]
    labels: np.ndarray | None = None
    slices: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def described(self) -> Calibration:
        """Number of samples and sha256 over names, dtypes, shapes and bytes in order."""
        digest = hashlib.sha256()
        for sample in self.inputs:
            for name in sorted(sample):
                array = np.ascontiguousarray(sample[name])
                digest.update(f"{name}|{array.dtype}|{array.shape}|".encode())
                digest.update(array.tobytes())
        return Calibration(samples=len(self), sha256=digest.hexdigest())


def load_samples(source: Any, *, role: str, encode: Encode | None = None, example: Arrays | None = None) -> Samples:
    """Reads samples from any of the forms above.

    Args:
        source: A path, `module:function`, a dict of arrays or an iterable of dicts.
        role: `calibration` or `evaluation`, for errors.
        encode: Turns one text into input arrays with a leading axis of 1.
        example: The example inputs, where given: a student whose example has one axis fewer than the stacked data has
            no batch axis, and its samples carry none.

    Raises:
        Refused: The file is missing or damaged, holds no samples, NaN, or inputs of different length.
        UsageError: The form is not known.
    """
    if isinstance(source, Samples):
        return source
    if isinstance(source, Mapping):
        samples = _from_arrays({str(k): np.asarray(v) for k, v in source.items()}, role, example)
    elif isinstance(source, (str, Path)):
        samples = _from_path(str(source), role, encode, example)
    elif isinstance(source, Iterable):
        samples = _from_dicts(source, role)
    else:
        raise UsageError(
            f"{role} data of type {type(source).__name__}", remedy="give a path, a dict of arrays or dicts"
        )
    if not len(samples):
        raise Refused(f"{samples.origin} holds no samples", remedy=f"give {role} data with at least {FEW} samples")
    _check_finite(samples)
    return samples


def _from_path(text: str, role: str, encode: Encode | None, example: Arrays | None) -> Samples:
    path = Path(text)
    if path.suffix == ".npz":
        return dataclasses.replace(_from_arrays(read_npz(path), role, example), origin=text)
    if path.is_dir():
        return dataclasses.replace(_from_folder(path, role, example), origin=text)
    if path.suffix in {".jsonl", ".txt"}:
        return _from_lines(path, encode)
    module = text.rpartition(":")[0]
    if module and not path.exists() and path.suffix not in {".npy", ".csv"}:
        return dataclasses.replace(_from_dicts(_yielded(text), role), origin=text)
    raise (UsageError if path.exists() else Refused)(
        f"{role} data {text!r}: {'an unknown form' if path.exists() else 'no such file'}",
        remedy="give FILE.npz, a folder of .npy, FILE.jsonl or .txt, or module:function",
    )


def read_npz(path: Path) -> Arrays:
    """All arrays of an .npz file; object arrays (pickles) are refused.

    Raises:
        Refused: Missing, truncated, not an .npz, or holding objects.
    """
    if not path.is_file():
        raise Refused(f"{path}: no such file", remedy="check the path")
    try:
        return read_arrays(path)
    except BundleInvalid as error:
        raise Refused(
            f"{path}: {error.message}",
            remedy="write it with numpy.savez(FILE, NAME=array, ...); object arrays are not read",
        ) from error


def read_text(path: Path) -> str:
    """The text of a file that a person named.

    Raises:
        Refused: It is not UTF-8 (a binary file, or another encoding).
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is not a text file in UTF-8: {error}", remedy="save it as UTF-8 text") from error


def _from_arrays(arrays: Arrays, role: str, example: Arrays | None) -> Samples:
    labels, slices = arrays.get(LABELS), arrays.get(SLICE)
    inputs = {name: array for name, array in arrays.items() if name not in (LABELS, SLICE)}
    if not inputs:
        raise Refused(
            f"{role} data have no input arrays (only {', '.join(arrays) or 'nothing'})",
            remedy="name them as the inputs",
        )
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise Refused(
            f"{role} arrays differ in their number of samples ({listed})", remedy="the first axis is the sample"
        )
    total = next(iter(counts.values()))
    keep = {n: example is None or n not in example or example[n].ndim == a.ndim for n, a in inputs.items()}
    samples = tuple(
        {name: array[i : i + 1] if keep[name] else array[i] for name, array in inputs.items()} for i in range(total)
    )
    return Samples(f"{role} data", samples, labels, None if slices is None else slices.astype(str))


def _from_folder(path: Path, role: str, example: Arrays | None) -> Samples:
    files = sorted(path.glob("*.npy"))
    if not files:
        raise Refused(f"{path} holds no .npy files", remedy="one INPUT.npy an input, or one file a sample")
    try:
        loaded = {file.stem: np.load(file, allow_pickle=False) for file in files}
    except (ValueError, OSError, EOFError) as error:
        raise Refused(f"{path}: a .npy file cannot be read: {error}", remedy="write it with numpy.save") from error
    if example is None or set(loaded) - {LABELS, SLICE} == set(example):
        return _from_arrays(loaded, role, example)
    if len(example) != 1:
        raise Refused(
            f"{path} holds {', '.join(list(loaded)[:5])}; the inputs are {', '.join(example)}",
            remedy="name one file an input",
        )
    (name,) = example
    rank = example[name].ndim
    return Samples(role, tuple({name: a if a.ndim == rank else a[None]} for a in loaded.values()))


def _from_lines(path: Path, encode: Encode | None) -> Samples:
    if not path.is_file():
        raise Refused(f"{path}: no such file", remedy="check the path")
    if encode is None:
        raise Refused(f"{path} holds text and the student has no tokenizer", remedy="give --tokenizer DIR")
    inputs, labels, slices = [], [], []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line) if path.suffix == ".jsonl" else {"text": line}
            inputs.append(encode(record["text"]))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise Refused(
                f"{path}:{number}: not a JSON object with a text", remedy='{"text": "...", "label": 0}'
            ) from error
        labels.append(record.get("label", record.get(LABELS)))
        slices.append(record.get(SLICE))
    grouped = bool(slices) and all(group is not None for group in slices)
    return Samples(str(path), tuple(inputs), _labels(labels), np.asarray(slices, str) if grouped else None)


def _from_dicts(source: Iterable[Any], role: str) -> Samples:
    inputs, labels, slices = [], [], []
    for index, record in enumerate(source):
        if not isinstance(record, Mapping):
            raise Refused(
                f"{role} sample {index} is a {type(record).__name__}, not a dict of arrays", remedy="yield dicts"
            )
        inputs.append({str(n): np.asarray(a) for n, a in record.items() if n not in (LABELS, SLICE)})
        labels.append(record.get(LABELS))
        slices.append(record.get(SLICE))
    grouped = bool(slices) and all(group is not None for group in slices)
    return Samples(f"{role} data", tuple(inputs), _labels(labels), np.asarray(slices, str) if grouped else None)


def _yielded(text: str) -> Iterator[Any]:
    """What the person's function yields; whatever goes wrong in it is theirs, and told as such."""
    function = find_named(text)
    remedy = "give a function without required arguments that yields a dict of arrays for each sample"
    try:
        found = function()
        if not isinstance(found, Iterable):
            raise Refused(f"{text} returns a {type(found).__name__}", remedy=remedy)
        yield from found
    except Refused:
        raise
    except Exception as error:  # the person's own code: whatever it raises is shown to them
        raise Refused(f"{text} raised {type(error).__name__}: {error}", remedy=remedy) from error


def _labels(found: Sequence[Any]) -> np.ndarray | None:
    """The labels of all samples as one array; token labels of different length are filled up with -1 (not known)."""
    if not found or any(label is None for label in found):
        return None
    arrays = [np.asarray(label).squeeze() for label in found]
    if len({array.shape for array in arrays}) == 1:
        return np.asarray(arrays)
    if any(array.ndim > 1 or array.dtype.kind not in "iu" for array in arrays):
        shapes = ", ".join(str(list(shape)) for shape in dict.fromkeys(array.shape for array in arrays))
        raise Refused(
            f"labels have different shapes ({shapes})", remedy="labels of one shape, or a row of class numbers each"
        )
    rows = [np.atleast_1d(array) for array in arrays]
    filled = np.full((len(rows), max(map(len, rows))), -1, np.int64)
    for index, row in enumerate(rows):
        filled[index, : len(row)] = row
    return filled


def _check_finite(samples: Samples) -> None:
    for index, sample in enumerate(samples.inputs):
        for name, array in sample.items():
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                raise Refused(
                    f"{samples.origin}: sample {index} has NaN or infinity in input {name!r}",
                    remedy="remove the sample or mend the preprocessing",
                )


def check_fit(samples: Samples, example: Arrays, axes: Mapping[str, Sequence[int]]) -> None:
    """Compares every sample with the example inputs: names, dtype kind, and sizes of the static axes.

    Args:
        samples: The data.
        example: The example inputs.
        axes: Dynamic axes of each input by number.

    Raises:
        Refused: The first sample that does not fit, and how.
    """
    for index, sample in enumerate(samples.inputs):
        if set(sample) != set(example):
            raise Refused(
                f"{samples.origin}: sample {index} has inputs {', '.join(sample)}; "
                f"the student takes {', '.join(example)}",
                remedy="name the arrays as the arguments of forward",
            )
        for name, array in sample.items():
            want = example[name]
            fits = array.ndim == want.ndim and all(
                axis in axes.get(name, ()) or array.shape[axis] == want.shape[axis] for axis in range(array.ndim)
            )
            if not fits:
                raise Refused(
                    f"{samples.origin}: sample {index}, input {name!r} has shape {array.shape}; "
                    f"the student takes {want.shape}"
                    + (f" with axes {list(axes[name])} dynamic" if axes.get(name) else ""),
                    remedy="the first axis is the sample; declare axes that vary with --dynamic NAME:AXIS",
                )
            if array.dtype.kind != want.dtype.kind:
                raise Refused(
                    f"{samples.origin}: input {name!r} is {array.dtype}; the student takes {want.dtype}",
                    remedy=f"convert the array to {want.dtype}",
                )


def cast_like(samples: Samples, example: Arrays) -> Samples:
    """The samples with the dtypes of the example (float64 to float32, int32 to int64 ...)."""
    inputs = tuple({n: a.astype(example[n].dtype, copy=False) for n, a in sample.items()} for sample in samples.inputs)
    return dataclasses.replace(samples, inputs=inputs)

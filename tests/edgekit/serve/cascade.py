"""Two tiny linear classifiers for tests of cascades: the small one sees fewer numbers of each sample."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgekit_converters.exits.calibrate import Request, calibrate_exits
from edgekit_runtime.testing import make_bundle

SEEN, ALL, CLASSES = 6, 8, 4
WEIGHTS = np.random.default_rng(0).normal(size=(ALL, CLASSES)).astype(np.float32)
RISK = 0.05


def samples(n: int, seed: int) -> np.ndarray:
    """float32 [n, ALL]; the numbers that the small student does not see are smaller."""
    x = np.random.default_rng(seed).normal(size=(n, ALL))
    x[:, SEEN:] *= 0.5
    return (2 * x).astype(np.float32)


def requests(n: int, seed: int) -> dict[str, np.ndarray]:
    """The arrays of both students."""
    x = samples(n, seed)
    return {"x": x, "first.x": x[:, :SEEN]}


def student(folder: Path, weights: np.ndarray, assets: Mapping[str, bytes] | None = None) -> Path:
    golden = io.BytesIO()
    np.savez(golden, x=samples(1, 9)[:, : len(weights)])
    return make_bundle(folder, weights=weights, files={"golden/inputs.npz": golden.getvalue(), **(assets or {})})


def students(folder: Path, **assets: Mapping[str, bytes]) -> tuple[Path, Path]:
    """Paths of the small and the full student."""
    small = student(folder / "small.edge", WEIGHTS[:SEEN], assets.get("small"))
    return small, student(folder / "big.edge", WEIGHTS, assets.get("big"))


def saved(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def certified(folder: Path, risks: tuple[float, ...] = (RISK,)) -> tuple[Path, Path]:
    """The small student, and the full one with cascades of the two."""
    small, big = students(folder)
    data = saved(folder / "data.npz", requests(500, 1))
    made, _ = calibrate_exits(big, folder / "certified.edge", Request(data, risks, first=small), lambda line: None)
    return small, made.root


def texts(path: Path, n: int) -> Path:
    """Raw texts as .jsonl."""
    rng = np.random.default_rng(3)
    rows = ["".join(chr(c) for c in rng.integers(32, 126, ALL)) for _ in range(n)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    return path

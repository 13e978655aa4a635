"""A text student trained on SST-2's training sentences and judged on its development sentences."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import edgekit
from benchmarks.common import QUALITY_HEADER, SPEED_HEADER, quality_rows, speed_row
from benchmarks.page import table
from edgekit.students.train import LONGEST_SENTENCE, train
from edgekit_runtime.bundle import read_arrays


def run_student(name: str, targets: str) -> str:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        material = train(name, folder / "material")
        start = time.monotonic()
        bundle = edgekit.convert(
            material.source,
            out=folder / f"{name}.edge",
            weights=material.weights,
            calibration=material.calibration,
            eval=material.evaluation,
            dynamic=("ids:0=B:1-64", f"ids:1=T:1-{LONGEST_SENTENCE}"),
        )
        seconds = time.monotonic() - start
        rows = quality_rows(name, bundle)
        sentence = {"ids": read_arrays(material.evaluation)["ids"][:1]}
        speed = speed_row(name, bundle, sentence)
        refused = [f"- not shipped: {r.format} {r.precision}: {r.reason}" for r in bundle.manifest.refused]
    return "\n\n".join(
        [
            f"Held-back: the development sentences of SST-2, padded to {LONGEST_SENTENCE} words. Converted to both "
            f"formats and verified in {seconds:.0f} s. {targets}",
            table(QUALITY_HEADER, rows),
            table(SPEED_HEADER, [speed]),
            *refused,
        ]
    )

"""Students that are programs of integers beside their floating-point twins: `python -m benchmarks.twins NAME FOLDER`.

Such a student has no fp32 graph of its own to be held against. Its twin is the same network in floating point, with
weights of a seed: neither bytes nor speed depend on their values. Writes FOLDER/NAME.twin.json.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import msgspec
from torch import nn

import edgekit
import edgekit_runtime as er
from benchmarks.alternate import alternate, ratio
from benchmarks.cells import FORMATS, Twin
from benchmarks.material import Arrays, inputs_at, timed_sizes
from edgekit.students import registry
from edgekit_runtime.bundle import Bundle

# Student -> `module:function` of the twin; `function()` gives the torch module.
TWINS = {"integer_rnn": "edgekit.students.integer_rnn:twin"}
TIMED_S = 8.0


def twin_step(student: registry.Student, bundle: Bundle, build: Callable[[], nn.Module]) -> Twin:
    """Bytes and speed of the bundle's integer graphs against fp32 graphs of the twin, timed in one alternation.

    Args:
        student: Whose inputs both take.
        bundle: Of the student.
        build: Gives the twin.
    """
    inputs = inputs_at(student, timed_sizes(student), 0)
    with tempfile.TemporaryDirectory() as folder:
        twin = edgekit.convert(
            build(), out=f"{folder}/twin.edge", precision="fp32", dynamic=student.dynamic(), example=inputs,
            name=f"{student.name}_twin", split_points=("none",),
        )  # fmt: skip
        return compare(bundle, twin, inputs)


def compare(bundle: Bundle, twin: Bundle, inputs: Arrays, seconds: float = TIMED_S) -> Twin:
    """Each format that both bundles have: int8 of the one against fp32 of the other."""
    present = {graph.id for graph in bundle.manifest.graphs}, {graph.id for graph in twin.manifest.graphs}
    kinds = [kind for kind in FORMATS if f"{kind}.int8" in present[0] and f"{kind}.fp32" in present[1]]
    calls, sessions = {}, []
    for kind in kinds:
        for of, name in ((bundle, f"{kind}.int8"), (twin, f"{kind}.fp32")):
            sessions.append(er.open(of.root, graph=name, threads=1))
            calls[name] = lambda s=sessions[-1]: s.run(inputs)
    try:
        seen = alternate(calls, seconds)
    finally:
        for session in sessions:
            session.close()
    return Twin(
        size={k: bundle.graph(f"{k}.int8").bytes / twin.graph(f"{k}.fp32").bytes for k in kinds},
        median_ms={name: timing.median_ms for name, timing in seen.items()},
        gain={kind: ratio(seen[f"{kind}.fp32"], seen[f"{kind}.int8"]) for kind in kinds},
    )


def main() -> int:
    name, folder = sys.argv[1], Path(sys.argv[2])
    warnings.simplefilter("ignore")
    module, function = TWINS[name].split(":")
    build = getattr(importlib.import_module(module), function)
    found = twin_step(registry.get(name), er.open_bundle(folder / f"{name}.edge"), build)
    path = folder / f"{name}.twin.json"
    written = path.with_suffix(".part")
    written.write_bytes(msgspec.json.encode({"twin": found}))
    written.replace(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

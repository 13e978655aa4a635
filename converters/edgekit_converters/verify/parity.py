"""How far a graph's outputs are from the student's. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.verify.metrics import cosine, holds_labels
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Parity

# fp32 against torch: largest error relative to the output's range (students.md, "works").
FP32_TOLERANCE = 1e-4


def parity(graph: str, reference: Sequence[Arrays], outputs: Sequence[Arrays]) -> tuple[Parity, ...]:
    """Compares every output over all samples.

    Raises:
        Refused: An output is missing, has another shape, or holds NaN where the student has none.
    """
    return tuple(
        _one(
            graph,
            name,
            [r[name] for r in reference],
            [_same_shape(graph, name, r, o) for r, o in zip(reference, outputs, strict=True)],
        )
        for name in reference[0]
    )


def _same_shape(graph: str, name: str, reference: Arrays, outputs: Arrays) -> np.ndarray:
    if name not in outputs:
        raise Refused(f"graph {graph} has no output {name!r} (it has {', '.join(outputs)})")
    if outputs[name].shape != reference[name].shape:
        raise Refused(
            f"graph {graph}, output {name!r} has shape {outputs[name].shape}; "
            f"the student gives {reference[name].shape}",
            remedy="a dynamic axis is frozen in the graph",
        )
    return outputs[name]


def _one(graph: str, name: str, reference: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Parity:
    want = np.concatenate([np.ravel(r) for r in reference]).astype(np.float64)
    got = np.concatenate([np.ravel(o) for o in outputs]).astype(np.float64)
    if np.isnan(got).any() and not np.isnan(want).any():
        raise Refused(
            f"graph {graph}, output {name!r} holds NaN where the student has none", remedy="report this graph"
        )
    error = got - want
    span = float(want.max() - want.min()) or float(np.abs(want).max()) or 1.0
    noise, signal = float(error @ error), float(want @ want)
    scores = reference[0].ndim >= 2 and reference[0].shape[-1] >= 2
    same = None
    if scores:
        pairs = list(zip(reference, outputs, strict=True))
        whole = holds_labels(reference[0])
        same = float(np.mean([np.mean(r == o if whole else np.argmax(r, -1) == np.argmax(o, -1)) for r, o in pairs]))
    return Parity(
        graph=graph,
        output=name,
        n=len(reference),
        max_error_fraction=float(np.abs(error).max()) / span,
        cosine_min=min(cosine(r, o) for r, o in zip(reference, outputs, strict=True)),
        sqnr_db=None if noise == 0 else float(10 * np.log10(max(signal, 1e-30) / noise)),
        same_label_fraction=same,
    )

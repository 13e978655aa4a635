"""How much noise each operator adds by being int8: the fp32 and the int8 file on the same samples, tensor by tensor.

    noise(t)   = sum (fp32 t - int8 t)^2 / sum (fp32 t)^2       for every activation t that both files name
    added(op)  = noise(its output) - noise(its input), at least 0

Noise that an operator only passes on is not its own. What an operator inside a recurrent step adds cannot be seen from
outside and is missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit_converters.captured import Arrays
from edgekit_converters.draft import Draft
from edgekit_converters.tflite import flatbuffer
from edgekit_converters.tflite.calibrate import runs
from edgekit_converters.tflite.flatbuffer import main_subgraphs, operators, text
from edgekit_converters.tflite.passes.names import tensor_key


def noise(fp32: Draft, int8: Draft, samples: Sequence[Arrays]) -> dict[str, float]:
    """Noise power over signal power that each quantized operator adds at its output, by operator name.

    Args:
        fp32: The float file.
        int8: The file made of it, with its recipe.
        samples: Calibration samples; one at a time is in memory.
    """
    assert int8.recipe is not None
    power: dict[str, float] = defaultdict(float)
    error: dict[str, float] = defaultdict(float)
    both = (runs(draft.path, draft.inputs, draft.signatures, samples) for draft in (fp32, int8))
    for float_run, int8_run in zip(*both, strict=True):
        wanted = {key: values.copy() for key, values in float_run}
        for key, values in int8_run:
            want = wanted.get(key)
            if want is not None and want.shape == values.shape:
                told = np.isfinite(want) & np.isfinite(values)  # masked scores are -inf in both
                power[key] += float(np.sum(np.square(want[told], dtype=np.float64)))
                error[key] += float(np.sum(np.square(want[told] - values[told], dtype=np.float64)))
    relative = {key: error[key] / power[key] for key in power if power[key]}
    sources = _sources(flatbuffer.read(fp32.path))
    return {
        op.op: max(0.0, relative[op.op] - _before(op.op, relative, sources))
        for op in int8.recipe.ops
        if op.scheme not in ("float", "follow") and op.op in relative
    }


def _before(name: str, relative: dict[str, float], sources: dict[str, str]) -> float:
    """Noise of the nearest activation above that both files show; 0 at the student's inputs."""
    seen = {name}
    while (name := sources.get(name, "")) not in relative:
        if not name or name in seen:
            return 0.0
        seen.add(name)
    return relative[name]


def _sources(model: Any) -> dict[str, str]:
    """Name of an operator (of its output) -> name of the activation it reads."""
    signatures = [text(signature.signatureKey) for signature in model.signatureDefs or []]
    found: dict[str, str] = {}
    for subgraph in main_subgraphs(model):
        for _, operator in operators(model, subgraph):
            if len(operator.inputs) and len(operator.outputs):
                read, made = int(operator.inputs[0]), int(operator.outputs[0])
                name = tensor_key(text(subgraph.tensors[made].name), signatures)
                found.setdefault(name, tensor_key(text(subgraph.tensors[read].name), signatures))
    return found

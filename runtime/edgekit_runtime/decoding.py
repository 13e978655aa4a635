"""Greedy decoding: an encoder that runs once, a step that runs once a token, and the loop between them.

    inputs ──► encoder ──► memory ─────────────┐
                                               ▼
    begin ──► token ──► decode_step(token, memory, inputs, states) ──► scores ──► argmax ──► token ─┐
                ▲                     ▲                └──► next_STATE ──► STATE ─┘                 │
                └─────────────────────┴───────────────────────────────────────────── until `end` ◄──┘

`decode_step` gets by name whatever it asks for: outputs of the encoder, inputs of the student, the last token, states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgekit_runtime import engines as registry
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import BundleInvalid
from edgekit_runtime.manifest import Decoding, Graph, Manifest, Tensor
from edgekit_runtime.runner import Runner, Student

Arrays = dict[str, np.ndarray]
Run = Callable[[Mapping[str, np.ndarray]], Arrays]


def greedy(
    encode: Run, step: Run, wanted: Sequence[Tensor], form: Decoding, inputs: Mapping[str, np.ndarray]
) -> Arrays:
    """Decodes one batch, each sample until its end token.

    Args:
        encode: Runs the encoder.
        step: Runs the decode step.
        wanted: Inputs of the step; the first axis of token and states is the batch.
        form: Tokens, states and limit.
        inputs: The student's inputs, batch first.

    Returns:
        The answer by name: tokens [B, limit] int64, 0 after the end.
    """
    batch = len(next(iter(inputs.values())))
    by_name = {tensor.name: tensor for tensor in wanted}
    first = _first(encode, wanted, form, inputs)
    token = first.pop(form.token)
    states = {state.input: first.pop(state.input) for state in form.states}
    feed = first
    answer = np.zeros((batch, form.limit), np.int64)
    ended = np.zeros(batch, bool)
    for place in range(form.limit):
        told = step({form.token: token.astype(by_name[form.token].dtype), **feed, **states})
        token = told[form.scores].argmax(axis=-1).astype(np.int64)
        ended |= token == form.end
        if ended.all():
            break
        answer[:, place] = np.where(ended, 0, token)
        states = {state.input: told[state.output] for state in form.states}
    return {form.output: answer}


def _first(encode: Run, wanted: Sequence[Tensor], form: Decoding, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """All inputs of the first step, in the order that it declares."""
    given = {**inputs, **encode(inputs)}
    batch, states = len(next(iter(inputs.values()))), {state.input for state in form.states}
    made: Arrays = {}
    for tensor in wanted:
        if tensor.name == form.token:
            made[tensor.name] = np.full(batch, form.begin, tensor.dtype)
        elif tensor.name in states:
            made[tensor.name] = _zeros(tensor, batch)
        else:
            made[tensor.name] = given[tensor.name].astype(tensor.dtype, copy=False)
    return made


def _zeros(tensor: Tensor, batch: int) -> np.ndarray:
    return np.zeros((batch, *(size for size in tensor.shape[1:] if isinstance(size, int))), tensor.dtype)


class Loop:
    """An encoder and a decode step of one bundle, open on one engine: runs like a single graph.

    Attributes:
        graph: The decode step, which stands for both.
        inputs: What a caller gives.
        outputs: What a caller gets.
    """

    def __init__(self, encoder: Runner, step: Runner, form: Decoding, outputs: tuple[Tensor, ...]) -> None:
        self.graph: Graph = step.graph
        self.inputs, self.outputs = encoder.inputs, outputs
        self._encoder, self._step, self._form = encoder, step, form

    def run(self, inputs: Mapping[str, object]) -> Arrays:
        """Decodes one request. Raises as `Runner.run`."""
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        return greedy(self._encoder.run, self._step.run, self._step.inputs, self._form, arrays)

    def first(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """What the step takes first, once the encoder has run: to measure it by itself. Raises as `Runner.run`."""
        return _first(self._encoder.run, self._step.inputs, self._form, inputs)

    def close(self) -> None:
        """Frees both graphs."""
        self._encoder.close()
        self._step.close()


def encoder_of(manifest: Manifest, step: Graph) -> Graph:
    """The encoder that goes with a decode step: of its format and precision, else that of its format in fp32.

    Raises:
        BundleInvalid: There is none, or the manifest does not say how to decode.
    """
    encoders = [graph for graph in manifest.graphs if graph.role == "encoder" and graph.format == step.format]
    for precision in (step.precision, "fp32"):
        for graph in encoders:
            if graph.precision == precision and manifest.decoding is not None:
                return graph
    raise BundleInvalid(f"graph {step.id} has no encoder to go with", remedy="convert the student again")


def open_loop(bundle: Bundle, step: Graph, engine: str, threads: int) -> Loop:
    """Opens a decode step with its encoder.

    Args:
        bundle: Holds both.
        step: The decode step.
        engine: Name of the engine that runs both.
        threads: Threads inside one operator.

    Raises:
        BundleInvalid: The bundle lacks what belongs to a decode step.
    """
    manifest = bundle.manifest
    encoder = encoder_of(manifest, step)
    assert manifest.decoding is not None
    runners = []
    for graph, inputs, outputs in (
        (encoder, manifest.inputs, encoder.outputs),
        (step, step.inputs, step.outputs),
    ):
        axes = {axis.symbol: axis for axis in manifest.axes}
        student = Student(
            inputs=inputs, outputs=outputs, axes=axes, advice="convert again with this size as an example"
        )
        runners.append(Runner(graph, registry.get(engine), bundle.graph_path(graph), threads=threads, student=student))
    return Loop(runners[0], runners[1], manifest.decoding, manifest.outputs)

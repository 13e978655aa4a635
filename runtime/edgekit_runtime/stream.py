"""Running a streaming student step by step, its state carried from one step to the next.

    state = zeros
    step 1: inputs 1 + state ──► run ──► outputs 1, state'
    step 2: inputs 2 + state' ─► run ──► outputs 2, state''        and so on

The manifest's `states` say which output becomes which input. A caller gives and gets everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgekit_runtime.errors import InputMismatch, UsageError
from edgekit_runtime.manifest import State, Tensor

Arrays = dict[str, np.ndarray]


class Stream:
    """One sequence (or a batch of them) in progress. Not for several threads: steps have an order.

    Args:
        run: Runs the graph once.
        inputs: What the graph takes, states among it.
        states: Which output becomes which input.
        fixed: Inputs that are the same in every step.
        initial: States before the first step by input name; others are zeros.
    """

    def __init__(
        self,
        run: Callable[[Mapping[str, np.ndarray]], Arrays],
        inputs: Sequence[Tensor],
        states: Sequence[State],
        *,
        fixed: Mapping[str, np.ndarray] | None = None,
        initial: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._run = run
        self._inputs = {tensor.name: tensor for tensor in inputs}
        self._states = tuple(states)
        self._fixed = {name: np.asarray(value) for name, value in (fixed or {}).items()}
        self._initial = {name: np.asarray(value) for name, value in (initial or {}).items()}
        known = [state.input for state in self._states]
        for name in self._initial:
            if name not in known:
                raise UsageError(f"{name!r} is no state", remedy=f"the states are: {', '.join(known)}")
        for name in self._fixed:
            if name not in self._inputs or name in known:
                free = [name for name in self._inputs if name not in known]
                raise UsageError(f"{name!r} is no input to fix", remedy=f"those are: {', '.join(free)}")
        self.states: Arrays = {}
        self.steps = 0

    def step(self, inputs: Mapping[str, object]) -> Arrays:
        """Runs one step and keeps its state.

        Args:
            inputs: Everything but states and fixed inputs.

        Returns:
            The outputs that are no states.

        Raises:
            InputMismatch: A state was given by hand, or names, dtypes or shapes do not fit.
            Refused: The engine failed; the state is what it was before.
        """
        given = [state.input for state in self._states if state.input in inputs]
        if given:
            raise InputMismatch(
                f"the stream itself carries {', '.join(given)}",
                remedy="leave it out; where a sequence begins with another state: stream(initial=...)",
            )
        arrays = {**self._fixed, **{name: np.asarray(value) for name, value in inputs.items()}}
        if not self.states:
            self.states = self._first(arrays)
        outputs = self._run({**arrays, **self.states})
        self.states = {state.input: outputs[state.output] for state in self._states}
        self.steps += 1
        carried = {state.output for state in self._states}
        return {name: value for name, value in outputs.items() if name not in carried}

    def reset(self) -> None:
        """Begins a new sequence: the next step starts from the initial state."""
        self.states = {}
        self.steps = 0

    def _first(self, arrays: Arrays) -> Arrays:
        sizes: dict[str, int] = {}
        for name, value in (*arrays.items(), *self._initial.items()):
            if name in self._inputs and len(self._inputs[name].shape) == value.ndim:
                sizes |= {
                    symbol: size
                    for symbol, size in zip(self._inputs[name].shape, value.shape, strict=True)
                    if isinstance(symbol, str)
                }
        return {state.input: self._initial.get(state.input, self._zeros(state.input, sizes)) for state in self._states}

    def _zeros(self, name: str, sizes: Mapping[str, int]) -> np.ndarray:
        tensor = self._inputs[name]
        # A symbol that no other input has says nothing about this request: one sequence.
        shape = [sizes.get(size, 1) if isinstance(size, str) else size for size in tensor.shape]
        return np.zeros(shape, tensor.dtype)

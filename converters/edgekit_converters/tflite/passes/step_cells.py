"""What one step of an LSTM, a GRU or an RNN computes, as operators that XNNPACK runs.

`row` is the input's share of the gates for this step, computed for all steps at once outside; `pushed` the state's.

    lstm   z = row + pushed;  i, f, s, o = SPLIT(LOGISTIC(z));  g = 2 * s - 1;  c = f * c + i * g;  h = o * TANH(c)
    gru    r, z, _ = SPLIT(LOGISTIC(row + pushed));  n = TANH(row_n + r * pushed_n);  h = n + z * (h - n)
    rnn    h = TANH(row + pushed), or RELU

What a step costs is its operators more than its arithmetic. Hence the rows of g in an LSTM's weights and biases are
doubled, as tanh(a) = 2 * sigmoid(2a) - 1: one LOGISTIC serves all gates; and a GRU's runs over the third gate as well.
Gates stand in torch's order: input, forget, cell, output; reset, update, new.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from edgekit_converters.tflite.passes.build import Builder

Body = Callable[[Builder, int, int, Sequence[int], tuple[int, int]], list[int]]


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of one layer and direction, ready for the products.

    Attributes:
        w_ih: [gates * H, F].
        w_hh: [gates * H, H].
        b_ih: [gates * H], added for all steps at once.
        b_hh: [gates * H], added in the step; None where all of it may be added outside.
    """

    w_ih: np.ndarray
    w_hh: np.ndarray
    b_ih: np.ndarray
    b_hh: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Cell:
    """A kind of recurrent cell.

    Attributes:
        label: As it stands in operators' names.
        gates: Rows of the weights over units.
        states: State tensors: 1, with a cell 2.
        weights: Prepares torch's w_ih, w_hh and list of biases (two or none).
        body: (builder, row [lines, gates * H], pushed likewise, states [lines, H], (lines, H)) -> new states.
    """

    label: str
    gates: int
    states: int
    weights: Callable[[np.ndarray, np.ndarray, Sequence[np.ndarray]], Weights]
    body: Body


def _sum(biases: Sequence[np.ndarray], size: int) -> np.ndarray:
    return sum(biases, np.zeros(size, np.float32))


def _lstm_weights(w_ih: np.ndarray, w_hh: np.ndarray, biases: Sequence[np.ndarray]) -> Weights:
    double = np.repeat(np.array([1, 1, 2, 1], np.float32), w_hh.shape[1])
    return Weights(w_ih * double[:, None], w_hh * double[:, None], _sum(biases, len(double)) * double)


def _lstm(build: Builder, row: int, pushed: int, states: Sequence[int], size: tuple[int, int]) -> list[int]:
    cell, wide = states[1], (size[0], 4 * size[1])
    gates = build.unary("LOGISTIC", build.elementwise("ADD", [row, pushed], wide), wide)
    into, forget, half, out = build.split(gates, 1, 4, size)
    doubled = build.elementwise("MUL", [half, build.constant(np.full(1, 2, np.float32))], size)
    candidate = build.elementwise("SUB", [doubled, build.constant(np.ones(1, np.float32))], size)
    kept = build.elementwise("MUL", [forget, cell], size)
    added = build.elementwise("MUL", [into, candidate], size)
    cell = build.elementwise("ADD", [kept, added], size)
    return [build.elementwise("MUL", [out, build.unary("TANH", cell, size)], size), cell]


def _gru_weights(w_ih: np.ndarray, w_hh: np.ndarray, biases: Sequence[np.ndarray]) -> Weights:
    if not biases:
        return Weights(w_ih, w_hh, _sum([], len(w_ih)))
    b_ih, b_hh = biases
    units = w_hh.shape[1]
    inside = np.concatenate([np.zeros(2 * units, np.float32), b_hh[2 * units :]])  # the reset gate scales it
    return Weights(w_ih, w_hh, b_ih + b_hh - inside, inside)


def _gru(build: Builder, row: int, pushed: int, states: Sequence[int], size: tuple[int, int]) -> list[int]:
    (hidden,), wide = states, (size[0], 3 * size[1])
    gates = build.unary("LOGISTIC", build.elementwise("ADD", [row, pushed], wide), wide)
    reset, update, _ = build.split(gates, 1, 3, size)
    row_new, pushed_new = (build.columns(whole, 2 * size[1], size) for whole in (row, pushed))
    scaled = build.elementwise("MUL", [reset, pushed_new], size)
    new = build.unary("TANH", build.elementwise("ADD", [row_new, scaled], size), size)
    change = build.elementwise("MUL", [update, build.elementwise("SUB", [hidden, new], size)], size)
    return [build.elementwise("ADD", [new, change], size)]


def _rnn_weights(w_ih: np.ndarray, w_hh: np.ndarray, biases: Sequence[np.ndarray]) -> Weights:
    return Weights(w_ih, w_hh, _sum(biases, len(w_ih)))


def _rnn(squash: str) -> Body:
    def body(build: Builder, row: int, pushed: int, states: Sequence[int], size: tuple[int, int]) -> list[int]:
        return [build.unary(squash, build.elementwise("ADD", [row, pushed], size), size)]

    return body


CELLS = {
    "lstm": Cell("LSTM", 4, 2, _lstm_weights, _lstm),
    "gru": Cell("GRU", 3, 1, _gru_weights, _gru),
    "rnn_tanh": Cell("RNN", 1, 1, _rnn_weights, _rnn("TANH")),
    "rnn_relu": Cell("RNN", 1, 1, _rnn_weights, _rnn("RELU")),
}

"""Row 14: integer-only RNN (2212.11791): LSTM with layer norm, attention over its steps, nothing but integers inside.

ids [B, T] -> table (V, 64) -> LSTM(128), its gates normalised -> attention over words -> Linear -> logits [B, 2]

- Layer norm in its mean-absolute-deviation form: (x - mean) / mean |x - mean|, a gain and a bias a gate.
- Sigmoid, tanh and exp are piecewise linear: minima and maxima of shifted lines.
- Weights are int8, sums int32. Values carry fixed points: 7 bits behind the point for states, gates and table, 6 for
  matrices and for what goes into a sigmoid or tanh. Matrices stay within +-63, where uint8 x int8 cannot saturate on
  any processor, so that every engine gives the same bits.

The same arithmetic is written once (`Arithmetic`) and runs in three ways: in integers (the student), in floating point
with roundings through which gradients pass (training), and in plain floating point (the twin to measure against).

Simplified: one direction, one layer norm a step over all gates and none on the cell.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from edgekit.students.layers import over_time
from edgekit.students.sampling import Arrays, check_size, seeded, token_ids

VOCABULARY = {"tiny": 200, "full": 12_000}
WIDTH = {"tiny": 8, "full": 64}
UNITS = {"tiny": 16, "full": 128}
# Points of fixed-point numbers, bits.
STATE, MATRIX = 7, 6
LOGIT = STATE + MATRIX
LARGEST = {"table": 127, "gain": 127}
MATRIX_LARGEST = 63


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """What differs between the three ways to compute.

    Attributes:
        product: x [N, K] times a matrix [K, M].
        shift: x over 2 to the power k, rounded down.
        divide: x over y, rounded towards 0.
    """

    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    shift: Callable[[torch.Tensor, int], torch.Tensor]
    divide: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _floor(x: torch.Tensor) -> torch.Tensor:
    """Rounds down, and lets gradients pass as if it did not."""
    return x + (torch.floor(x) - x).detach()


INTEGER = Arithmetic(
    product=lambda x, w: torch._int_mm(x.to(torch.int8), w),
    shift=lambda x, k: x >> k,
    divide=lambda x, y: torch.div(x, y, rounding_mode="trunc"),
)
TRAINING = Arithmetic(
    product=lambda x, w: x @ w,
    shift=lambda x, k: _floor(x / 2**k),
    divide=lambda x, y: _floor(x / y),
)
REAL = Arithmetic(product=lambda x, w: x @ w, shift=lambda x, k: x / 2**k, divide=lambda x, y: x / y)


def answer(way: Arithmetic, w: Mapping[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """Ids [B, T] to logits [B, 2] with 13 bits behind the point.

    Args:
        way: How to compute.
        w: `table` [V, E], `input` [E, 4H], `state` [H, 4H], `gain` and `bias` [4H], `attend` [H, A], `score` [A, 1],
            `head` [H, 2], `head_bias` [2]; integers, or floats that stand for them.
        ids: int64, 0 is padding.
    """
    kind = torch.int32 if w["gain"].dtype == torch.int32 else torch.float32
    x = w["table"].index_select(0, ids.flatten())
    rows = way.product(x, w["input"]).unflatten(0, ids.shape).transpose(0, 1)
    units = w["state"].shape[0]
    zeros = torch.zeros(ids.shape[0], units, dtype=kind)

    def step(state: list[torch.Tensor], row: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        hidden, cell = state
        gates = _normalise(way, way.shift(row + way.product(hidden, w["state"]), MATRIX))
        gates = (way.shift(gates * w["gain"], MATRIX) + w["bias"]).clamp(-512, 511)
        into, forget, candidate, out = (gates[:, gate * units : (gate + 1) * units] for gate in range(4))
        kept = _sigmoid(way, forget) * cell + _sigmoid(way, into) * _tanh(way, candidate)
        cell = way.shift(kept, STATE).clamp(-1024, 1023)
        hidden = way.shift(_sigmoid(way, out) * _tanh(way, way.shift(cell, 1)), STATE).clamp(-127, 127)
        return [hidden, cell], hidden.clone()

    states = over_time(step, [zeros, zeros.clone()], rows).transpose(0, 1)
    context = _attend(way, w, states, (ids != 0).to(kind))
    return way.product(context, w["head"]) + w["head_bias"]


def _normalise(way: Arithmetic, x: torch.Tensor) -> torch.Tensor:
    """(x - mean) / mean |x - mean| along the last axis, 64 is one deviation; its size is a power of 2."""
    size = x.shape[1]
    bits, kind = int(math.log2(size)), x.dtype
    distance = x - way.shift(x.sum(1, keepdim=True, dtype=kind), bits)
    deviation = way.shift(distance.abs().sum(1, keepdim=True, dtype=kind), bits).clamp(min=1)
    # No distance is more than size / 2 deviations: what is added makes the numerator positive.
    offset = 32 * size
    return (way.divide(distance * 64 + deviation * offset, deviation) - offset).clamp(-511, 511)


def _sigmoid(way: Arithmetic, x: torch.Tensor) -> torch.Tensor:
    """Slope 1/4 up to 1, 1/8 up to 3, then flat; 6 bits behind the point to 7."""
    steep, gentle = way.shift(x, 1), way.shift(x, 2)
    return torch.minimum(torch.maximum(steep, gentle - 16), gentle + 16).clamp(-64, 64) + 64


def _tanh(way: Arithmetic, x: torch.Tensor) -> torch.Tensor:
    """Slope 1 up to 0.625, 1/4 up to 2.1, then flat; 6 bits behind the point to 7."""
    gentle = way.shift(x, 1)
    return torch.minimum(torch.maximum(x * 2, gentle - 60), gentle + 60).clamp(-128, 128)


def _attend(way: Arithmetic, w: Mapping[str, torch.Tensor], states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """States [B, T, H] to their mean weighted by exp(score), [B, H]; exp is 1 + x/2, then 3/8 + x/8, then 0."""
    flat = states.flatten(0, 1)
    seen = _tanh(way, way.shift(way.product(flat, w["attend"]), STATE)).clamp(-127, 127)
    score = way.shift(way.product(seen, w["score"]), STATE).unflatten(0, mask.shape)[:, :, 0]
    score = score * mask + (mask - 1) * 8192  # padding never has the largest
    below = score - score.amax(1, keepdim=True)
    weight = torch.maximum(below + 128, way.shift(below, 2) + 48).clamp(min=0) * mask
    total = weight.sum(1, keepdim=True, dtype=weight.dtype).clamp(min=1)
    mixed = (weight[:, :, None] * states).sum(1, dtype=weight.dtype)
    return (way.divide(mixed + total * 128, total) - 128).clamp(-127, 127)


class IntegerRNN(nn.Module):
    """The student: int8 matrices, int32 vectors, no parameter that can be trained."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name, value in weights.items():
            self.register_buffer(name, value)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [B, T] int64 to whole-number logits [B, 2], given as float32."""
        return answer(INTEGER, dict(self.named_buffers()), ids).to(torch.float32)


class Learner(nn.Module):
    """What is trained: floating-point weights, rounded to the student's in every forward.

    Args:
        vocabulary: Rows of the table; id 0 is padding, id 1 unknown.
        width: Of a word vector.
        units: Of the LSTM; attention has half as many.
        way: `TRAINING`, or `REAL` for the floating-point twin, which rounds nothing.
    """

    def __init__(self, vocabulary: int, width: int, units: int, way: Arithmetic = TRAINING) -> None:
        super().__init__()
        self.way = way
        self._student: list[IntegerRNN] = []  # in a list, so that it is no part of the learner
        wide = 4 * units
        self.table = nn.Parameter(torch.empty(vocabulary, width).uniform_(-0.5, 0.5))
        self.input = nn.Parameter(torch.empty(width, wide).uniform_(-0.6, 0.6))
        self.state = nn.Parameter(torch.empty(units, wide).uniform_(-0.4, 0.4))
        self.gain = nn.Parameter(torch.full((wide,), 0.8))
        bias = torch.zeros(wide)
        bias[units : 2 * units] = 1.0  # remember at first
        self.bias = nn.Parameter(bias)
        self.attend = nn.Parameter(torch.empty(units, units // 2).uniform_(-0.3, 0.3))
        self.score = nn.Parameter(torch.empty(units // 2, 1).uniform_(-0.5, 0.5))
        self.head = nn.Parameter(torch.empty(units, 2).uniform_(-0.3, 0.3))
        self.head_bias = nn.Parameter(torch.zeros(2))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [B, T] int64 to logits [B, 2]."""
        rounded = {name: self._coded(name, value) for name, value in self.named_parameters()}
        return answer(self.way, rounded, ids) / 2 ** (LOGIT - 3)

    def _coded(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """A weight in the student's units; rounded unless this is the twin."""
        scaled = value * 2 ** _POINTS.get(name, MATRIX)
        if self.way is REAL:
            return scaled
        if name not in ("bias", "head_bias"):
            largest = LARGEST.get(name, MATRIX_LARGEST)
            scaled = scaled.clamp(-largest, largest)
        return scaled + (torch.round(scaled) - scaled).detach()

    def train(self, mode: bool = True) -> Learner:
        """As in torch; a student that is taught holds what was learnt whenever its learner is not learning."""
        super().train(mode)
        if not mode and self._student:
            self._student[0].load_state_dict(self.finished().state_dict())
        return self

    def finished(self) -> IntegerRNN:
        """The student with the weights learnt."""
        with torch.no_grad():
            coded = {name: self._coded(name, value).round() for name, value in self.named_parameters()}
        kinds = {name: torch.int32 if value.ndim == 1 else torch.int8 for name, value in coded.items()}
        return IntegerRNN({name: value.to(kinds[name]) for name, value in coded.items()}).eval()


_POINTS = {"table": STATE, "head_bias": LOGIT}


def learner(size: str = "full", seed: int = 0) -> Learner:
    """What the training recipe trains; see `build` for the arguments."""
    check_size(size)
    with seeded(seed):
        return Learner(VOCABULARY[size], WIDTH[size], UNITS[size])


def teach(student: IntegerRNN) -> Learner:
    """What is trained in the student's place; in evaluation mode the student has its weights."""
    with seeded(0):
        made = Learner(student.table.shape[0], student.table.shape[1], len(student.state))
    made._student.append(student)
    return made


def twin(size: str = "full", seed: int = 0) -> Learner:
    """The same network in floating point without any rounding, to measure against."""
    made = learner(size, seed)
    made.way = REAL
    return made.eval()


def build(size: str = "full", seed: int = 0) -> IntegerRNN:
    """The student with seeded weights, in evaluation mode.

    Args:
        size: `tiny` (V = 200, 16 units) or `full` (V = 12,000, 128 units).
        seed: Of the weights.

    Raises:
        UsageError: An unknown size.
    """
    return learner(size, seed).finished()


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random sentences: `ids` [batch, length] int64, padded at the end."""
    return {"ids": token_ids(batch, length, VOCABULARY[size], seed)}

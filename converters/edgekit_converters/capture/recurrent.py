"""Keeps the time axis of LSTM, GRU and RNN an axis while torch.export and the exporters look at them.

torch.export keeps `aten.lstm.input`, `aten.gru.input` and their like as single operators, but it learns their output
shapes by unrolling them over time, and so fixes the number of steps. Exporters that trace the program once more do the
same through torch's table of decompositions. For that time the unrolling is replaced by a function that only makes
tensors of the right shape:

    output [B, T, D*H] (or [T, B, D*H]),  h_n [L*D, B, H],  c_n [L*D, B, H]     (shapes as in torch.nn.LSTM)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def _output(data: torch.Tensor, hidden: torch.Tensor, bidirectional: bool) -> torch.Tensor:
    width = hidden.shape[-1] * (2 if bidirectional else 1)
    return data.new_empty((data.shape[0], data.shape[1], width))


def _lstm_shapes(
    data: torch.Tensor,
    hx: Sequence[torch.Tensor],
    params: Sequence[torch.Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _output(data, hx[0], bidirectional), hx[0].new_empty(hx[0].shape), hx[1].new_empty(hx[1].shape)


def _one_state_shapes(
    data: torch.Tensor,
    hx: torch.Tensor,
    params: Sequence[torch.Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return _output(data, hx, bidirectional), hx.new_empty(hx.shape)


@contextlib.contextmanager
def symbolic_time() -> Iterator[None]:
    """Within the block neither tracing nor decomposing fixes the number of steps; afterwards all is as before."""
    import torch

    with (
        _replaced(torch.ops.aten.lstm.input, _lstm_shapes),
        _replaced(torch.ops.aten.gru.input, _one_state_shapes),
        _replaced(torch.ops.aten.rnn_tanh.input, _one_state_shapes),
        _replaced(torch.ops.aten.rnn_relu.input, _one_state_shapes),
    ):
        yield


@contextlib.contextmanager
def _replaced(operator: Any, shapes: Callable[..., Any]) -> Iterator[None]:
    from torch._C import DispatchKey
    from torch._decomp import decomposition_table

    keys = (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd)
    with _entries(operator.py_kernels, keys, shapes), _entries(decomposition_table, (operator,), shapes):
        operator._dispatch_cache.clear()
        try:
            yield
        finally:
            operator._dispatch_cache.clear()


@contextlib.contextmanager
def _entries(table: dict[Any, Any], keys: Sequence[Any], value: Any) -> Iterator[None]:
    """The table with these entries set; what stood there before is put back."""
    before = {key: table[key] for key in keys if key in table}
    table.update(dict.fromkeys(keys, value))
    try:
        yield
    finally:
        for key in keys:
            table.pop(key, None)
        table.update(before)

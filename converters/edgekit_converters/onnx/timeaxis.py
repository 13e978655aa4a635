"""Keeps the time axis of recurrent layers an axis while the exporter decomposes the program.

`capture.recurrent.symbolic_time` does it for torch.export. The ONNX exporter traces once more, and there torch looks
shapes of LSTM and GRU up in its table of decompositions, which unrolls them over the example's length: every shape in
the file would then say 9 where the student says T, and a Reshape may freeze it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edgekit_converters.capture import recurrent


@contextlib.contextmanager
def symbolic_time() -> Iterator[None]:
    """Within the block neither tracing nor decomposing fixes the number of steps; afterwards all is as before."""
    import torch
    from torch._decomp import decomposition_table

    shapes = {
        torch.ops.aten.lstm.input: recurrent._lstm_shapes,
        torch.ops.aten.gru.input: recurrent._gru_shapes,
    }
    before = {operator: decomposition_table[operator] for operator in shapes if operator in decomposition_table}
    with recurrent.symbolic_time():
        decomposition_table.update(shapes)
        try:
            yield
        finally:
            for operator in shapes:
                decomposition_table.pop(operator, None)
            decomposition_table.update(before)

"""How torch operators that the exporter has no answer for are written in ONNX.

aten.rnn_tanh.input, aten.rnn_relu.input   one RNN a layer: W [D,H,F], R [D,H,H], B [D,2H] concatenated over directions
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def table() -> dict[Any, Callable[..., Any]]:
    """Torch operator -> function for `torch.onnx.export(custom_translation_table=...)`."""
    import torch

    return {
        torch.ops.aten.rnn_tanh.input: _rnn("Tanh"),
        torch.ops.aten.rnn_relu.input: _rnn("Relu"),
    }


def _rnn(activation: str) -> Callable[..., Any]:
    def translate(
        data: Any,
        hx: Any,
        params: Sequence[Any],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Any, Any]:
        from onnxscript import opset18 as op

        directions, count = (2 if bidirectional else 1), (4 if has_biases else 2)
        attributes = {
            "direction": "bidirectional" if bidirectional else "forward",
            "hidden_size": int(hx.shape[2]),
            "activations": [activation] * directions,
        }
        steps = op.Transpose(data, perm=[1, 0, 2]) if batch_first else data  # ONNX reads [T, B, F]
        final = []
        for layer in range(num_layers):
            start = layer * directions * count
            groups = [params[start + place * count :][:count] for place in range(directions)]
            w, r = (_stack(op, [group[index] for group in groups]) for index in (0, 1))
            b = _stack(op, [op.Concat(*group[2:], axis=0) for group in groups]) if has_biases else None
            first = op.Slice(hx, [layer * directions], [(layer + 1) * directions], [0])
            found, last = op.RNN(steps, w, r, b, None, first, **attributes)
            # [T, D, B, H] -> [T, B, D * H]
            steps = op.Reshape(op.Transpose(found, perm=[0, 2, 1, 3]), op.Constant(value_ints=[0, 0, -1]))
            final.append(last)
        answer = op.Transpose(steps, perm=[1, 0, 2]) if batch_first else steps
        return answer, op.Concat(*final, axis=0) if len(final) > 1 else final[0]

    return translate


def _stack(op: Any, parts: Sequence[Any]) -> Any:
    """One tensor with a new first axis over the directions."""
    raised = [op.Unsqueeze(part, op.Constant(value_ints=[0])) for part in parts]
    return op.Concat(*raised, axis=0) if len(raised) > 1 else raised[0]

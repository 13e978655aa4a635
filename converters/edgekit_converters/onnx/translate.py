"""How torch operators that the exporter has no answer for are written in ONNX.

aten.rnn_tanh.input, aten.rnn_relu.input   one RNN a layer: W [D,H,F], R [D,H,H], B [D,2H] concatenated over directions
aten._int_mm                               MatMulInteger(uint8, int8): x + 128 with a zero point of 128, as uint8 x int8
                                           is the fast kernel on x86
aten.__rshift__.Scalar                     (x - (x & (2^k - 1))) / 2^k, exact for every signed integer
aten.div.Tensor_mode                       "trunc" of two integers is Div; torch's exporter goes through float32, which
                                           holds 24 bits. All else as it does
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
        torch.ops.aten._int_mm.default: _int_mm,
        torch.ops.aten.__rshift__.Scalar: _shift_right,
        torch.ops.aten.div.Tensor_mode: _divide,
    }


def _shift_right(x: Any, bits: int) -> Any:
    from onnxscript import opset18 as op

    low = op.CastLike(op.Constant(value_int=2**bits - 1), x)
    return op.Div(op.Sub(x, op.BitwiseAnd(x, low)), op.CastLike(op.Constant(value_int=2**bits), x))


def _divide(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    from onnxscript import opset18 as op
    from onnxscript.function_libs.torch_lib.ops.core import aten_div_mode

    if rounding_mode == "trunc" and x.dtype.is_integer() and y.dtype == x.dtype:
        return op.Div(x, y)
    return aten_div_mode(x, y, rounding_mode)


def _int_mm(left: Any, right: Any) -> Any:
    import onnx
    from onnxscript import opset18 as op

    zero = op.Constant(value=onnx.helper.make_tensor("zero", onnx.TensorProto.UINT8, [], [128]))
    shifted = op.Add(
        op.Cast(left, to=onnx.TensorProto.INT32), op.Cast(op.Constant(value_int=128), to=onnx.TensorProto.INT32)
    )
    return op.MatMulInteger(op.Cast(shifted, to=onnx.TensorProto.UINT8), right, zero)


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

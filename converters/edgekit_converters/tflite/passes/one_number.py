"""Pass: a constant that is one number all over, in front of an operator that stretches its operands, is one number.

    before: RIGHT_SHIFT(x [64, 64], 7 [64, 64])    16 KB, and once more for the next signature's x [32, 64]
    after:  RIGHT_SHIFT(x [64, 64], 7 [1, 1])      4 bytes, one constant for all signatures

litert-torch writes the number of `x >> 7` out in the shape of x. Small ones stay as they are: the kernel for operands
of equal shape is the quicker one, and a step of a loop is run a thousand times.
"""

from __future__ import annotations

import numpy as np

from edgekit_converters.tflite.flatbuffer import Model, add_constant, data_of, operators, shape_of, text

STRETCHING = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "RIGHT_SHIFT")
LEAST_BYTES = 4096
_DTYPES = ("float32", "int32")


def one_number(model: Model) -> int:
    """Replaces such constants in place and returns how many operands it changed."""
    count = 0
    for subgraph in model.subgraphs:
        for kind, operator in operators(model, subgraph):
            if kind not in STRETCHING:
                continue
            whole = shape_of(subgraph.tensors[int(operator.outputs[0])])
            for place, other in ((0, 1), (1, 0)):
                tensor = subgraph.tensors[int(operator.inputs[place])]
                values = data_of(model, tensor)
                if values is None or values.nbytes < LEAST_BYTES or values.dtype.name not in _DTYPES:
                    continue
                # The answer keeps its shape only where the other operand has it.
                if shape_of(subgraph.tensors[int(operator.inputs[other])]) != whole or not _uniform(values):
                    continue
                one = values.reshape(-1)[:1].reshape((1,) * values.ndim)
                inputs = [int(index) for index in operator.inputs]
                inputs[place] = add_constant(model, subgraph, text(tensor.name), one)
                operator.inputs = inputs
                count += 1
    return count


def _uniform(values: np.ndarray) -> bool:
    """Whether all are the same bits: 0.0 and -0.0 are not."""
    bits = values.reshape(-1).view(np.int32)
    return bool((bits == bits[0]).all())

"""Attributes that hold their operator's default leave the file, and the answers keep their bits."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgekit_converters.onnx.defaults import drop_defaults
from edgekit_converters.onnx.names import _letters
from edgekit_converters.onnx.session import open_session, run_session, serialize

GRAPH = """
<ir_version: 8, opset_import: ["": 18]>
g (float[1, 2, 9, 9] x) => (float[1, 6] y)
<float[3, 2, 3, 3] w = {%s}, float[6, 12] m = {%s}>
{
  a = Conv <group = 1, pads = [0, 0, 0, 0], auto_pad = "NOTSET", strides = [1, 1], dilations = [1, 1],
            kernel_shape = [3, 3]> (x, w)
  b = MaxPool <kernel_shape = [2, 2], strides = [3, 3], ceil_mode = 0, pads = [0, 0, 0, 0]> (a)
  c = Flatten <axis = 1> (b)
  n = Transpose <perm = [1, 0]> (m)
  n2 = Transpose <perm = [1, 0]> (n)
  y = Gemm <alpha = 1.0, beta = 1.0, transA = 0, transB = 1> (c, n2)
}
"""


def model() -> ir.Model:
    rng = np.random.default_rng(0)
    words = [", ".join(f"{value:.4f}" for value in rng.standard_normal(count)) for count in (54, 72)]
    return ir.from_proto(onnx.parser.parse_model(GRAPH % tuple(words)))


def test_what_is_so_without_being_said_is_not_said() -> None:
    made = model()
    x = {"x": np.random.default_rng(1).standard_normal((1, 2, 9, 9)).astype(np.float32)}
    want = run_session(open_session(made), x)["y"]
    before = len(serialize(made))
    assert drop_defaults(made) == 11
    kept = {node.op_type: set(node.attributes) for node in made.graph}
    assert kept == {
        "Conv": {"kernel_shape"},
        "MaxPool": {"kernel_shape", "strides"},
        "Flatten": set(),
        "Transpose": {"perm"},
        "Gemm": {"transB"},
    }
    assert before - len(serialize(made)) > 150
    np.testing.assert_array_equal(run_session(open_session(made), x)["y"], want)


def test_the_default_is_that_of_the_graphs_own_opset() -> None:
    """Softmax ran along axis 1 up to opset 12 and along the last one since."""
    for opset, axis, left in ((12, 1, set()), (12, -1, {"axis"}), (13, 1, {"axis"}), (13, -1, set())):
        text = f'<ir_version: 7, opset_import: ["": {opset}]> g (float[2, 3, 4] x) => (float[2, 3, 4] y) '
        made = ir.from_proto(onnx.parser.parse_model(text + f"{{ y = Softmax <axis = {axis}> (x) }}"))
        drop_defaults(made)
        assert {name for node in made.graph for name in node.attributes} == left


def test_operators_of_other_domains_keep_all_they_say() -> None:
    text = '<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1]> g (float[2] x) => (float[2] y) '
    made = ir.from_proto(onnx.parser.parse_model(text + "{ y = com.microsoft.QuickGelu <alpha = 1.702> (x) }"))
    assert drop_defaults(made) == 0


@pytest.mark.parametrize(("number", "name"), [(0, "a"), (25, "z"), (26, "aa"), (701, "zz"), (702, "aaa")])
def test_names_are_short(number: int, name: str) -> None:
    assert _letters(number) == name

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx_graphs import normal, parse

from edgekit_converters.onnx import macs, tables
from edgekit_converters.onnx.edit import Editor
from edgekit_converters.onnx.resolve import Facts, resolve

PLACES = """
agraph (int64[N] last) => (float[T,32] y) {
  y = Slice(table, start, last, axes)
}"""
CONSTANTS = {"start": np.array([0], np.int64), "axes": np.array([0], np.int64)}


def test_rows_of_a_table_that_are_taken_from_the_start_have_a_scale_each() -> None:
    table = normal(300, 32) * np.geomspace(0.01, 10, 300, dtype=np.float32)[:, None]
    model = parse(PLACES, table=table, **CONSTANTS)
    (op,) = resolve(model, Facts({"table": (300, 32), "y": (100, 32)})).ops
    assert op.scheme == "weight_row" and (op.weight_bytes, op.touched_bytes) == (table.nbytes, table.nbytes // 3)
    editor = Editor(model)
    tables.apply(editor, list(model.graph))
    editor.finish()
    found = ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, {"last": np.array([7], np.int64)})[0]
    assert found.shape == (7, 32)
    assert (np.abs(found - table[:7]).max(1) <= np.abs(table[:7]).max(1) / 127 * 0.51).all()


@pytest.mark.parametrize(
    ("table", "axes"),
    [(normal(300, 32), [1]), (normal(4, 32), [0]), (normal(300, 4, 8), [0])],
    ids=["columns", "small", "cube"],
)
def test_what_is_no_large_table_of_rows_stays_float(table: np.ndarray, axes: list[int]) -> None:
    model = parse(PLACES, table=table, **CONSTANTS | {"axes": np.array(axes, np.int64)})
    (op,) = resolve(model, Facts({})).ops
    assert op.scheme == "float"


def test_a_slice_of_a_feature_map_has_no_weights() -> None:
    model = parse(
        "agraph (float[B,8] table) => (float[B,4] y) { y = Slice(table, start, last, axes) }",
        last=np.array([4]),
        **CONSTANTS,
    )
    assert macs.weight_bytes(next(iter(model.graph))) == 0

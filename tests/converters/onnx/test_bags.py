from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import kinds, normal, parse, run, sqnr_db

from edgekit_converters.onnx import bags, external
from edgekit_converters.onnx.edit import Editor
from edgekit_converters.onnx.resolve import Facts, resolve
from edgekit_converters.onnx.session import open_session, run_session

BAG = """agraph (int64[B,T] ids, float[B,1,T] w) => (float[B,1,64] y) {
    rows = Gather<axis=0>(table, ids)
    y = MatMul(w, rows)
}"""
FLAT = BAG.replace("int64[B,T] ids, float[B,1,T] w", "int64[N] ids, float[B,N] w").replace("[B,1,64]", "[B,64]")


def summed(text: str, table: np.ndarray):
    model = parse(text, table=table)
    editor = Editor(model)
    bags.apply(editor, [node for node in model.graph if node.op_type == "MatMul"])
    editor.finish()
    return model


@pytest.mark.parametrize("text", [BAG, FLAT])
def test_a_bag_of_int8_rows_is_close_and_the_rows_stay_int8(text: str) -> None:
    table = normal(300, 64) * np.random.default_rng(3).uniform(0.1, 3, (300, 1)).astype(np.float32)
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 300, (2, 40) if text is BAG else (40,))
    w = rng.normal(size=(2, 1, 40) if text is BAG else (2, 40)).astype(np.float32)
    model = summed(text, table)
    assert "MatMulInteger" in kinds(model) and "MatMul" not in kinds(model)
    # 8-bit rows and 8-bit weights of one scale a bag: about 38 dB where rows differ tenfold.
    assert sqnr_db(w @ table[ids], run(model, ids=ids, w=w)["y"]) > 33


COUNTED = """agraph (int64[B,T] ids) => (float[B,1,64] y) {
    rows = Gather<axis=0>(table, ids)
    padding = Equal(ids, pad)
    real = Not(padding)
    f = Cast<to=1>(real)
    w = Unsqueeze(f, one)
    y = MatMul(w, rows)
}"""
ALL = COUNTED.replace("padding = Equal(ids, pad)", "").replace("real = Not(padding)", "real = GreaterOrEqual(ids, pad)")
MASKED = """agraph (int64[N] ids, int64[B,N] member, int64[N] other) => (float[B,64] y) {
    rows = Gather<axis=0>(table, ids)
    inside = Equal(member, other)
    w = Cast<to=1>(inside)
    y = MatMul(w, rows)
}"""


def counted(text: str, table: np.ndarray, pad: int = 0):
    model = parse(text, table=table, pad=np.array(pad), one=np.array([1]))
    editor = Editor(model)
    bags.apply(editor, [node for node in model.graph if node.op_type == "MatMul"])
    editor.finish()
    return model


@pytest.mark.parametrize(("text", "pad", "where"), [(COUNTED, 7, False), (ALL, 0, True)])
def test_rows_that_count_or_do_not_are_summed_with_whole_factors(text: str, pad: int, where: bool) -> None:
    table = normal(300, 64) * np.random.default_rng(3).uniform(0.5, 2, (300, 1)).astype(np.float32)
    ids = np.random.default_rng(1).integers(0, 300, (3, 40))
    ids[:, 30:] = 7
    model = counted(text, table, pad)
    assert ("Where" in kinds(model)) is where
    assert not {"QuantizeLinear", "ReduceMax", "MatMul"} & set(kinds(model))
    real = (ids != 7 if text is COUNTED else ids >= 0).astype(np.float32)
    want = real[:, None] @ table[ids]
    got = run(model, ids=ids)["y"]
    # Only the table is rounded: 8 bits of rows whose largest value is about 2.5 times their root mean square.
    assert sqnr_db(want, got) > 38
    for bag in range(3):
        np.testing.assert_array_equal(run(model, ids=ids[bag : bag + 1])["y"], got[bag : bag + 1])


def test_a_bag_of_padding_alone_is_zero() -> None:
    assert not run(counted(COUNTED, normal(300, 64), 7), ids=np.full((2, 5), 7))["y"].any()


def test_bags_on_two_axes_are_summed_with_whole_factors() -> None:
    table, rng = normal(300, 64), np.random.default_rng(1)
    ids, member, other = rng.integers(0, 300, 40), rng.integers(0, 3, (3, 40)), rng.integers(0, 3, 40)
    model = counted(MASKED, table)
    assert "Where" in kinds(model) and "QuantizeLinear" not in kinds(model)
    want = (member == other).astype(np.float32) @ table[ids]
    assert sqnr_db(want, run(model, ids=ids, member=member, other=other)["y"]) > 38


def test_a_table_whose_rows_differ_too_much_keeps_a_scale_a_row() -> None:
    table = normal(300, 64)
    table[5] *= 100
    assert bags.whole_scales(table) is None
    model = counted(COUNTED, table)
    assert "QuantizeLinear" in kinds(model)
    ids = np.arange(1, 41)[None]
    ids[ids == 5] = 6
    assert sqnr_db(table[ids].sum(1, keepdims=True), run(model, ids=ids)["y"]) > 33


@pytest.mark.parametrize("levels", [127, 63])
def test_whole_factors_cover_every_row_and_cost_a_sixteenth_at_most(levels: int) -> None:
    table = normal(500, 32) * np.random.default_rng(3).uniform(0.4, 2, (500, 1)).astype(np.float32)
    table[3] = 0
    found = bags.whole_scales(table, levels=levels)
    assert found is not None
    factors, unit = found
    need = np.abs(table).max(1) / levels
    scale = factors.astype(np.float32) * unit
    assert (scale >= need * (1 - 1e-5)).all()
    live = need > 0
    assert (scale[live] <= need[live] * (1 + 1 / 16) * (1 + 1e-5)).all()


def test_the_recipe_tells_which_form_a_sum_takes() -> None:
    def reason(table: np.ndarray) -> str:
        model = parse(COUNTED, table=table, pad=np.array(0), one=np.array([1]))
        shapes = {"ids": (2, 9), "w": (2, 1, 9), "rows": (2, 9, 64), "y": (2, 1, 64)}
        return next(op.reason for op in resolve(model, Facts(shapes)).ops if op.kind == "MatMul")

    uneven = normal(300, 64)
    uneven[5] *= 100
    assert "whole multiples" in reason(normal(300, 64))
    assert "one scale a bag" in reason(uneven)


def test_bags_do_not_see_each_other_and_an_empty_one_is_zero() -> None:
    model = summed(BAG, normal(300, 64))
    rng = np.random.default_rng(1)
    ids, w = rng.integers(0, 300, (3, 9)), rng.random((3, 1, 9), np.float32)
    w[1] *= 1000
    w[2] = 0
    together = run(model, ids=ids, w=w)["y"]
    np.testing.assert_array_equal(run(model, ids=ids[:1], w=w[:1])["y"], together[:1])
    assert not together[2].any()


def test_only_rows_of_an_int8_table_that_nobody_else_reads_are_summed_in_int8() -> None:
    def schemes(text: str, **facts: object) -> dict[str, str]:
        model = parse(text, table=normal(300, 64))
        shapes = {"ids": (2, 9), "w": (2, 1, 9), "rows": (2, 9, 64), "y": (2, 1, 64)}
        return {op.kind: op.scheme for op in resolve(model, Facts(shapes, **facts)).ops}  # type: ignore[arg-type]

    assert schemes(BAG) == {"Gather": "weight_row", "MatMul": "dynamic_row"}
    assert schemes(BAG, float_patterns=("MatMul*",)) == {"Gather": "weight_row", "MatMul": "float"}
    assert schemes(BAG, float_patterns=("Gather*",)) == {"Gather": "float", "MatMul": "float"}
    read_twice = BAG.replace("(float[B,1,64] y)", "(float[B,1,64] y, float[B,T,64] rows)")
    assert schemes(read_twice) == {"Gather": "weight_row", "MatMul": "float"}


def test_a_request_touches_the_rows_it_looks_up_and_all_of_every_other_weight() -> None:
    model = parse(BAG, table=normal(300, 64))
    shapes = {"ids": (2, 9), "w": (2, 1, 9), "rows": (2, 9, 64), "y": (2, 1, 64)}
    op = resolve(model, Facts(shapes)).ops[0]
    assert (op.weight_bytes, op.touched_bytes) == (300 * 64 * 4, 18 * 64 * 4)


def test_large_tensors_lie_in_a_file_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "LARGE", 50_000)
    table, ids, w = normal(300, 64), np.array([[3, 5]]), np.ones((1, 1, 2), np.float32)
    model = parse(BAG, table=table)
    (data,) = external.write(model, tmp_path / "g.onnx", "onnx.fp32")
    assert (data.name, data.stat().st_size) == ("onnx.fp32.data", table.nbytes)
    assert (tmp_path / "g.onnx").stat().st_size < 2000
    got = run_session(open_session(tmp_path / "g.onnx"), {"ids": ids, "w": w})["y"]
    np.testing.assert_allclose(got, w @ table[ids], rtol=1e-6)
    data.replace(tmp_path / "moved")  # what was read is in memory
    again = parse(BAG, table=table)
    external.write(again, tmp_path / "g.onnx", "onnx.fp32")
    np.testing.assert_array_equal(
        external.read(tmp_path / "g.onnx").graph.initializers["table"].const_value.numpy(), table
    )
    small = parse(BAG, table=normal(30, 64))
    assert external.write(small, tmp_path / "s.onnx", "s") == ()

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

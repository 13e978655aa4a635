from __future__ import annotations

import numpy as np
from onnx_graphs import normal, parse

from edgekit_converters.onnx.resolve import Facts, resolve
from edgekit_converters.onnx.sensitivity import noise

TEXT = """
agraph (float[B,4,8,8] x) => (float[B,4,8,8] z) {
  a = Conv<pads=[1,1,1,1]>(x, even)  b = Relu(a)  y = Conv<pads=[1,1,1,1]>(b, loud)  z = Conv<pads=[1,1,1,1]>(y, quiet)
}"""


def test_the_operator_that_reads_an_outlier_channel_is_the_noisiest() -> None:
    # One channel of y is 300 times larger than the others and hardly matters to z: its scale swallows the others.
    loud, quiet = normal(4, 4, 3, 3), normal(4, 4, 3, 3)
    loud[0] *= 300
    quiet[:, 0] /= 3000
    model = parse(TEXT, even=normal(4, 4, 3, 3), loud=loud, quiet=quiet)
    for number, node in enumerate(model.graph):
        node.name = f"n{number}"
    recipe = resolve(model, Facts({}))
    samples = [{"x": np.random.default_rng(seed).standard_normal((1, 4, 8, 8)).astype(np.float32)} for seed in range(8)]
    found = noise(model, recipe, samples)
    assert set(found) == {"n0", "n2", "n3"}
    assert max(found, key=found.__getitem__) == "n3"
    assert found["n0"] < 10 ** (-30 / 10)  # a plain convolution keeps more than 30 dB
    assert found["n3"] > 10 * found["n0"]


def test_the_graph_itself_is_left_as_it_is() -> None:
    model = parse(TEXT, even=normal(4, 4, 3, 3), loud=normal(4, 4, 3, 3), quiet=normal(4, 4, 3, 3))
    for number, node in enumerate(model.graph):
        node.name = f"n{number}"
    before = len(model.graph), [value.name for value in model.graph.outputs]
    noise(model, resolve(model, Facts({})), [{"x": np.ones((1, 4, 8, 8), np.float32)}])
    assert (len(model.graph), [value.name for value in model.graph.outputs]) == before


def test_a_sum_of_looked_up_rows_is_ranked_at_every_length() -> None:
    # Its twin sums int8 rows too: with its rows in float it would be another operator, one whose columns are the words.
    model = parse(
        "agraph (int64[B,T] ids, float[B,1,T] w) => (float[B,1,64] y) { rows = Gather<axis=0>(table, ids) "
        "y = MatMul(w, rows) }",
        table=normal(300, 64),
    )
    for node in model.graph:
        node.name = node.op_type
    shapes = {"ids": (1, 9), "w": (1, 1, 9), "rows": (1, 9, 64), "y": (1, 1, 64)}
    rng = np.random.default_rng(0)
    samples = [{"ids": rng.integers(0, 300, (1, n)), "w": np.full((1, 1, n), 1 / n, np.float32)} for n in (9, 4, 17)]
    found = noise(model, resolve(model, Facts(shapes)), samples)
    assert set(found) == {"Gather", "MatMul"}
    assert all(0 < power < 10 ** (-38 / 10) for power in found.values())  # 8 bits of normal rows keep about 44 dB

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import kinds, normal, parse, run

from edgekit_converters.onnx.fold_pad import fold_pad

GRAPH = """
agraph (float[1,2,6,6] x) => (float[1,1,H,W] y) {
  padded = Pad(x, amounts, fill)  y = Conv<strides=[2,2], pads=[1,0,0,0]>(padded, w)
}"""


def constants(amounts: list[int], fill: float) -> dict[str, np.ndarray]:
    return {"amounts": np.array(amounts, np.int64), "fill": np.array(fill, np.float32), "w": normal(1, 2, 3, 3)}


@pytest.mark.parametrize("amounts", [[0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 2, 1, 0, 0, 0, 3]])
def test_zeros_around_a_picture_become_the_convolutions_padding(amounts: list[int]) -> None:
    before, after = (parse(GRAPH, **constants(amounts, 0.0)) for _ in range(2))
    assert fold_pad(after) == 1
    assert kinds(after) == ["Conv"]
    x = normal(1, 2, 6, 6, seed=1)
    np.testing.assert_allclose(run(after, x=x)["y"], run(before, x=x)["y"], atol=1e-6)


@pytest.mark.parametrize(
    ("amounts", "fill"),
    [([0, 0, 0, 0, 0, 0, 1, 1], 1.0), ([0, 0, -1, 0, 0, 0, 1, 1], 0.0), ([0, 1, 0, 0, 0, -1, 1, 1], 0.0)],
)
def test_other_padding_stays(amounts: list[int], fill: float) -> None:
    model = parse(GRAPH, **constants(amounts, fill))
    assert fold_pad(model) == 0
    assert kinds(model) == ["Pad", "Conv"]

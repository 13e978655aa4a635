from __future__ import annotations

import pytest

from edgekit_runtime.adaptive import names
from edgekit_runtime.manifest import First, OperatingPoint, SplitPoint

POINT = OperatingPoint(
    id="onnx.int8.risk0.01",
    graph_chain=("onnx.int8",),
    thresholds=(0.9, 0.0),
    risk=0.01,
    confidence_level=0.95,
    n=300,
    empirical_risk=0.0,
    exit_fractions=(0.5, 0.5),
    of="onnx.int8",
)
FIRST = First(name="small", bundle_id="a", graph="onnx.int8", sha256="b", output="y", shared=False)
CUT = SplitPoint(id="onnx.int8.layer1", tensors=(), bytes=1, before=(), after=(), of="onnx.int8", place="layer1")


def cascade() -> OperatingPoint:
    import msgspec

    return msgspec.structs.replace(POINT, first=FIRST)


@pytest.mark.parametrize(("local", "suffix"), [("onnx.int8", ""), ("tflite.int8", "@onnx.int8")])
def test_an_id_names_the_graph_only_where_it_is_not_the_local_one(local: str, suffix: str) -> None:
    assert names.certified(POINT, local) == f"exit:0.01{suffix}"
    assert names.certified(cascade(), local) == f"cascade:0.01{suffix}"
    assert names.handed_over(POINT, local, CUT) == f"exit:0.01{suffix}:split:layer1"
    assert names.handed_over(cascade(), local) == f"cascade:0.01{suffix}:offload"
    assert names.handed_over(cascade(), local, named=True) == f"cascade:small:0.01{suffix}:offload"
    assert names.cut(CUT, local) == f"split:layer1{suffix}"


def test_a_split_point_without_a_place_goes_by_its_id() -> None:
    import msgspec

    assert names.place(msgspec.structs.replace(CUT, place="")) == "onnx.int8.layer1"

"""A session that runs one of a bundle's full graphs is answered by the same one, whichever the server likes best."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'edgekit[remote]'")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install 'edgekit[onnxruntime]'")

import edgekit_runtime as er
from edgekit.serve.models import Models, WrongGraph
from edgekit_runtime.errors import Refused
from edgekit_runtime.remote.client import Client
from edgekit_runtime.testing import make_bundle, matmul_onnx

W = np.arange(12, dtype=np.float32).reshape(4, 3)
X = np.ones((1, 4), np.float32)
GRAPHS = {"onnx.fp32": matmul_onnx(W), "onnx.int8": matmul_onnx(W + 0.25)}


def _hashes(bundle: Path) -> dict[str, str]:
    with er.open_bundle(bundle) as opened:
        return {graph.id: graph.sha256 for graph in opened.manifest.graphs}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    np.savez(tmp_path / "golden.npz", x=X)
    golden = {"golden/inputs.npz": (tmp_path / "golden.npz").read_bytes()}
    return make_bundle(tmp_path / "tiny.edge", graphs=GRAPHS, files=golden)


@pytest.mark.parametrize(("graph", "change"), [("onnx.fp32", 0.0), ("onnx.int8", 0.25)])
def test_the_answer_is_that_of_the_graph_that_the_device_runs(start, bundle, graph, change) -> None:
    with start((bundle,)) as (address, _), er.open(bundle, graph, server=f"grpc://{address}") as session:
        offload = next(offer for offer in session._offers.values() if offer.cost.kind == "offload")
        client = Client(f"grpc://{address}", streams=True)
        reply = client.call(offload.model, {"x": X}, parameters={"sha256": offload.sha256})
        client.close()
        assert np.array_equal(reply.tensors["y"], session.local.run({"x": X})["y"])
        assert np.allclose(reply.tensors["y"], X @ (W + change))
        assert reply.parameter("sha256") == _hashes(bundle)[graph]


def test_each_full_graph_can_be_asked_for_by_name_and_an_unknown_hash_by_none(start, bundle) -> None:
    with start((bundle,)) as (address, _):
        client = Client(f"grpc://{address}")
        answers = [client.call(f"tiny.graph.{graph}", {"x": X}).tensors["y"][0, 0] for graph in GRAPHS]
        assert answers == [W[:, 0].sum(), W[:, 0].sum() + 1]
        assert client.call("tiny", {"x": X}).tensors["y"][0, 0] in answers  # whichever this machine likes best
        with pytest.raises(Refused, match="another version of this graph is here"):
            client.call("tiny", {"x": X}, parameters={"sha256": "0" * 64})
        client.close()


def test_a_graph_without_an_engine_here_is_refused_with_the_way_out(tmp_path: Path) -> None:
    def older(found):
        graphs = [msgspec.structs.replace(row, min_engine_version="99") for row in found.graphs[1:]]
        return msgspec.structs.replace(found, graphs=(found.graphs[0], *graphs))

    bundle = make_bundle(tmp_path / "tiny.edge", graphs=GRAPHS, change=older)
    models = Models([bundle])
    with pytest.raises(WrongGraph, match="no engine for the graph that the device runs, it runs onnx") as refused:
        models.meant(models.get("tiny"), _hashes(bundle)["onnx.int8"])
    assert "graph='onnx.fp32'" in refused.value.remedy
    models.close()


def test_a_replica_takes_the_graph_that_its_front_has_chosen(bundle) -> None:
    models = Models([bundle], 1, "onnx.fp32")
    assert models.get("tiny").graph == "onnx.fp32" and "tiny.graph.onnx.int8" in [model.name for model in models]
    models.close()

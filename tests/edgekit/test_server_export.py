"""`edgekit export-server`: what Triton and KServe will read."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import edgekit_runtime as er
from edgekit import server_export
from edgekit.cli.app import run
from edgekit.server_export import config, manifest_text
from edgekit_runtime.chain import Chain
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Tensor
from edgekit_runtime.testing import make_bundle

pytest.importorskip("onnxruntime")
X = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny.edge")


def test_the_full_model_stands_where_triton_looks_for_it(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "models"
    assert run(["export-server", str(bundle), "--to", "triton", "-o", str(out)]) == 0
    name = er.open_bundle(bundle).manifest.name
    assert (out / name / "config.pbtxt").read_text().splitlines() == [
        f'name: "{name}"',
        'platform: "onnxruntime_onnx"',
        "max_batch_size: 64",
        "input {",
        '  name: "x"',
        "  data_type: TYPE_FP32",
        "  dims: [4]",
        "}",
        "output {",
        '  name: "y"',
        "  data_type: TYPE_FP32",
        "  dims: [3]",
        "}",
        "dynamic_batching { }",
    ]
    x = np.ones((2, 4), np.float32)
    with er.open(bundle) as whole, er.open(out / name / "1" / "model.onnx") as served:
        np.testing.assert_array_equal(served.run({"x": x})["y"], whole.run({"x": x})["y"])


def test_every_axis_is_listed_where_no_batch_stands_first() -> None:
    text = config(
        "m", [Tensor(name="ids", dtype="int64", shape=("T", 3))], [Tensor(name="y", dtype="int8", shape=(1,))], 0
    )
    assert "max_batch_size: 0" in text and "dynamic_batching" not in text
    assert "dims: [-1, 3]" in text and "TYPE_INT64" in text
    with pytest.raises(Refused, match="complex64"):
        config("m", [Tensor(name="z", dtype="complex64", shape=(1,))], [], 0)
    with pytest.raises(Refused, match="no axes"):  # Triton: "must specify 'dims'"
        config("m", [], [Tensor(name="y", dtype="float32", shape=())], 0)


def test_kserve_gets_a_manifest_and_the_repository_it_points_to(bundle: Path, tmp_path: Path, capsys) -> None:
    yaml = pytest.importorskip("yaml")
    out = tmp_path / "kserve"
    uri = "s3://bucket/models"
    assert run(["export-server", str(bundle), "--to", "kserve", "-o", str(out), "--storage-uri", uri, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert all((out / "models" / name / "config.pbtxt").is_file() for name in document["models"])
    manifest = yaml.safe_load((out / "inferenceservice.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    model = manifest["spec"]["predictor"]["model"]
    assert model["storageUri"] == uri and model["protocolVersion"] == "grpc-v2"
    assert model["modelFormat"] == {"name": "triton"} and model["ports"][0]["name"] == "h2c"


def test_the_name_of_a_service_is_a_dns_label() -> None:
    (label,) = re.findall(r'^  name: "(.*)"$', manifest_text("_Résumé v2.final_" + "x" * 80, "gs://b"), re.MULTILINE)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--to", "tfserving"], "triton or kserve"),
        (["--to", "kserve"], "--storage-uri"),
        (["--to", "kserve", "--storage-uri", "nowhere"], "no address"),
        (["--to", "triton", "--storage-uri", "s3://b"], "leave it out"),
        (["--to", "triton", "--graph", "onnx.int8"], "one of: "),
    ],
)
def test_what_makes_no_sense_is_refused_and_writes_nothing(bundle, tmp_path, capsys, arguments, told) -> None:
    assert run(["export-server", str(bundle), "-o", str(tmp_path / "out"), *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_the_package_that_writes_tails_the_way_out_is_told(tmp_path: Path, monkeypatch) -> None:
    tensors = (Tensor(name="x", dtype="float32", shape=("batch", 4)),)
    chain = contextlib.nullcontext(SimpleNamespace(inputs=tensors, outputs=tensors))
    monkeypatch.setattr(server_export, "Chain", lambda *_, **__: chain)
    monkeypatch.setitem(sys.modules, "onnx", None)
    point: Any = SimpleNamespace(id="p0", of="onnx.fp32", after=("onnx.fp32",))
    bundle = make_bundle(tmp_path / "tiny.edge")
    with er.open_bundle(bundle) as opened, pytest.raises(Refused, match="written with the package onnx") as refused:
        server_export._tail(opened, point, tmp_path / "out", "tiny.tail.p0")
    assert "edgekit[convert]" in refused.value.remedy


def test_a_folder_that_holds_something_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    assert run(["export-server", str(bundle), "--to", "triton", "-o", str(tmp_path / "out")]) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.slow  # a conversion
def test_every_tail_stands_alone_and_answers_as_the_chain(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import edgekit

    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, stride=2), torch.nn.ReLU()]
    module = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 10))
    path, out = tmp_path / "small.edge", tmp_path / "models"
    edgekit.convert(
        module, out=path, example={"input": X[:1]}, calibration={"input": X}, formats=["onnx"], split_points=("all",)
    )
    assert run(["export-server", str(path), "--to", "triton", "-o", str(out)]) == 0
    bundle = er.open_bundle(path)
    points = bundle.manifest.split_points
    assert len(points) >= 3
    name = bundle.manifest.inputs[0].name
    for point in points:
        folder = out / f"{bundle.manifest.name}.tail.{point.id}"
        assert f'name: "{folder.name}"' in (folder / "config.pbtxt").read_text()
        with Chain(bundle, point.of, stop=point.id) as head, Chain(bundle, point.of, start=point.id) as tail:
            crossing = head.run({name: X[:2]})
            want = tail.run(crossing)
        with er.open(folder / "1" / "model.onnx") as served:
            got = served.run(crossing)
        assert {key: value.tobytes() for key, value in got.items()} == {k: v.tobytes() for k, v in want.items()}

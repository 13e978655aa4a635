"""Servers and clients that this project did not write, each in a process and an environment of its own.

`make foreign` makes the environments under build/foreign and runs this file; without them its tests are skipped.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'edgekit[server]'")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: pip install 'edgekit[server]'")

import edgekit_runtime as er
from edgekit.server_export import triton
from edgekit_runtime.errors import EdgekitError, Refused
from edgekit_runtime.remote.client import Client
from edgekit_runtime.remote.exchange import Exchange
from tests.edgekit.serve.test_split import X as IMAGES
from tests.edgekit.serve.test_split import cut  # noqa: F401  # the fixture

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[2] / "build" / "foreign"
W = np.arange(12, dtype=np.float32).reshape(4, 3)


def python_of(name: str) -> Path:
    found = ENVIRONMENTS / name / "bin" / "python"
    if not found.exists():
        pytest.skip(f"no environment with {name}: `make foreign` makes it")
    return found


def test_tritonclient_is_answered_by_our_server(start, bundle: Path) -> None:
    python = python_of("tritonclient")
    with start((bundle,)) as (address, _):
        script = HERE / "foreign" / "triton_client.py"
        done = subprocess.run([python, script, address], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_allclose(seen["y"], x @ W, rtol=1e-6)
    assert seen["live"] and seen["ready"] and seen["model_ready"] and seen["id"] == "r-7" and seen["after"] == [2, 3]
    assert seen["metadata"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert "NOT_FOUND" in seen["unknown_model"][0] and "there are: tiny" in seen["unknown_model"][1]
    assert "INVALID_ARGUMENT" in seen["wrong_dtype"][0] and "float64" in seen["wrong_dtype"][1]
    assert "INVALID_ARGUMENT" in seen["wrong_output"][0] and "there is no output z" in seen["wrong_output"][1]


def test_triton_reads_what_is_exported_as_it_is_meant(cut: Path, tmp_path: Path) -> None:  # noqa: F811
    python = python_of("tritonclient")
    with er.open_bundle(cut) as bundle:
        made = triton(bundle, tmp_path / "models")
        most = next(axis.max for axis in bundle.manifest.axes if axis.role == "batch")
    configs = [tmp_path / "models" / name / "config.pbtxt" for name in made.models]
    script = HERE / "foreign" / "triton_config.py"
    done = subprocess.run([python, script, *configs], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert set(seen) == set(made.models) and len(seen) >= 4
    types = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8", "int8": "TYPE_INT8"}
    for name, config in seen.items():
        assert (config["name"], config["platform"]) == (name, "onnxruntime_onnx")
        assert config["max_batch_size"] == most and "dynamic_batching" in config
        with er.open(tmp_path / "models" / name / "1" / "model.onnx") as served:
            for kind, tensors in (("input", served.inputs), ("output", served.outputs)):
                told = {row["name"]: (row["data_type"], [int(size) for size in row["dims"]]) for row in config[kind]}
                assert told == {
                    tensor.name: (
                        types[tensor.dtype],
                        [size if isinstance(size, int) else -1 for size in tensor.shape[1:]],
                    )
                    for tensor in tensors
                }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def mlserver(cut: Path, tmp_path: Path) -> Iterator[str]:  # noqa: F811
    """MLServer with every model of the exported repository, through a runtime over onnxruntime."""
    python = python_of("mlserver")
    with er.open_bundle(cut) as bundle:
        made = triton(bundle, tmp_path / "models")
    for name in made.models:
        file = tmp_path / "models" / name / "1" / "model.onnx"
        settings = {"name": name, "implementation": "onnx_model.OnnxModel", "parameters": {"uri": str(file)}}
        (tmp_path / "models" / name / "model-settings.json").write_text(json.dumps(settings))
    port = free_port()
    ports = {"grpc_port": port, "http_port": free_port(), "metrics_port": free_port()}
    (tmp_path / "models" / "settings.json").write_text(
        json.dumps({"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports})
    )
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(
        [python, "-m", "mlserver.cli.main", "start", str(tmp_path / "models")],
        env={**os.environ, "PYTHONPATH": str(HERE / "foreign")},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"grpc://127.0.0.1:{port}"
    try:
        _await(url, made.models, process, tmp_path / "log")
        yield url
    finally:
        process.kill()
        process.wait(20)
        log.close()


def _await(url: str, models: tuple[str, ...], process: subprocess.Popen, log: Path) -> None:
    client, end = Client(url), time.monotonic() + 90
    try:
        while time.monotonic() < end:
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                if all(client.ready(name) for name in models):
                    return
            except EdgekitError:
                time.sleep(0.3)
    finally:
        client.close()
    raise AssertionError(log.read_text()[-3000:])


def test_mlserver_is_the_tail_of_every_split_point(mlserver: str, cut: Path) -> None:  # noqa: F811
    with er.open(cut, server=mlserver, ours=False, graph="onnx.fp32", engine="onnxruntime", threads=1) as session:
        inputs = {session.local.inputs[0].name: IMAGES[:2]}
        want = session.local.run(inputs)
        sent = [offer for offer in session._offers.values() if offer.model]
        assert {codec for offer in sent for codec in offer.codecs.values()} <= {"none"}
        assert sum(".tail." in offer.model for offer in sent) >= 3
        line = session._line
        for offer in sent:
            plan = msgspec.structs.replace(session.controller.plan(time.monotonic()), hedge_ms=20_000.0, race="")
            result = Exchange(line, inputs, plan, offer, line.local, time.perf_counter()).result()
            assert result.timing.fallback == "" and result.timing.uplink_ms > 0, offer.model
            for name, array in want.items():
                np.testing.assert_allclose(result.outputs[name], array, rtol=1e-5, atol=1e-6)
        results = [session.infer(inputs) for _ in range(20)]
        assert all(np.allclose(row.outputs[name], want[name], atol=1e-6) for row in results for name in want)


def test_mlserver_without_the_model_is_a_clear_refusal(mlserver: str) -> None:
    client = Client(mlserver)
    with pytest.raises(Refused, match="nobody"):
        client.call("nobody", {"x": np.ones((1, 4), np.float32)})
    client.close()

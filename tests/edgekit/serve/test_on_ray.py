"""`edgekit serve --backend ray` on a real local Ray, and what it does without one."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'edgekit[server]'")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: pip install 'edgekit[server]'")

from edgekit.cli.app import run
from edgekit.serve.batcher import key_of
from edgekit.serve.models import Models
from edgekit.serve.on_ray import Scale, run_requests
from edgekit_runtime.errors import Refused
from edgekit_runtime.remote.client import Client, Reply
from edgekit_runtime.testing import make_bundle

X = np.arange(8, dtype=np.float32).reshape(2, 4)
W = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_without_ray_the_command_says_what_to_install(bundle: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(["serve", str(bundle), "--backend", "ray", "--port", "0"]) == 3
    assert "edgekit[ray]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--backend", "spark"], "local or ray"),
        (["--replicas", "2"], "--backend ray"),
        (["--backend", "ray", "--replicas", "3", "--max-replicas", "2"], "--max-replicas 2"),
    ],
)
def test_options_that_do_not_fit_are_refused(bundle: Path, capsys, options, told) -> None:
    assert run(["serve", str(bundle), *options]) == 2
    assert told in capsys.readouterr().err


def test_requests_of_the_same_sizes_run_as_one_batch_and_a_failure_is_data(bundle: Path) -> None:
    models = Models([bundle])
    model = models.get("tiny")
    requests = [({"x": X[: 1 + place % 2] + place}, time.monotonic()) for place in range(4)]
    answers = run_requests(model, requests)
    for (tensors, _), ran in zip(requests, answers, strict=True):
        assert ran.tensors is not None and ran.batch == 6 and ran.run_ms > 0 and ran.wait_ms >= 0
        np.testing.assert_allclose(ran.tensors["y"], tensors["x"] @ W, rtol=1e-6)
    odd = {"x": np.ones((1, 5), np.float32)}
    assert key_of(odd) != key_of(requests[0][0])
    wrong, fine = run_requests(model, [(odd, time.monotonic()), requests[0]])
    assert wrong.tensors is None and wrong.error[0]
    assert fine.tensors is not None and fine.batch == 1
    models.close()


def test_scaling_is_told_to_ray() -> None:
    from edgekit.serve.on_ray import _deployment

    fixed = _deployment("a", Scale(replicas=2))
    assert fixed["num_replicas"] == 2 and "autoscaling_config" not in fixed
    scaled = _deployment("a", Scale(replicas=1, max_replicas=4, most=16))["autoscaling_config"]
    assert (scaled["min_replicas"], scaled["max_replicas"], scaled["target_ongoing_requests"]) == (1, 4, 16)


@contextlib.contextmanager
def on_ray(folder: Path, *options: str) -> Iterator[tuple[Client, subprocess.Popen]]:
    """`edgekit serve --backend ray` on a local Ray of its own; ended by SIGTERM, which must end it well."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'edgekit[ray]'")
    bundle = make_bundle(folder / "tiny.edge")
    command = [sys.executable, "-m", "edgekit", "serve", str(bundle), "--port", "0", "--json", "--backend", "ray"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        text = ""
        while not text.rstrip().endswith("}"):
            line = process.stdout.readline()
            assert line, "the server ended"
            text += line
        client = Client(json.loads(text)["url"])
        yield client, process
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait(20)


def many(client: Client, count: int, threads: int) -> list[Reply]:
    """Answers to different requests of several threads, each looked at."""

    def ask(place: int) -> Reply:
        reply = client.call("tiny", {"x": X + place % 50}, timeout_s=60)
        np.testing.assert_allclose(reply.tensors["y"], (X + place % 50) @ W, rtol=1e-5)
        return reply

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(ask, range(count)))


def replicas(process: subprocess.Popen) -> dict[int, float]:
    """Processes of replicas under a server, by id, and the processor time (s) of each."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "ServeReplica" in " ".join(child.cmdline()):
                times = child.cpu_times()
                found[child.pid] = times.user + times.system
    return found


@pytest.mark.slow
def test_replicas_of_a_real_ray_answer_batch_and_refuse(tmp_path: Path) -> None:
    with on_ray(tmp_path, "--wait-ms", "50") as (client, _):
        replies = many(client, 12, 12)
        assert all(reply.number("residence_ms") > 0 for reply in replies)
        assert max(reply.number("batch") for reply in replies) > 2  # each has two samples
        with pytest.raises(Refused, match="takes"):
            client.call("tiny", {"z": X})
        with pytest.raises(Refused, match="does not hold"):
            client.call("nobody", {"x": X})


@pytest.mark.slow
def test_two_replicas_of_a_real_ray_share_the_work(tmp_path: Path) -> None:
    with on_ray(tmp_path, "--replicas", "2", "--wait-ms", "0") as (client, process):
        before = replicas(process)
        assert len(before) == 2
        many(client, 600, 8)
        after = replicas(process)
        assert set(after) == set(before)
        spent = [after[pid] - before[pid] for pid in before]
        assert min(spent) > 0.2 * max(spent), spent


@pytest.mark.slow
def test_a_real_ray_starts_a_second_replica_under_load(tmp_path: Path) -> None:
    with on_ray(tmp_path, "--replicas", "1", "--max-replicas", "2", "--batch", "2", "--wait-ms", "20") as (
        client,
        process,
    ):
        assert len(replicas(process)) == 1
        end = time.monotonic() + 120
        while len(replicas(process)) < 2 and time.monotonic() < end:
            many(client, 300, 16)
        assert len(replicas(process)) == 2
        many(client, 50, 8)

"""`edgekit serve` in a process of its own, and `edgekit run` against it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("grpc", reason="gRPC is not installed: pip install 'edgekit[server]'")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed: pip install 'edgekit[server]'")

import edgekit_runtime as er
from edgekit.cli.app import run
from edgekit_runtime.errors import UsageError
from edgekit_runtime.testing import make_bundle

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    np.savez(tmp_path / "golden.npz", x=X[:1])
    return make_bundle(tmp_path / "tiny.edge", files={"golden/inputs.npz": (tmp_path / "golden.npz").read_bytes()})


@pytest.fixture
def served(bundle: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgekit", "serve", str(bundle), "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    text = ""
    while not text.rstrip().endswith("}"):
        line = process.stdout.readline()
        assert line, "the server ended"
        text += line
    yield json.loads(text)["url"], process
    if process.poll() is None:
        process.kill()
    process.stdout.close()
    process.wait(20)


def test_run_chooses_for_each_request_and_why_tells_it(served, bundle, tmp_path, capsys) -> None:
    url, process = served
    request, log = tmp_path / "request.npz", tmp_path / "log.jsonl"
    np.savez(request, x=X)
    base = ["run", str(bundle), "--input", str(request), "--server", url]
    assert run([*base, "--repeat", "20", "--log", str(log), "--policy", "deadline_ms=900", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["decisions"]) == 20
    assert document["left_out"] == {}  # a student without exits or pictures has nothing that could be withheld
    assert {"action", "kind", "predicted_ms", "reasons", "timing"} <= set(document["decisions"][0])
    assert run(["why", str(log), "19"]) == 0
    assert "because" in capsys.readouterr().out
    assert run([*base, "--repeat", "5", "--watch"]) == 0
    assert "link" in capsys.readouterr().err
    process.kill()
    process.wait(20)
    assert run([*base, "--repeat", "5", "--quiet"]) == 0  # nobody there: answered here


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_ctrl_c_end_the_server_well(served, number) -> None:
    _, process = served
    process.send_signal(number)
    assert process.wait(30) == 0


def test_bad_input_ends_with_its_code(bundle, tmp_path, capsys) -> None:
    request = tmp_path / "request.npz"
    np.savez(request, x=X)
    (tmp_path / "empty").write_text("")
    (tmp_path / "open").write_text("secret")
    (tmp_path / "open").chmod(0o644)
    base = ["run", str(bundle), "--input", str(request)]
    assert run([*base, "--repeat", "3"]) == 2
    assert run([*base, "--server", "http://a:1"]) == 2
    assert run([*base, "--server", "grpc://127.0.0.1:1", "--policy", "hurry=1"]) == 2
    assert run(["serve", str(bundle), "--token-file", str(tmp_path / "empty")]) == 2
    assert run(["serve", str(bundle), "--token-file", str(tmp_path / "open")]) == 2
    assert run(["serve", str(bundle), "--host", "0.0.0.0"]) == 2
    assert run(["serve", str(tmp_path / "none.edge")]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_arrays_of_a_first_student_without_one_name_the_option(bundle, tmp_path, capsys) -> None:
    np.savez(tmp_path / "both.npz", **{"x": X, "first.x": X})
    assert run(["run", str(bundle), "--input", str(tmp_path / "both.npz")]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "first.x, which only a cascade's first student takes" in told and "--first SMALL.edge" in told


def test_quiet_prints_the_outputs_and_who_answered_and_nothing_else(served, bundle, tmp_path, capsys) -> None:
    np.savez(tmp_path / "request.npz", x=X[:1])
    base = ["run", str(bundle), "--input", str(tmp_path / "request.npz"), "--server", served[0]]
    assert run([*base, "--quiet"]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2 and not shown.err
    assert run(base) == 0
    assert len(capsys.readouterr().out.splitlines()) > 2


def test_a_server_that_does_not_answer_is_told_and_the_request_is_answered_here(bundle, tmp_path, capsys) -> None:
    np.savez(tmp_path / "x.npz", x=X)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        arguments = ["run", str(bundle), "--input", str(tmp_path / "x.npz"), "--json"]
        assert run([*arguments, "--server", f"grpc://127.0.0.1:{taken.getsockname()[1]}"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["decisions"][0]["kind"] == "local"
    assert "does not answer for tiny" in told.err and "answered here" in " ".join(told.err.split())


def test_a_session_with_a_server_has_the_streams_of_the_local_one(bundle) -> None:
    with er.open(bundle, server="grpc://127.0.0.1:1") as session, pytest.raises(UsageError, match="no state to carry"):
        session.stream()

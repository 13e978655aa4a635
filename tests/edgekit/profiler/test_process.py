from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgekit.profiler.process import OverBudget, Worker
from edgekit_runtime.errors import EngineMissing, Refused
from edgekit_runtime.testing import make_bundle, matmul_onnx

pytest.importorskip("onnxruntime")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(matmul_onnx(np.eye(16, dtype=np.float32)))
    return path


def open_(worker: Worker, path: Path) -> dict:
    return worker.ask("open", engine="onnxruntime", path=str(path), threads=1, signature="")


def test_a_worker_opens_runs_and_samples(tmp_path: Path, model: Path):
    np.savez(tmp_path / "x.npz", x=np.ones((1, 16), np.float32))
    with Worker(tmp_path, "tiny") as worker:
        answer = open_(worker, model)
        assert answer["open_ms"] > 0
        assert answer["inputs"][0]["name"] == "x"
        assert worker.ask("first", inputs=str(tmp_path / "x.npz"))["first_ms"] > 0
        sampled = worker.ask("sample", duration_s=10.0, min_runs=5, max_runs=50, every=2)
        assert len(sampled["samples_ms"]) == 50
        assert all(value > 0 for value in sampled["samples_ms"])
        assert worker.ask("memory")["peak_rss_bytes"] >= answer["rss_after_bytes"] // 2
        pid = worker.pid
    assert not psutil.pid_exists(pid)


def test_sampling_goes_on_past_its_time_until_the_fewest_runs_are_there(tmp_path: Path, model: Path):
    np.savez(tmp_path / "x.npz", x=np.ones((1, 16), np.float32))
    with Worker(tmp_path, "tiny") as worker:
        open_(worker, model)
        worker.ask("first", inputs=str(tmp_path / "x.npz"))
        assert len(worker.ask("sample", duration_s=0.0, min_runs=7, max_runs=50)["samples_ms"]) == 7


def test_what_the_engine_refuses_comes_back_as_the_same_error(tmp_path: Path):
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with Worker(tmp_path, "broken") as worker:
        with pytest.raises(Refused, match=r"broken\.onnx"):
            open_(worker, tmp_path / "broken.onnx")
        with pytest.raises(EngineMissing):
            worker.ask("open", engine="tflite-runtime", path="x", threads=1, signature="")


def test_a_killed_worker_is_a_clear_error_that_names_the_signal(tmp_path: Path, model: Path):
    with Worker(tmp_path, "tiny on onnxruntime") as worker:
        open_(worker, model)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(Refused, match=r"tiny on onnxruntime was killed by SIGKILL .*memory runs out"):
            worker.ask("memory")


def test_a_worker_that_does_not_answer_is_stopped(tmp_path: Path, model: Path):
    with Worker(tmp_path, "tiny") as worker:
        open_(worker, model)
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(Refused, match="no answer within"):
            worker.ask("memory", timeout_s=0.3)


def test_a_worker_that_outgrows_its_memory_is_stopped(tmp_path: Path, model: Path):
    with (
        Worker(tmp_path, "tiny", memory_limit_bytes=1_000_000) as worker,
        pytest.raises(OverBudget, match="more than the 1 MB it may have"),
    ):
        open_(worker, model)


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path):
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom edgekit.profiler.process import Worker\n"
        f"worker = Worker(Path({str(tmp_path)!r}), 'x')\nprint(worker.pid, flush=True)\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    worker = psutil.Process(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert worker.wait(timeout=20) in (0, None)


def test_ctrl_c_in_the_middle_of_profiling_leaves_no_process(tmp_path: Path):
    bundle = make_bundle(tmp_path / "tiny.edge", weights=np.ones((256, 256), np.float32))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-m", "edgekit", "profile", str(bundle), "--duration", "30"]
    profiler = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    found: list[psutil.Process] = []
    end = time.monotonic() + 30
    while not found and time.monotonic() < end:
        found = psutil.Process(profiler.pid).children(recursive=True)
        time.sleep(0.05)
    assert found
    time.sleep(0.5)
    profiler.send_signal(signal.SIGINT)
    profiler.communicate(timeout=20)
    assert profiler.returncode == 130
    _, alive = psutil.wait_procs(found, timeout=10)
    assert not alive
    assert not (bundle / "measurements").exists()

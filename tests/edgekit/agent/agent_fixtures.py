from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit.agent.server import Agent, Settings
from edgekit_runtime.testing import make_bundle, matmul_onnx

TOKEN = "a-token-of-this-test"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    weights = np.ones((16, 4), np.float32)
    return make_bundle(tmp_path / "tiny.edge", graphs={"onnx.fp32": matmul_onnx(weights)}, weights=weights)


@pytest.fixture
def run_agent(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """Starts agents on free ports of loopback, and ends them."""
    running: list[Agent] = []

    def start(**settings) -> Agent:
        folder = tmp_path / f"agent-{len(running)}"
        folder.mkdir()
        agent = Agent(Settings(**{"token": TOKEN, **settings}), folder)
        threading.Thread(target=agent.serve, daemon=True).start()
        running.append(agent)
        return agent

    yield start
    for agent in running:
        agent.close()


def certificate(folder: Path, name: str, names: str = "DNS:localhost,IP:127.0.0.1") -> tuple[Path, Path]:
    """A self-signed certificate, for localhost unless told otherwise, made by openssl."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj"]
    command = ["openssl", *words, f"/CN={name}", "-addext", f"subjectAltName={names}"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)

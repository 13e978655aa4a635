"""A device behind an agent calibrates itself."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from agent_fixtures import TOKEN

from edgekit import devices
from edgekit.agent import client, job, server, wire
from edgekit.agent.server import Agent
from edgekit.devices import calibration
from edgekit.profiler.request import Request
from edgekit.profiler.where import Access, parse
from edgekit_runtime.errors import Refused

pytest.importorskip("onnxruntime")
SHORT = Request(duration_s=0.05)
OPEN = Access(token=TOKEN)


def at(agent: Agent) -> str:
    return f"tcp://localhost:{agent.port}"


def profile_files() -> tuple[str, str]:
    folder = Path(__file__).parents[3] / "device_profiles"
    return (folder / "x86-vnni.toml").read_text(), (folder / "x86-vnni.predictor.json").read_text()


def says(*messages: wire.Said) -> Callable[..., subprocess.Popen[bytes]]:
    """A job that says given messages and ends: what a calibration of two minutes would say."""
    lines = b"".join(msgspec.json.encode(message) + b"\n" for message in messages)

    def start(order: server.Order, folder: Path) -> subprocess.Popen[bytes]:
        assert order.calibrate is not None and order.calibrate.engines == ("litert",)
        (folder / "said").write_bytes(lines)
        return subprocess.Popen(
            ["cat", str(folder / "said")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )

    return start


def calibrated(agent: Agent, folder: Path) -> tuple[Path, list[str]]:
    labels: list[str] = []
    path = client.calibrate(
        parse(at(agent)),
        OPEN,
        name="x86-vnni",
        engines=("litert",),
        folder=folder,
        announce=lambda count, remarks: labels.append(f"{count} steps"),
        progress=labels.append,
    )
    return path, labels


def test_a_device_measures_itself_and_its_profile_comes_here(run_agent, tmp_path: Path, monkeypatch):
    profile, predictor = profile_files()
    done = wire.Calibrated(name="x86-vnni", profile=profile, predictor=predictor)
    monkeypatch.setattr(server, "start_job", says(wire.Plan(steps=2), wire.Step(label="conv"), done))
    path, labels = calibrated(run_agent(), tmp_path / "profiles")
    assert labels == ["2 steps", "conv"]
    assert devices.load(str(path)).name == "x86-vnni"
    assert sorted(file.name for file in path.parent.iterdir()) == ["x86-vnni.predictor.json", "x86-vnni.toml"]


@pytest.mark.parametrize("damage", ["name", "profile", "predictor"])
def test_what_is_no_profile_is_not_written(run_agent, tmp_path: Path, monkeypatch, damage: str):
    profile, predictor = profile_files()
    done = wire.Calibrated(name="x86-vnni", profile=profile, predictor=predictor)
    bad = {"name": "../evil", "profile": "name = 1", "predictor": "{}"}[damage]
    monkeypatch.setattr(server, "start_job", says(msgspec.structs.replace(done, **{damage: bad})))
    with pytest.raises(Refused):
        calibrated(run_agent(), tmp_path / "profiles")
    assert not (tmp_path / "profiles").exists() and not list(tmp_path.rglob("*evil*"))


def test_the_job_of_a_calibration_gives_the_text_of_both_files(tmp_path: Path, monkeypatch):
    profile, predictor = profile_files()

    def measure(folder: Path, *, name: str, engine: tuple[str, ...], progress: Callable[[str], None]) -> Path:
        progress("conv")
        (folder / f"{name}.toml").write_text(profile)
        (folder / f"{name}.predictor.json").write_text(predictor)
        return folder / f"{name}.toml"

    monkeypatch.setattr(calibration, "calibrate", measure)
    said: list[wire.Said] = []
    found = job.calibrated(wire.Calibrate(name="x86-vnni", engines=("litert",)), said.append)
    assert found == wire.Calibrated(name="x86-vnni", profile=profile, predictor=predictor)
    assert isinstance(said[0], wire.Plan) and said[1] == wire.Step(label="conv")

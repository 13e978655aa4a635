"""Wrong usage: what was got, and where to look or what was meant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.cli.app import run


@pytest.mark.parametrize(
    ("arguments", "said", "remedy"),
    [
        (["profil", "x.edge"], "No such command 'profil'", "did you mean edgekit profile?"),
        (["frobnicate"], "No such command", "one of: convert, check"),
        (["profile"], "Missing argument", "edgekit profile --help"),
        (["plan", "x.edge", "--nothing"], "No such option", "edgekit plan --help"),
        (["agent", "--port", "99999"], "less than or equal to 65535", "edgekit agent --help"),
        (["--nothing"], "No such option", "edgekit --help"),
    ],
)
def test_the_remedy_is_the_commands_own(arguments, said, remedy, capsys) -> None:
    assert run(arguments) == 2
    told = capsys.readouterr().err
    assert said in told and f"what to do: {remedy}" in told


def test_an_input_that_is_no_npz_is_not_blamed_on_the_bundle(tiny: Path, tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "x.npz", image=np.array([{}], dtype=object))
    assert run(["run", str(tiny), "--input", str(tmp_path / "x.npz")]) == 3
    told = capsys.readouterr().err
    assert "--input x.npz" in told and "numpy.savez" in told and "bundle again" not in told


def test_an_unknown_objective_is_told_with_those_there_are(tiny: Path, tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "x.npz", image=np.zeros((1, 64), np.float32))
    shared = ["--server", "grpc://127.0.0.1:1", "--policy", "objective=speed"]
    assert run(["run", str(tiny), "--input", str(tmp_path / "x.npz"), *shared]) == 2
    assert "one of latency, energy, server_cost, accuracy" in capsys.readouterr().err


def test_a_terminal_that_is_not_utf8_gets_a_question_mark_and_no_error(tiny: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "edgekit", "profile", str(tiny), "--device", "pi4", "--quiet"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0 and not done.stderr
    assert b"p50 ms" in done.stdout and b"?" in done.stdout

"""An agent that ssh starts on the device and takes away again."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path

import pytest
from agent_fixtures import until

from edgekit.agent import over_ssh
from edgekit.profiler.dispatch import take
from edgekit.profiler.request import Request
from edgekit.profiler.where import Access, parse
from edgekit_runtime.errors import Unreachable, UsageError

pytest.importorskip("onnxruntime")
SHORT = Request(duration_s=0.05)


def test_ssh_starts_an_agent_there_and_leaves_nothing(bundle: Path, tmp_path: Path, monkeypatch):
    there = tmp_path / "device-tmp"
    there.mkdir()
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    said = tmp_path / "said"
    # What sshd does: a login shell runs the command, here with a temporary folder of its own.
    program.write_text(
        f'#!/bin/sh\necho "$@" | head -1 > {said}\nwhile [ "$1" != "--" ]; do shift; done\nshift 2\n'
        f'cd /; export TMPDIR={there}; exec sh -c "$1"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    access = Access(python=sys.executable)
    (found,) = take(parse("ssh://pi@board:2222"), bundle, SHORT, access)
    assert found.latency_ms.p50 is not None
    until(lambda: not list(there.iterdir()))
    assert "-p 2222" in said.read_text() and "BatchMode=yes" in said.read_text() and "pi@board" in said.read_text()
    with pytest.raises(Unreachable, match=r"tried for \d+\.\d s.*(not found|No such file)"):
        take(parse("ssh://board"), bundle, SHORT, Access(python="/no/such/python"))
    bare = tmp_path / "bin" / "bare-python"
    bare.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'msgspec'\" >&2; exit 1\n")
    bare.chmod(0o755)
    with pytest.raises(Unreachable, match="bare-python there has no package msgspec") as lacking:
        take(parse("ssh://board"), bundle, SHORT, Access(python=str(bare)))
    assert "pip install numpy psutil msgspec" in lacking.value.remedy


def test_without_ssh_the_person_is_told(bundle: Path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="no ssh"):
        take(parse("ssh://board"), bundle, SHORT, Access())


def test_what_ssh_carries_is_small_and_pure_python():

    code = over_ssh.own_code()
    names = zipfile.ZipFile(io.BytesIO(code)).namelist()
    assert len(code) < 3_000_000
    assert {
        "edgekit/agent/stdio.py",
        "edgekit/files.py",
        "edgekit/profiler/worker.py",
        "edgekit_runtime/session.py",
    } <= set(names)
    assert all(name.endswith((".py", ".toml", ".json")) for name in names)

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.cli.app import run
from edgekit.cli.commands.profile import axis_sizes, integers
from edgekit_runtime.errors import UsageError

pytestmark = pytest.mark.alone


def test_json_is_one_document_and_the_report_is_written(tiny: Path, tmp_path: Path, capsys):
    command = ["profile", str(tiny), "--graph", "onnx.int8", "--duration", "0.2", "--json"]
    assert run([*command, "--report", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert [m["graph"] for m in document["measurements"]] == ["onnx.int8"]
    assert document["measurements"][0]["energy"]["kind"] in ("unavailable", "measured")
    assert (tmp_path / "out" / "index.html").exists()
    assert "1/3: onnx.int8 onnxruntime 1t" in printed.err


def test_tables_fit_80_columns_and_name_the_verdict(tiny: Path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["profile", str(tiny), "--graph", "onnx.fp32", "--duration", "0.1", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert all(len(line) <= 80 for line in printed.out.splitlines())
    head = printed.out.splitlines()[0]
    assert [word in head for word in ("graph", "p50 ms", "verdict")] == [True] * 3
    assert any(word in printed.out for word in ("sound", "noisy", "invalid"))
    assert printed.err == ""


def test_rows_of_a_sweep_name_their_inputs(tiny: Path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    sweep = ["--batch", "1,8", "--device", "pi4", "--device", "n100"]
    assert run(["profile", str(tiny), "--graph", "onnx.fp32", *sweep, "--quiet"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    one, eight = ("\N{MULTIPLICATION SIGN}".join((batch, "64")) for batch in "18")
    assert lines.count(one) == lines.count(eight) == 2  # one each a device, below the graph


def test_a_graph_over_the_memory_limit_ends_with_4_and_one_document(tiny: Path, capsys):
    command = ["profile", str(tiny), "--graph", "onnx.fp32", "--memory-limit", "5", "--duration", "0.1", "--json"]
    assert run(command) == 4
    document = json.loads(capsys.readouterr().out)
    assert "more than the 5 MB" in document["error"]["message"]
    assert document["measurements"][0]["verdict"]["kind"] == "invalid"
    assert run(command[:-1]) == 4
    told = capsys.readouterr()
    assert "what to do: a smaller graph (int8, a shorter length, batch 1), or a higher --memory-limit" in told.err
    assert "needs more than the 5 MB" in told.out and "withheld" not in told.out and "open ms" not in told.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "toaster"], "no device 'toaster'"),
        (["--device", "http://board"], "tcp://HOST:PORT"),
        (["--device", "tcp://board", "--token-file", "none.txt"], "no file none.txt"),
        (["--device", "tcp://board", "--cert", __file__], "belong together"),
        (["--length", "16"], "no dynamic length"),
        (["--threads", "one"], "--threads takes whole numbers"),
        (["--size", "length"], "--size takes AXIS=N"),
        (["--duration", "0"], "--duration takes seconds above 0"),
    ],
)
def test_wrong_options_end_with_2_and_say_what_is_right(tiny: Path, capsys, options: list[str], message: str):
    assert run(["profile", str(tiny), *options, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert message in error["message"]
    assert error["kind"] == "usage"


def test_a_missing_file_ends_with_3(tmp_path: Path, capsys):
    assert run(["profile", str(tmp_path / "none.onnx")]) == 3
    assert "does not exist" in capsys.readouterr().err


def test_lists_and_sizes_are_read():
    assert integers("--threads", "1,4") == (1, 4)
    assert axis_sizes(["a=3", "b=512"]) == {"a": 3, "b": 512}
    with pytest.raises(UsageError):
        axis_sizes(["a=0"])


def test_help_has_an_example(capsys):
    assert run(["profile", "--help"]) == 0
    assert "edgekit profile student.edge" in capsys.readouterr().out


def test_an_agent_that_is_not_there_ends_with_5_and_says_how_long_it_was_tried(tiny: Path, capsys, monkeypatch):
    from edgekit.agent import client

    monkeypatch.setattr(client, "REACH_S", 0.3)
    assert run(["profile", str(tiny), "--device", "tcp://localhost:1", "--json"]) == 5
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "unreachable"
    assert "tried for 0." in error["message"]


def test_an_agent_opens_no_port_to_the_network_without_tls(capsys):
    assert run(["agent", "--host", "0.0.0.0", "--json"]) == 2
    assert "TLS only" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_short_token_is_no_token(tmp_path: Path, capsys):
    (tmp_path / "token").write_text("short\n")
    assert run(["agent", "--token-file", str(tmp_path / "token")]) == 2
    assert "16 or more" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_agent_says_where_it_is_and_ends_well_when_it_is_told_to(number: signal.Signals):
    command = [sys.executable, "-m", "edgekit", "agent", "--port", "0", "--json"]
    agent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert agent.stdout is not None
        lines = [agent.stdout.readline() for _ in range(5)]
        document = json.loads("".join(lines))
        assert document["address"].startswith("tcp://localhost:") and len(document["token"]) >= 32
    finally:
        agent.send_signal(number)
        assert agent.wait(timeout=20) == 0
        agent.stdout.close()

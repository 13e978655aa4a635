"""`plan`, `simulate` and `why` from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from edgekit.cli.app import run
from edgekit_runtime.adaptive import ActionCost, Controller, Link, Policy, journal
from edgekit_runtime.testing import make_bundle

ACTIONS = (
    ActionCost(id="local", kind="local", head_ms=50, head_sd_ms=2),
    ActionCost(id="offload", kind="offload", offload_fraction=1.0, bytes_up=10_000, bytes_down=100, tail_ms=2),
)


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    def counted(found):
        return msgspec.structs.replace(found, graphs=(msgspec.structs.replace(found.graphs[0], macs=200_000_000),))

    return str(make_bundle(tmp_path / "tiny.edge", change=counted))


@pytest.fixture
def log(tmp_path: Path) -> str:
    controller = Controller(ACTIONS, Policy())
    writer = journal.Writer(tmp_path / "log.jsonl", controller.actions)
    for number in range(5):
        writer.add(controller.plan(number * 0.2).decision, number * 0.2, total_ms=50.0)
    writer.close()
    return str(tmp_path / "log.jsonl")


def test_plan_prints_the_keys_of_the_contract_and_a_picture(bundle, tmp_path, capsys) -> None:
    there = tmp_path / "plan.html"
    arguments = ["plan", bundle, "--device", "pi4", "--server-profile", "x86-vnni", "--report", str(there), "--json"]
    assert run(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"id", "kind", "predicted_ms", "bytes_up", "accuracy_drop", "reasons"} <= set(document["actions"][0])
    assert {"rtt_ms", "bandwidth_mbps", "device_load", "server_load", "action"} == set(document["best"][0])
    assert "crossovers" in document and "<svg" in there.read_text()
    assert run(["plan", bundle, "--device", "pi4", "--link", "rtt=10,mbps=5", "--load", "device=0.5"]) == 0
    assert "no split points" in " ".join(capsys.readouterr().out.split())


def test_plan_and_simulate_reckon_with_the_threads_of_run_and_serve_unless_told(bundle, log, capsys) -> None:
    def planned(*options: str) -> tuple[int, int, float]:
        assert run(["plan", bundle, "--device", "pi4", "--json", *options]) == 0
        document = json.loads(capsys.readouterr().out)
        local = next(row["predicted_ms"] for row in document["actions"] if row["id"] == "local")
        return document["device_threads"], document["server_threads"], local

    def simulated(*options: str) -> float:
        shared = ["--trace", "rtt=20,mbps=8", "--requests", "20", "--device", "pi4", "--quiet", "--json"]
        assert run(["simulate", bundle, *shared, *options]) == 0
        return json.loads(capsys.readouterr().out)["policies"]["always_local"]["mean_ms"]

    one, four = planned(), planned("--threads", "4", "--server-threads", "2")
    assert one[:2] == (1, 1) and four[:2] == (4, 2) and four[2] < one[2]
    assert simulated("--threads", "4") < simulated() == pytest.approx(one[2], rel=0.1)
    assert run(["simulate", log, "--threads", "4", "--quiet"]) == 2
    assert "a log has its own actions" in " ".join(capsys.readouterr().err.split())


def test_simulate_runs_a_bundle_and_a_log(bundle, log, tmp_path, capsys) -> None:
    there = tmp_path / "day.html"
    shared = ["--trace", "rtt=20,mbps=8", "--requests", "40", "--quiet", "--json"]
    assert run(["simulate", bundle, "--device", "pi4", *shared, "--report", str(there)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["requests"] == 40 and document["lost"] == 0 and "<svg" in there.read_text()
    assert run(["simulate", log, *shared, "--policy", "deadline_ms=80", "--load", "device=0.5"]) == 0
    assert set(json.loads(capsys.readouterr().out)["policies"]["always_offload"]["actions"]) == {"offload"}


def test_why_tells_a_server_that_is_left_alone_in_a_few_words(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    controller = Controller(ACTIONS, Policy())
    controller.failed(0.0, controller.sent(0.0, "offload"))
    writer = journal.Writer(tmp_path / "log.jsonl", controller.actions)
    writer.add(controller.plan(0.01).decision, 0.01, total_ms=50.0)
    writer.close()
    assert run(["why", str(tmp_path / "log.jsonl")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "nothing gets through to the server" in told and "3600" not in told and "left alone" not in told
    assert run(["why", str(tmp_path / "log.jsonl"), "0"]) == 0
    assert "left alone for a while" in " ".join(capsys.readouterr().out.split())


def test_simulate_refuses_numbers_that_mean_nothing_and_fits_an_endless_round_trip(log, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shared = ["simulate", log, "--trace"]
    for wrong in (["--interval", "-1"], ["--interval", "nan"], ["--uplink-fraction", "0"]):
        assert run([*shared, "rtt=20,mbps=8", *wrong]) == 2
        assert wrong[0] in capsys.readouterr().err
    assert run([*shared, "rtt=20"]) == 2
    assert "--trace rtt=20 has no mbps" in capsys.readouterr().err
    assert run([*shared, "rtt=1e12,mbps=5", "--requests", "20", "--quiet"]) == 0
    table = capsys.readouterr().out
    assert "late" in table and "1e+12" in table and "…" not in table


def test_what_may_lose_accuracy_takes_part_under_a_named_risk_only_and_is_told(tmp_path, capsys) -> None:
    exits = ActionCost(id="exit:0.02", kind="exit", head_ms=5, accuracy_drop=0.01, accuracy_drop_high=0.02)
    controller = Controller((*ACTIONS, exits), Policy(max_risk=0.02))
    writer = journal.Writer(tmp_path / "log.jsonl", controller.actions)
    for number in range(3):
        writer.add(controller.plan(number * 0.2).decision, number * 0.2, total_ms=5.0)
    writer.close()
    path = str(tmp_path / "log.jsonl")
    assert run(["simulate", path, "--quiet", "--json"]) == 0  # under the log's own policy
    document = json.loads(capsys.readouterr().out)
    assert document["left_out"] == {} and document["best_fixed_action"] == "exit:0.02"
    assert run(["simulate", path, "--policy", "deadline_ms=80", "--quiet", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["left_out"]) == {"exit:0.02"} and document["best_fixed_action"] == "local"
    assert run(["simulate", path, "--policy", "max_risk=0.01", "--quiet"]) == 0
    assert "left out: exit:0.02: may lose 0.02 of accuracy, 0.01 is allowed" in capsys.readouterr().out


def test_plan_takes_what_says_which_actions_are_open_and_refuses_the_rest(bundle, capsys) -> None:
    shared = ["plan", bundle, "--device", "pi4"]
    assert run([*shared, "--policy", "privacy=local", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["action"] for row in document["best"]} == {"local"} and document["left_out"] == {}
    assert run([*shared, "--policy", "deadline_ms=80"]) == 2
    assert "no use for deadline_ms" in " ".join(capsys.readouterr().err.split())


def test_a_log_is_lived_again_under_its_own_link_and_pace(log, capsys) -> None:
    assert run(["simulate", log, "--quiet", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["requests"] == 5 and document["logged_mean_ms"] == 50.0
    assert document["policies"]["always_local"]["mean_ms"] == pytest.approx(50.0, rel=0.1)
    assert run(["simulate", log, "--requests", "20", "--policy", "privacy=local", "--quiet", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["policies"]["adaptive"]["actions"] == {"local": 20}


def test_the_table_of_policies_fits_80_columns_with_every_name_whole(bundle, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shared = ["--trace", "rtt=20,mbps=8", "--requests", "40", "--quiet"]
    assert run(["simulate", bundle, "--device", "pi4", *shared]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines) and "…" not in "".join(lines)
    firsts = [line.split()[0] for line in lines if line.strip()]
    assert {"adaptive", "always_offload", "adaptive_without_load"} <= set(firsts)


@pytest.mark.parametrize("keep", [1, 2])
def test_a_log_that_has_no_day_is_refused(keep, log, capsys) -> None:
    path = Path(log)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:keep]))
    assert run(["simulate", log]) == 3
    assert "cannot be lived again" in " ".join(capsys.readouterr().err.split())


def test_why_tells_one_request_or_the_whole_log(log, capsys) -> None:
    assert run(["why", log, "3"]) == 0
    shown = capsys.readouterr().out
    assert "request 3" in shown and "because" in shown and "link:" in shown
    assert run(["why", log]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.split()[:1] == ["3"])
    # The link is taken as 50 ms and 5 Mbit/s, of which nothing is known: the round trip is the larger part.
    assert re.fullmatch(r"3 +local +5\d\.\d +50\.0 +offload \+\d+\.\d ms: round trip", row.strip()), row
    assert "local 5" in lines and any(re.fullmatch(r"mean: 5.\.. ms expected, 50.0 ms taken", line) for line in lines)
    assert run(["why", log, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["decisions"]) == 5


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["why", "{log}", "99"], 2),
        (["why", "{bundle}/manifest.json"], 3),
        (["simulate", "{bundle}", "--trace", "nowhere.json"], 2),
        (["simulate", "{bundle}"], 2),
        (["simulate", "nowhere.jsonl"], 3),
        (["simulate", "{bundle}", "--trace", "rtt=1,mbps=1", "--policy", "speed=1"], 2),
        (["simulate", "{bundle}", "--trace", "rtt=1,mbps=1", "--policy", "deadline_ms"], 2),
        (["simulate", "{bundle}", "--trace", "rtt=1,mbps=1", "--load", "device=3"], 2),
        (["plan", "{bundle}", "--device", "no-such-device"], 2),
        (["plan", "{bundle}", "--link", "mbps=x"], 2),
    ],
)
def test_bad_input_ends_with_its_code(arguments, code, bundle, log, capsys) -> None:
    assert run([text.format(bundle=bundle, log=log) for text in arguments]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_why_tells_over_a_whole_log_which_answers_came_from_here_after_all(tmp_path, capsys) -> None:
    controller = Controller(ACTIONS, Policy(), link=Link(rtt_ms=2, uplink_mbps=100, downlink_mbps=100))
    writer = journal.Writer(tmp_path / "log.jsonl", controller.actions)
    writer.add(controller.plan(0.0).decision, 0.0, total_ms=70.0, fallback="the answer was overdue")
    writer.close()
    assert run(["why", str(tmp_path / "log.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "answered here: the answer was overdue" in " ".join(shown.split())
    assert "answered locally after all: 1" in shown


def test_a_log_that_was_changed_is_refused(log, capsys) -> None:
    path = Path(log)
    path.write_text(path.read_text().replace('"action":"local"', '"action":"offload"'))
    assert run(["why", log]) == 3
    assert "the log was changed" in capsys.readouterr().err

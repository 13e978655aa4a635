from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgekit.cli.app import run
from edgekit.cli.commands.doctor import findings
from edgekit_runtime.machine import Machine
from edgekit_runtime.measurement import Environment

MACHINE = Machine("Cortex-A72", "Arm", "aarch64", ("asimd",), 4, 4 << 30)


def test_json_has_the_keys_of_the_contract(capsys):
    assert run(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"engines", "cpu", "sensors", "findings"} <= set(document)
    assert {engine["name"] for engine in document["engines"]} >= {"onnxruntime", "litert", "tflite-runtime"}
    assert document["cpu"]["cores"] >= 1


def test_lines_fit_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["doctor"]) == 0
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())


def texts(**changes) -> list[str]:
    engine = {"name": "litert", "installed": True, "version": "2", "formats": ["tflite"], "problem": "", "remedy": ""}
    values = {"engines": [engine], "machine": MACHINE, "state": Environment(cpu="x"), "sensors": [], **changes}
    return [f"{row['severity']}: {row['text']} -> {row['remedy']}" for row in findings(**values)]


def test_no_engine_is_the_first_finding_and_names_the_pip_line():
    assert texts(engines=[])[0].startswith("error: no engine is installed")
    assert "pip install 'edgekit[onnxruntime]'" in texts(engines=[])[0]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "no engine runs onnx graphs -> pip install 'edgekit[onnxruntime]'"),
        ({}, "no 8-bit dot product"),
        ({"state": Environment(cpu="x", governor="ondemand")}, "the governor is ondemand"),
        ({"state": Environment(cpu="x", load=3.5)}, "load is 3.5 on 4 cores"),
        ({"sensors": [{"kind": "energy", "name": "package-0", "readable": False}]}, "sudo chmod a+r"),
    ],
)
def test_each_obstacle_is_named_with_its_remedy(changes, text: str):
    assert any(text in line for line in texts(**changes))


def test_a_quiet_capable_machine_has_no_warning():
    able = Machine("Cortex-A76", "Arm", "aarch64", ("asimd", "asimddp"), 4, 8 << 30)
    engine = {
        "name": "all",
        "installed": True,
        "version": "1",
        "formats": ["onnx", "tflite"],
        "problem": "",
        "remedy": "",
    }
    quiet = Environment(cpu="x", governor="performance", load=0.1)
    sensors = [{"kind": "energy", "name": "package-0", "readable": True}]
    found = texts(machine=able, engines=[engine], state=quiet, sensors=sensors)
    assert not [line for line in found if not line.startswith("info: not installed")]


def test_doctor_works_without_any_engine_and_without_torch():
    program = (
        "import sys, importlib.util, json\n"
        "blocked = {'torch', 'onnx', 'onnxruntime', 'ai_edge_litert', 'tflite_runtime', 'litert_torch', 'jinja2'}\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in blocked: raise ModuleNotFoundError(name=name)\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name in blocked else real(name, package)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from edgekit.cli.app import run\n"
        "sys.exit(run(['doctor', '--json']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(entry for entry in sys.path if entry), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert not any(engine["version"] for engine in document["engines"])
    assert "no engine is installed" in document["findings"][0]["text"]
    assert any("torch" in finding["text"] for finding in document["findings"])

"""`edgekit doctor`: what this machine has for edgekit, what is missing and how to get it."""

from __future__ import annotations

import importlib.util
import platform
from importlib import metadata
from typing import Any

from rich.console import Console
from rich.markup import escape

from edgekit.cli.app import JsonFlag, QuietFlag
from edgekit.cli.extras import PACKAGES, pip_line
from edgekit.cli.output import Output

# Packages that stand for their extras: what else those bring is missing with them.
TOOLS = ("torch", "onnx", "litert_torch", "jinja2", "tokenizers", "PIL", "grpc", "prometheus_client", "sklearn")


def command(json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """This machine: engines and versions, instruction set, governor, sensors, what is missing.

    Example:  edgekit doctor --json
    """
    document = examine()
    Output(json=json, quiet=quiet).result(document, lambda console: render(console, document))


def examine() -> dict[str, Any]:
    """What `edgekit doctor --json` prints; never fails for something that is missing."""
    from edgekit.profiler import environment
    from edgekit_runtime.machine import this_machine

    machine, state = this_machine(), environment.read()
    engines = [_engine(name) for name in _engine_names()]
    sensors = environment.sensors()
    return {
        "python": platform.python_version(),
        "edgekit": _version("edgekit"),
        "engines": engines,
        "cpu": {
            "name": machine.cpu,
            "architecture": machine.architecture,
            "isa": list(machine.isa),
            "int8_dot": machine.has_int8_dot,
            "cores": machine.cores,
            "memory_bytes": machine.memory_bytes,
            "governor": state.governor,
            "clock_mhz": state.clock_mhz,
            "id": machine.id,
        },
        "sensors": sensors,
        "findings": findings(engines, machine, state, sensors),
    }


def findings(
    engines: list[dict[str, Any]], machine: Any, state: Any, sensors: list[dict[str, Any]]
) -> list[dict[str, str]]:
    """What a person should know, worst first: severity, text, remedy (pure but for looking up packages)."""
    found = []
    working = [engine for engine in engines if engine["version"]]
    if not working:
        found.append(
            _finding("error", "no engine is installed: bundles cannot run", "pip install 'edgekit[onnxruntime]'")
        )
    for engine in engines:
        if engine["problem"] and engine["installed"]:
            found.append(_finding("error", f"{engine['name']}: {engine['problem']}", engine["remedy"]))
    formats = {name for engine in working for name in engine["formats"]}
    for name, extra in (("onnx", "onnxruntime"), ("tflite", "litert")):
        if working and name not in formats:
            found.append(_finding("warning", f"no engine runs {name} graphs", f"pip install 'edgekit[{extra}]'"))
    if not machine.has_int8_dot:
        found.append(_finding("info", "no 8-bit dot product: int8 gains less speed here", "measure: edgekit profile"))
    if state.governor not in (None, "performance"):
        text = f"the governor is {state.governor}: clocks follow the load and timings spread"
        found.append(_finding("warning", text, "sudo cpupower frequency-set -g performance"))
    if state.load is not None and state.load > max(0.5 * machine.cores, 0.5):
        found.append(_finding("warning", f"load is {state.load:.1f} on {machine.cores} cores", "measure when idle"))
    missing: dict[str, list[str]] = {}
    for package in TOOLS:
        if importlib.util.find_spec(package) is None:
            missing.setdefault(pip_line(package), []).append(f"{package} ({PACKAGES[package][0]})")
    found += [_finding("info", f"not installed: {', '.join(names)}", line) for line, names in missing.items()]
    if not any(sensor["kind"] == "energy" and sensor["readable"] for sensor in sensors):
        locked = any(sensor["kind"] == "energy" for sensor in sensors)
        remedy = "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj" if locked else "an external meter"
        found.append(_finding("info", "no readable energy sensor: energy stays unavailable", remedy))
    return found


def render(console: Console, document: dict[str, Any]) -> None:
    """The same in lines of at most 80 columns."""
    from edgekit.report.numbers import bytes_

    cpu = document["cpu"]
    console.print(f"edgekit {document['edgekit']}, Python {document['python']}, id {cpu['id']}")
    console.print(
        escape(f"cpu      {cpu['name']}, {cpu['cores']} cores, {bytes_(cpu['memory_bytes'])}, {cpu['architecture']}")
    )
    console.print(escape(f"isa      {' '.join(cpu['isa']) or 'nothing that matters'}"))
    clock = f", clock {cpu['clock_mhz']:.0f} MHz" if cpu["clock_mhz"] else ""
    console.print(escape(f"governor {cpu['governor'] or 'not told by this machine'}{clock}"))
    for engine in document["engines"]:
        state = f"[green]{engine['version']}[/]" if engine["version"] else "[dim]not installed[/]"
        if engine["problem"] and engine["installed"]:
            state = "[red]broken[/]"
        console.print(f"engine   {escape(engine['name']):<15} {state:<20} {escape(', '.join(engine['formats']))}")
    for sensor in document["sensors"]:
        value = f"{sensor['value_c']:.0f} °C" if "value_c" in sensor else "readable" if sensor["readable"] else "locked"
        console.print(escape(f"sensor   {sensor['kind']} {sensor['name']}: {value}"))
    if not document["sensors"]:
        console.print("sensor   none that this machine shows")
    for finding in document["findings"]:
        colour = {"error": "red", "warning": "yellow"}.get(finding["severity"], "cyan")
        console.print(f"[{colour}]{finding['severity']:<8}[/] {escape(finding['text'])}")
        console.print(escape(f"         -> {finding['remedy']}"))


def _engine_names() -> tuple[str, ...]:
    from edgekit_runtime import engines

    return engines.names()


def _engine(name: str) -> dict[str, Any]:
    from edgekit_runtime import engines
    from edgekit_runtime.errors import EdgekitError

    installed = name in engines.available()
    row: dict[str, Any] = {
        "name": name,
        "installed": installed,
        "version": "",
        "formats": [],
        "problem": "",
        "remedy": "",
    }
    try:
        engine = engines.get(name)
    except EdgekitError as error:
        known = {**engines.TABLE, **engines.ON_REQUEST}
        formats = known[name][3] if name in known else ()
        return {**row, "formats": list(formats), "problem": error.message, "remedy": error.remedy}
    return {**row, "version": engine.version, "formats": list(engine.formats)}


def _finding(severity: str, text: str, remedy: str) -> dict[str, str]:
    return {"severity": severity, "text": text, "remedy": remedy}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        from edgekit import __version__

        return __version__

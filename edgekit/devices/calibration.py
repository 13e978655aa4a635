"""Calibrates the machine it runs on: micro-benchmarks through its engines, written as a profile and a predictor.

    device_profiles/local-1a2b3c4d.toml              what a person reads: largest rates, bandwidth, overheads, sources
    device_profiles/local-1a2b3c4d.predictor.json    every measured point, which predictions rest on

They go into a folder `device_profiles` where one works, never into the home folder; give them another name to keep
them as the profile of a kind of device.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgekit.devices import bench, micro_onnx, micro_tflite, store, toml
from edgekit.devices import profile as profiles
from edgekit.devices.families import PRODUCTS
from edgekit.devices.micro import STREAM_BYTES, Micro
from edgekit.devices.profile import Bandwidth, DeviceProfile, Figure, Overhead, Rate
from edgekit.devices.table import STREAM, Kernels, Point, Predictor
from edgekit.files import write_texts
from edgekit_runtime import engines
from edgekit_runtime.errors import EngineMissing, Refused, UsageError
from edgekit_runtime.machine import Machine, this_machine


@dataclasses.dataclass(frozen=True)
class Suite:
    """The micro-benchmarks of one engine."""

    suffix: str
    plan: Callable[[], Any]
    build: Callable[[Micro | None], bytes]


SUITES: dict[str, Suite] = {
    "onnxruntime": Suite(".onnx", micro_onnx.plan, micro_onnx.build),
    "litert": Suite(".tflite", micro_tflite.plan, micro_tflite.build),
}


def calibrate(
    folder: Path | None = None,
    *,
    name: str = "",
    engine: Sequence[str] = (),
    progress: bench.Progress = lambda label: None,
) -> Path:
    """Measures this machine and writes its profile. One that was interrupted goes on where it was, within the hour.

    Args:
        folder: Where to; None: `device_profiles` in the working folder.
        name: Of the profile; empty: this machine's id, under which `local` finds it. A profile that is there keeps what
            a calibration does not measure.
        engine: Engines to calibrate; none: all installed ones that can be.
        progress: Called with a line for each kind of kernel.

    Returns:
        The profile's path.

    Raises:
        UsageError: An engine that has no micro-benchmarks, a name that no profile can have, or that of a device with
            another instruction set than this machine.
        EngineMissing: None of the engines is installed.
    """
    unknown = sorted(set(engine) - set(SUITES))
    if unknown:
        raise UsageError(f"no micro-benchmarks for {', '.join(unknown)}", remedy=f"there are for: {', '.join(SUITES)}")
    chosen = [each for each in (engine or SUITES) if each in engines.available()]
    if not chosen:
        raise EngineMissing("no engine to calibrate is installed", remedy=engines.pip_lines({"onnx", "tflite"}))
    bare = basis(name, this_machine())
    folder = folder or Path.cwd() / store.FOLDER
    kept = [folder / f".{name or bare.name}.{each}.partial" for each in chosen]
    measured = []
    for each, partial in zip(chosen, kept, strict=True):
        suite = SUITES[each]
        plan = tuple(suite.plan())
        measured.append(bench.measure(each, suite.suffix, plan, suite.build, progress=progress, kept=partial))
    path = write(summarise(bare, tuple(measured), name), folder)
    for partial in kept:
        partial.unlink(missing_ok=True)
    return path


def basis(name: str, machine: Machine) -> DeviceProfile:
    """The profile that a calibration fills: the one of that name, or what the machine tells by itself.

    Raises:
        UsageError: The profile is of a device with another instruction set.
    """
    own = name or machine.id
    path = store.find(own)
    if path is None:
        return store.describe(machine)
    try:
        found = profiles.read(path)
    except Refused:  # of an earlier format or absent: it is measured anew; what else is wrong is said again here
        found = profiles.read_bare(path)
    missing = sorted(set(found.isa.value) - set(machine.isa))
    if found.architecture != machine.architecture or missing:
        lacks = f" without {', '.join(missing)}" if missing and found.architecture == machine.architecture else ""
        raise UsageError(
            f"{own} is {found.architecture}, this machine is {machine.architecture}{lacks}",
            remedy="calibrate on the device itself, or under another name",
        )
    return found


def lines(engine: Sequence[str] = ()) -> int:
    """How many lines of progress `calibrate` gives."""
    chosen = [each for each in (engine or SUITES) if each in SUITES and each in engines.available()]
    return sum(bench.PASSES * len({entry.key for entry in SUITES[each].plan()}) for each in chosen)


def summarise(bare: DeviceProfile, measured: tuple[Kernels, ...], name: str = "") -> DeviceProfile:
    """The profile of a machine from what it tells by itself and what was measured (pure).

    Raises:
        UsageError: The name cannot be a profile's.
    """
    fresh = {kernels.engine for kernels in measured}
    rates: list[Rate] = []
    for kernels in measured:
        rates += _rates(kernels)
    made = msgspec.structs.replace(
        bare,
        name=name or bare.name,
        rates=(*(rate for rate in bare.rates if rate.engine not in fresh), *rates),
        bandwidth=_bandwidth(measured) or bare.bandwidth,
        overheads=(*(each for each in bare.overheads if each.engine not in fresh), *map(_overhead, measured)),
        predictor=f"{name or bare.name}.predictor.json",
        kernels=(*(each for each in bare.kernels if each.engine not in fresh), *measured),
    )
    try:
        return msgspec.convert(msgspec.to_builtins(made), DeviceProfile)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{name!r} is no name for a profile", remedy="small letters, digits, dots and dashes, as in my-board.2"
        ) from error


def write(profile: DeviceProfile, folder: Path) -> Path:
    """Writes a calibrated profile and its predictor; the profile comes last, so that it never names a missing file."""
    predictor = Predictor(device=profile.name, kernels=profile.kernels)
    points = msgspec.json.format(msgspec.json.encode(predictor), indent=1).decode()
    document = msgspec.to_builtins(profile)
    del document["kernels"]
    files = {
        profile.predictor: points + "\n",
        f"{profile.name}.toml": toml.dumps(document, "Written by `edgekit devices --calibrate`."),
    }
    return write_texts(folder, files, "the profile")[-1]


def _rates(kernels: Kernels) -> list[Rate]:
    """The largest rate of each family and precision."""
    best: dict[tuple[str, str], tuple[float, Point]] = {}
    for key, points in kernels.points.items():
        family, kind, number = key.split("/")
        if family not in PRODUCTS or kind == STREAM:
            continue
        for point in points:
            gmacs = (point.macs or math.prod(point.sizes)) / point.us / 1e3
            at = (family, "int8" if number == "int8" else "fp32")
            if gmacs > best.get(at, (0.0, point))[0]:
                best[at] = (gmacs, point)
    source = f"edgekit devices --calibrate, {kernels.engine} {kernels.engine_version}, largest of its sizes, at "
    return [
        Rate(
            engine=kernels.engine,
            precision=precision,  # type: ignore[arg-type]  # one of the two written above
            family=family,  # type: ignore[arg-type]  # one of PRODUCTS
            threads=kernels.threads,
            gmacs_per_s=_figure(gmacs, source + " x ".join(map(str, point.sizes))),
        )
        for (family, precision), (gmacs, point) in best.items()
    ]


def _bandwidth(measured: Sequence[Kernels]) -> tuple[Bandwidth, ...]:
    """Reading of weights by the size of all of them, of the first engine that has it; the largest is main memory's."""
    for kernels in measured:
        points = [each for each in kernels.points.get(f"dense/{STREAM}/float", ()) if each.sizes[0] == 1]
        source = f"edgekit devices --calibrate, {kernels.engine} {kernels.engine_version}, one row times weights"
        rows = [
            Bandwidth(working_set_bytes=point.sizes[1], gb_per_s=_figure(STREAM_BYTES / point.us / 1e3, source))
            for point in points
        ]
        if rows:
            return (*rows[:-1], msgspec.structs.replace(rows[-1], working_set_bytes=None))
    return ()


def _overhead(kernels: Kernels) -> Overhead:
    smallest = [points[0].us for key, points in kernels.points.items() if key.startswith("elementwise/")]
    source = f"edgekit devices --calibrate, {kernels.engine} {kernels.engine_version}"
    return Overhead(
        engine=kernels.engine,
        node_us=_figure(
            sorted(smallest)[len(smallest) // 2] if smallest else 0.0, f"{source}, small element-wise ones"
        ),
        run_us=_figure(kernels.run_us, f"{source}, a graph that does nothing"),
    )


def _figure(value: float, source: str) -> Figure:
    return Figure(value=float(f"{value:.4g}"), kind="measured", source=source)

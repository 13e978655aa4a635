"""What a graph would take on a device that is not at hand (or on this one, from its calibration).

    operators traced on this machine ─► cells (families.cell) ─► microseconds each ─► sum, interval, share not covered

For each operator the best that is known of the device is used:
    1. its calibration: measured points of the same kernel on the same engine (table.py)
    2. the effective rate that its profile states for the family, engine, precision and threads
    3. the peak of its profile times the fraction of it that such operators reach (efficiency.py)
The weaker the ground, the wider the interval.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from edgekit.devices import efficiency
from edgekit.devices.estimate import Estimate, weights_bytes
from edgekit.devices.families import Cell, cell
from edgekit.devices.profile import DeviceProfile
from edgekit.devices.table import CALLED, CONV_ROWS_APART, STREAM, WIRE, Kernels, Point, closest, surface
from edgekit.devices.work import Work
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.measurement import Environment, Latency, Measurement, Memory, OpCost, Verdict

# Standard deviations of the logarithm of a prediction, by what it rests on. That of a calibration is the spread of
# this machine's reference students around their predictions, that of the others the one `efficiency` was fitted with.
CALIBRATED_SPREAD, ALIKE_SPREAD = 0.12, 0.5
_Z80, _Z95 = 1.2816, 1.9600
_STREAMED_BYTES = 2 << 20  # weights of a calibration's chains (micro.repeats)
_THREAD_GAIN = 0.8  # what a further core adds where only one was calibrated; widens the interval


def estimate(
    profile: DeviceProfile,
    ops: Sequence[OpCost],
    *,
    engine: str,
    precision: str,
    threads: int = 1,
    inputs: Sequence[int] = (),
    outputs: int = 1,
) -> Estimate:
    """Predicts operators on a device (pure).

    Args:
        profile: Of the device.
        ops: As an engine traced them, with their shapes.
        engine: Engine there.
        precision: Of the floating-point operators there: fp32, or fp16 where the engine computes so.
        threads: Threads there.
        inputs: Elements of each input.
        outputs: How many there are.

    Raises:
        Refused: The profile knows nothing that a time could be told from.
    """
    cells = [cell(op) for op in ops]
    kernels = profile.calibrated(engine, threads) or profile.calibrated(engine, 1)
    if kernels is not None:
        made = _from_calibration(kernels, cells, ops, threads)
        return dataclasses.replace(made, run_us=made.run_us + _wires_us(kernels, inputs, outputs))
    return efficiency.estimate(profile, cells, ops, engine=engine, precision=precision, threads=threads)


def predict(profile: DeviceProfile, work: Work, *, engine: str = "", threads: int = 1) -> Measurement:
    """The measurement document of a graph on a device, predicted.

    Args:
        profile: Of the device, from `load`.
        work: The graph as traced on this machine, from `work_of`.
        engine: Engine there; empty: the one the graph was traced on.
        threads: Threads there.

    Returns:
        A document with `predicted`, the intervals of 80 and 95 %, the share of MACs that is not covered, and modelled
        energy.

    Raises:
        UsageError: The engine does not run there, or the threads are none.
        Refused: The graph is larger than the device's memory, or the profile has nothing to predict from.
    """
    from edgekit.energy.document import modelled

    if threads < 1:
        raise UsageError(f"a prediction takes 1 thread or more, got {threads}")
    engine = engine_there(profile, engine or work.engine, work.precision)
    check_memory(profile, work.graph, work.file_bytes)
    made = estimate(
        profile,
        work.ops,
        engine=engine,
        precision=work.precision,
        threads=threads,
        inputs=[math.prod(shape) for shape in work.inputs.values()],
        outputs=work.outputs,
    )
    uncovered = made.uncovered_macs_fraction
    sound = uncovered <= 0.05
    return Measurement(
        device=profile.name,
        engine=engine,
        engine_version=work.engine_version,
        threads=threads,
        precision=work.precision,
        graph=work.graph,
        graph_sha256=work.graph_sha256,
        bundle_id=work.bundle_id,
        inputs=work.inputs,
        latency_ms=Latency(
            p50=made.ms, mean=made.ms, n=0, interval_80=made.interval(_Z80), interval_95=made.interval(_Z95)
        ),
        withheld={"p90": "a prediction has no samples", "p99": "a prediction has no samples"},
        memory=Memory(file_bytes=work.file_bytes),
        energy=modelled(profile, made.ms, threads),
        ops=tuple(
            OpCost(name=op.name, kind=op.kind, ms=us / 1e3, macs=op.macs, bytes=op.bytes, int8=op.int8, calls=op.calls)
            for op, us in zip(work.ops, made.us, strict=True)
        ),
        environment=Environment(cpu=profile.title),
        verdict=Verdict(
            kind="sound" if sound else "noisy",
            reasons=(
                f"predicted from {made.ground}, not measured",
                *(() if sound else (f"{uncovered:.0%} of the MACs are covered by nothing that is known",)),
            ),
        ),
        predicted=True,
        uncovered_macs_fraction=uncovered,
    )


def engine_there(profile: DeviceProfile, engine: str, precision: str) -> str:
    """The device's engine for a graph that was traced on one of this machine.

    Raises:
        UsageError: It has none.
        Refused: It has, and would not run the precision.
    """
    found = [name for name in (engine, f"{engine}-gpu") if name in profile.engines.value]
    if not found:
        raise UsageError(
            f"{engine} is no engine of {profile.name}", remedy=f"it runs {', '.join(profile.engines.value) or 'none'}"
        )
    if found[0] in ("onnxruntime-gpu", "torch") and precision == "int8":
        raise Refused(
            f"{found[0]} has no int8 kernels on a card: nothing to predict on {profile.name}",
            remedy="take the fp32 or fp16 graph there",
        )
    return found[0]


def check_memory(profile: DeviceProfile, graph: str, file_bytes: int) -> None:
    """Refuses a graph whose file alone is larger than the device's memory, before anything is loaded.

    Raises:
        Refused: It is.
    """
    memory = profile.hardware.memory_bytes
    if memory is not None and file_bytes > memory.value:
        raise Refused(
            f"{graph} has {file_bytes / 1e6:.3g} MB, all memory of {profile.name} {memory.value / 1e6:.3g} MB",
            remedy="take a smaller graph (int8), or a device with more memory",
        )


def _from_calibration(kernels: Kernels, cells: Sequence[Cell], ops: Sequence[OpCost], threads: int) -> Estimate:
    macs = sum(op.macs or 0 for op in ops)
    footprint = sum(weights_bytes(each) for each in cells)
    gain = 1.0 + _THREAD_GAIN * (threads - kernels.threads)
    us, alike, uncovered, called = [], 0.0, 0, _called_us(kernels, cells, ops)
    for each, op in zip(cells, ops, strict=True):
        found, own = closest(kernels, each)
        if not found:
            uncovered += op.macs or 0
            us.append(0.0)
            continue
        apart = CONV_ROWS_APART if each.family == "conv" else 1.0
        time = surface(found, apart).us(each.grid) + _streaming_us(kernels, each, footprint)
        time += called if op.calls > 1 else 0.0
        time *= max(op.calls, 1) / (gain if each.macs else 1.0)
        alike += 0.0 if own else time
        us.append(time)
    whole = sum(us) + kernels.run_us
    spread = math.hypot(CALIBRATED_SPREAD, ALIKE_SPREAD * alike / whole if whole else 0.0)
    told = f"the calibration of {kernels.engine} {kernels.engine_version} with {kernels.threads} thread"
    if threads != kernels.threads:
        spread = math.hypot(spread, 0.2)
        told += f", scaled to {threads}"
    if whole and alike / whole >= 0.05:
        told += f", {alike / whole:.0%} of the time by kernels like those that it runs"
    return Estimate(tuple(us), kernels.run_us, spread, uncovered / macs if macs else 0.0, told)


def _wires_us(kernels: Kernels, inputs: Sequence[int], outputs: int) -> float:
    """What inputs and outputs besides the first take in a run; half of what one of each does, by the size of inputs."""
    points = kernels.points.get(f"move/{WIRE}/float")
    if not points:
        return 0.0
    times = [surface(points).us((size,)) / 2 for size in sorted(inputs, reverse=True)] or [0.0]
    least = surface(points).us((1,)) / 2
    # Outputs are states, or as small as an answer.
    back = [*times[: outputs - 1], *[least] * (outputs - 1 - len(times))]
    return sum(times[: len(inputs) - 1]) + sum(back)


def _called_us(kernels: Kernels, cells: Sequence[Cell], ops: Sequence[OpCost]) -> float:
    """What each operator of a called subgraph takes more than in the graph itself.

    Where that is the step of a recurrence its products carry it: so they were measured.
    """
    points = kernels.points.get(f"move/{CALLED}/float")
    steps = any(op.calls > 1 and each.family == "recurrent" for op, each in zip(ops, cells, strict=True))
    return surface(points).us((1,)) if points and not steps else 0.0


def _streaming_us(kernels: Kernels, each: Cell, footprint: int) -> float:
    """What reading the weights takes more than in a calibration, where all weights of a graph do not fit its cache."""
    points = kernels.points.get(f"dense/{STREAM}/{'int8' if each.int8 else 'float'}")
    points = points or kernels.points.get(f"dense/{STREAM}/float")
    weights = weights_bytes(each)
    if not points or not weights or footprint <= _STREAMED_BYTES:
        return 0.0
    rows = each.sizes[0] if each.family != "recurrent" else 1
    return max(_read_us(points, rows, footprint) - _read_us(points, rows, _STREAMED_BYTES), 0.0) * weights / (1 << 20)


def _read_us(points: tuple[Point, ...], rows: int, footprint: int) -> float:
    """One MiB of weights times some rows, where all weights have a size: between the numbers of rows measured straight.

    What reading adds changes little with the rows, while the product grows with them: in logarithms it would bulge.
    """
    read, known = surface(points), sorted({point.sizes[0] for point in points})
    below = max((each for each in known if each <= rows), default=known[0])
    above = min((each for each in known if each >= rows), default=known[-1])
    low, high = read.us((below, footprint)), read.us((above, footprint))
    share = math.log(rows / below) / math.log(above / below) if below < rows < above else 0.0
    return low + share * (high - low)

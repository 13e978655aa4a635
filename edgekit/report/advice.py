"""Does int8 pay here? A pure function from measurements and quality to yes or no, with the reason."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Literal

from edgekit.report.numbers import TIMES, times
from edgekit_runtime.manifest import Quality
from edgekit_runtime.measurement import Latency, Measurement

Answer = Literal["yes", "no", "not shown"]
MARGIN = 0.02  # a difference below this does not count
# Two predictions for one device are wrong together: what its profile says too high or too low, both graphs get. Spread
# of the speedup over that of one prediction: 0.65 on the published pairs of fp32 and int8 that are marked `fit` where
# peaks alone are known, 0.5 where rates are (tests/edgekit/devices/test_backtest.py holds it to the others).
SHARED = 0.65


@dataclasses.dataclass(frozen=True)
class Advice:
    """The answer for one device, engine, number of threads and input shape.

    Attributes:
        answer: Whether int8 pays, in time.
        because: The reason, a sentence without the leading `because`.
        where: Engine, threads and shape it holds for.
        speedup: fp32 time over int8 time; None where one is missing.
        int8: The int8 measurement.
        fp32: The floating-point measurement.
    """

    answer: Answer
    because: str
    where: str
    speedup: float | None
    int8: Measurement
    fp32: Measurement


def int8_advice(measurements: Sequence[Measurement], quality: Sequence[Quality] = ()) -> list[Advice]:
    """One answer for every int8 measurement that has a floating-point twin.

    Twins share device, engine, threads, bundle and input shapes. Of bare files only those count whose names differ by a
    precision alone (`net.int8.tflite`, `net_fp32.tflite`).

    Args:
        measurements: Any number, of any device.
        quality: The manifest's rows; the slice `all` of a graph decides.
    """
    found = []
    for int8 in measurements:
        if int8.precision != "int8":
            continue
        for fp32 in measurements:
            if fp32.precision in ("fp32", "fp16") and _twins(int8, fp32):
                gate = next((row for row in quality if row.graph == int8.graph and row.slice == "all"), None)
                found.append(judge(int8, fp32, gate))
                break
    return found


def judge(int8: Measurement, fp32: Measurement, gate: Quality | None) -> Advice:
    """The answer for one pair. Quality comes first, then whether the figures can be trusted, then time."""
    shape = "; ".join(TIMES.join(map(str, shape)) for shape in int8.inputs.values())
    where = f"{int8.engine}, {int8.threads} thread{'s' * (int8.threads > 1)}, {shape}"
    size = int8.memory.file_bytes / fp32.memory.file_bytes
    small = f"{times(size)} the bytes"
    new, old = int8.latency_ms, fp32.latency_ms
    speedup = old.p50 / new.p50 if old.p50 and new.p50 else None

    def advise(answer: Answer, because: str) -> Advice:
        return Advice(answer, because, where, speedup, int8, fp32)

    if gate is not None and gate.gate == "failed":
        return advise("no", f"its quality does not pass: {gate.reason}")
    if speedup is None or new.interval_95 is None or old.interval_95 is None:
        return advise("not shown", "one of the two has no median that its sample supports")
    quality = "" if gate is None else f", and its {gate.metric} passes the gate (drop {gate.drop:+.4f})"
    invalid = [m.precision for m in (int8, fp32) if m.verdict.kind == "invalid"]
    if invalid:
        return advise("not shown", f"the measurement of {' and of '.join(invalid)} is invalid: measure again")
    noisy = " (noisy figures)" if "noisy" in (int8.verdict.kind, fp32.verdict.kind) else ""
    low, high = old.interval_95[0] / new.interval_95[1], old.interval_95[1] / new.interval_95[0]
    if int8.predicted and fp32.predicted:
        low, high = predicted_speedup(new, old)
        noisy += f" (predicted, not measured: {times(low)} to {times(high)} at 95 %)"
    elif int8.predicted or fp32.predicted:
        noisy += " (predicted, not measured)"
    if low > 1 + MARGIN:
        return advise("yes", f"it is {times(speedup)} as fast as {fp32.precision} with {small}{quality}{noisy}")
    if high * (1 + MARGIN) < 1:
        return advise("no", f"it takes {times(1 / speedup)} the time of {fp32.precision}, though {small}{noisy}")
    if int8.predicted and fp32.predicted:
        return advise("not shown", f"{times(speedup)} the speed is too little to tell; it has {small}{quality}{noisy}")
    return advise("not shown", f"the intervals overlap ({times(speedup)} as fast); it has {small}{quality}{noisy}")


def predicted_speedup(int8: Latency, fp32: Latency) -> tuple[float, float]:
    """95 % interval of fp32 time over int8 time where both are predicted for one device.

    Args:
        int8: With its 95 % interval.
        fp32: With its 95 % interval.
    """
    assert int8.p50 and fp32.p50 and int8.interval_95 and fp32.interval_95
    apart = [math.log(each.interval_95[1] / each.interval_95[0]) / 2 for each in (int8, fp32) if each.interval_95]
    reach, ratio = SHARED * sum(apart) / 2, fp32.p50 / int8.p50
    return ratio * math.exp(-reach), ratio * math.exp(reach)


def _twins(one: Measurement, other: Measurement) -> bool:
    same = (one.device, one.engine, one.threads, one.bundle_id) == (
        other.device,
        other.engine,
        other.threads,
        other.bundle_id,
    )
    if not same or sorted(one.inputs.values()) != sorted(other.inputs.values()):
        return False
    if one.bundle_id:
        return _without_precision(one.graph).split(".")[0] == _without_precision(other.graph).split(".")[0]
    return _without_precision(one.graph) == _without_precision(other.graph)


def _without_precision(name: str) -> str:
    return re.sub(r"[._-]?(int8|fp32|fp16|float32|float|quantized|quant)(?=[._-]|$)", "", name.lower())

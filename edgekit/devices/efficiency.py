"""Predicts from what a profile states: effective rates where there are any, else a usual fraction of the peak.

product      max(MACs / rate, bytes of its weights / bandwidth of main memory where they do not stay in a cache)
the others   bytes / what a core moves through its caches, and a share for being called
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.devices.estimate import Estimate, weights_bytes
from edgekit.devices.families import PRODUCTS, Cell, Family
from edgekit.devices.profile import DeviceProfile, Rate
from edgekit_runtime.errors import Refused
from edgekit_runtime.measurement import OpCost

# Fractions of the peak that large layers reach, by the precision of the product: medians over the boards whose rates
# were fitted to published figures (`benchmarks/boards.py` prints them; docs/results/prediction.md tells how well they
# do). Above 1 for convolutions, as Winograd's algorithm does a 3 x 3 kernel with fewer multiplications. The families
# below `dense` are guesses in proportion to it: nothing published was at hand to hold them to.
FRACTIONS: dict[str, dict[Family, float]] = {
    "float": {
        "conv": 1.2, "pointwise": 0.6, "depthwise": 0.12, "dense": 0.35, "matmul": 0.25, "recurrent": 0.2,
        "attention": 0.3,
    },
    "int8": {
        "conv": 0.55, "pointwise": 0.5, "depthwise": 0.07, "dense": 0.3, "matmul": 0.2, "recurrent": 0.15,
        "attention": 0.2,
    },
}  # fmt: skip
# The same on x86, where the fractions above, of Arm cores, are too low: means over both engines of the largest rates in
# the calibration of `x86-vnni` over its peak (a test holds them to that file). They are not divided by what `_filled`
# takes off at the sizes they were measured at, which would put most of them above the peak: still a little too low.
# int8 `matmul` and `attention` were not measured: the fp32 one, times what int8 keeps of fp32 in `dense`. Without VNNI
# three instructions do what VPDPBUSD does in one; no such core was calibrated, so only the float row serves there.
X86_FRACTIONS: dict[str, dict[Family, float]] = {
    "float": {
        "conv": 0.95, "pointwise": 0.95, "depthwise": 0.43, "dense": 0.95, "matmul": 0.80, "recurrent": 0.50,
        "attention": 0.80,
    },
    "int8": {
        "conv": 0.90, "pointwise": 0.80, "depthwise": 0.08, "dense": 0.89, "matmul": 0.75, "recurrent": 0.36,
        "attention": 0.75,
    },
}  # fmt: skip
# A family that is not stated takes the rate of its relatives.
_RELATIVES: dict[Family, tuple[Family, ...]] = {
    "conv": ("pointwise", "dense"),
    "pointwise": ("conv", "dense"),
    "dense": ("pointwise", "conv"),
    "matmul": ("dense", "pointwise"),
    "attention": ("dense", "pointwise"),
    "recurrent": ("dense", "pointwise"),
}
# Engines that share their kernels: LiteRT runs XNNPACK's.
_KIN = {"litert": ("litert", "xnnpack"), "tflite-runtime": ("tflite-runtime", "xnnpack")}
THREAD_GAIN = 0.75  # what each further core adds to the rate of one
BYTES_PER_CYCLE = 4.0  # element-wise work in the caches of one core, read and written
# Sizes at which half of the rate of large layers is reached: of channels times kernel (33 channels of 3 x 3), of
# channels, of channels out. They and the two above were chosen on the rows marked `fit` (root of the mean squared
# logarithm 0.07; without them 0.19).
HALF_KERNEL, HALF_INNER, HALF_COLUMNS = 300.0, 32.0, 16.0
MOVING_GAIN = 0.25  # what each further core adds to that
NODE_CYCLES = 2000.0  # being called, once an operator
RUN_CYCLES = 10_000.0
# Standard deviations of the logarithm: rates of this engine, of another one, and a fraction of the peak.
OWN_SPREAD, OTHER_SPREAD, PEAK_SPREAD = 0.25, 0.35, 0.5
_GROUNDS = {
    OWN_SPREAD: "rates of this engine in its profile",
    OTHER_SPREAD: "rates of another engine in its profile",
    PEAK_SPREAD: "the peak rates of its profile",
}


def estimate(
    profile: DeviceProfile, cells: Sequence[Cell], ops: Sequence[OpCost], *, engine: str, precision: str, threads: int
) -> Estimate:
    """See `prediction.estimate`.

    Raises:
        Refused: The profile has neither rates nor peaks for the precision of any product.
    """
    clock = profile.hardware.clock_mhz.value
    whole = sum(op.macs or 0 for op in ops)
    footprint = sum(weights_bytes(each) for each in cells)
    us, covered, spreads = [], 0, []
    for each, op in zip(cells, ops, strict=True):
        calls = max(op.calls, 1)
        if each.family not in PRODUCTS or not each.macs:
            us.append(calls * _moved_us(each.bytes, clock, threads))
            continue
        found = rate(profile, each, engine=engine, precision=precision, threads=threads)
        if found is None:
            us.append(0.0)
            continue
        gmacs, spread = found
        activations = max(each.bytes - weights_bytes(each), 0)
        time = max(each.macs / gmacs / _filled(profile, each) / 1e3, _weights_us(profile, each, footprint)) + _moved_us(
            activations, clock, threads
        )
        us.append(calls * time)
        covered += op.macs or 0
        spreads.append((calls * time, spread))
    if whole and not covered:
        raise Refused(
            f"the profile {profile.name} has neither rates nor peaks to predict {engine} in {precision} from",
            remedy="run `edgekit devices --calibrate` on the device, or add figures with their sources",
        )
    products = sum(time for time, _ in spreads)
    spread = sum(time * value for time, value in spreads) / products if products else PEAK_SPREAD
    known = {_GROUNDS[value] for _, value in spreads}
    return Estimate(
        us=tuple(us),
        run_us=RUN_CYCLES / clock,
        spread=math.hypot(spread, 0.1),
        uncovered_macs_fraction=1 - covered / whole if whole else 0.0,
        ground=" and ".join(sorted(known)) or "the clock of its profile",
    )


def rate(
    profile: DeviceProfile, each: Cell, *, engine: str, precision: str, threads: int
) -> tuple[float, float] | None:
    """Rate of a product in GMAC/s and the spread of what it rests on; None where nothing is known."""
    kind = "int8" if each.int8 else ("fp32" if precision == "int8" else precision)
    stated = [each_rate for each_rate in profile.rates if each_rate.precision == kind]
    own = [each_rate for each_rate in stated if each_rate.engine in _KIN.get(engine, (engine,))]
    for rates, spread in ((own, OWN_SPREAD), (stated, OTHER_SPREAD)):
        found = _stated(rates, each.family, threads)
        if found is not None:
            return found, spread
    cores = min(threads, int(profile.hardware.cores.value))
    peak = profile.peak_gmacs_per_s(kind)
    if peak is None and kind == "fp16":
        peak = profile.peak_gmacs_per_s("fp32")
    if peak is None:
        return None
    if profile.kind == "gpu":
        cores = 1
        peak *= profile.hardware.cores.value  # its multiprocessors always work together
    return peak * fractions(profile, int8=each.int8)[each.family] * _gain(cores), PEAK_SPREAD


def fractions(profile: DeviceProfile, *, int8: bool) -> dict[Family, float]:
    """Fractions of the peak that large layers reach on cores like those of a device."""
    like_x86 = profile.architecture == "x86_64" and (profile.has_int8_dot or not int8)
    return (X86_FRACTIONS if like_x86 else FRACTIONS)["int8" if int8 else "float"]


def _stated(rates: Sequence[Rate], family: Family, threads: int) -> float | None:
    for name in (family, *_RELATIVES.get(family, ())):
        known = [each for each in rates if each.family == name]
        if known:
            nearest = min(known, key=lambda each: (abs(math.log(each.threads / threads)), each.threads))
            return nearest.gmacs_per_s.value * _gain(threads) / _gain(nearest.threads)
    return None


def _gain(threads: int) -> float:
    return 1.0 + THREAD_GAIN * (threads - 1)


def _filled(profile: DeviceProfile, each: Cell) -> float:
    """How much of the rate of large layers is left where few products are summed or few channels come out.

    A microcontroller's kernels have no blocks that could stay half empty.
    """
    if profile.kind == "mcu" or each.family == "depthwise":
        return 1.0
    _, inner, columns = each.sizes
    half = HALF_KERNEL if each.family == "conv" else HALF_INNER
    return inner / (inner + half) * columns / (columns + HALF_COLUMNS)


def _moved_us(moved: int, clock_mhz: float, threads: int) -> float:
    """Reading and writing activations through the caches, and being called."""
    return (moved / BYTES_PER_CYCLE / (1.0 + MOVING_GAIN * (threads - 1)) + NODE_CYCLES) / clock_mhz


def _weights_us(profile: DeviceProfile, each: Cell, footprint: int) -> float:
    """Reading the weights from main memory, where those of the graph stay in no cache."""
    caches = [level.value for level in (profile.hardware.l2_bytes, profile.hardware.l3_bytes) if level]
    memory = [entry.gb_per_s.value for entry in profile.bandwidth if entry.working_set_bytes is None]
    if not memory or footprint <= max(caches, default=0.0):
        return 0.0
    return weights_bytes(each) / memory[0] / 1e3

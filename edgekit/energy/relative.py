"""A relative measure of energy from what a graph does, for comparing models on one device; it is no figure in joules.

The weights are those of Horowitz, "Computing's energy problem", ISSCC 2014 (45 nm): an 8-bit multiply-add 0.23 pJ, a
32-bit floating-point one 4.6 pJ; reading 64 bits takes 10 pJ from 8 KiB, 20 pJ from 32 KiB, 100 pJ from 1 MiB and
1.3 to 2.6 nJ from DRAM; an instruction takes 70 pJ besides what it computes, which the products of a vector share.
An engine takes some hundred instructions to come from one operator to the next: calibrations show 0.07 to 0.44 us.
Whole boards take two to three orders more than that, mostly for being awake: hence relative.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit_runtime.measurement import OpCost

if TYPE_CHECKING:
    from edgekit.devices.profile import DeviceProfile

INT8_MAC_PJ, FLOAT_MAC_PJ, INSTRUCTION_PJ = 0.23, 4.6, 70.0
NODE_INSTRUCTIONS = 1000  # of an engine between two operators: 0.07 us (LiteRT) to 0.44 us (ONNX Runtime) at 3.7 GHz
L1_BYTE_PJ, CACHE_BYTE_PJ, DRAM_BYTE_PJ = 20 / 8, 100 / 8, 1950 / 8


@dataclasses.dataclass(frozen=True)
class Proxy:
    """Relative energy of one run, in no unit. Compare it with another model's on the same device only.

    Attributes:
        relative: The whole.
        arithmetic: Share of the multiply-adds with their instructions.
        engine: Share of what the engine does between operators.
        near: Share of the bytes that a core's own cache can hold.
        cache: Share of those in the other caches.
        memory: Share of those in main memory.
    """

    relative: float
    arithmetic: float
    engine: float
    near: float
    cache: float
    memory: float


def proxy(ops: Sequence[OpCost], profile: DeviceProfile) -> Proxy:
    """The proxy of a graph on a device (pure).

    An operator's bytes are taken to lie in the smallest level that holds them all. A device without caches (a
    microcontroller) has them in its one memory, which is as near as a cache.
    """
    hardware = profile.hardware
    first = hardware.l1_bytes.value if hardware.l1_bytes else 0.0
    last = max((level.value for level in (hardware.l2_bytes, hardware.l3_bytes) if level), default=0.0)
    if not last and hardware.memory_bytes and profile.kind == "mcu":
        last = hardware.memory_bytes.value
    mac_pj = {int8: _mac_pj(profile, int8) for int8 in (False, True)}
    arithmetic = sum((op.macs or 0) * mac_pj[op.int8] for op in ops)
    levels = [0.0, 0.0, 0.0]
    for op in ops:
        moved = op.bytes or 0
        # Rows of a table come from where the whole of it lies, with at least a byte a value.
        once = max(moved / max(op.calls, 1), *map(math.prod, op.inputs), 0)
        level, cost = (0, L1_BYTE_PJ) if once <= first else (1, CACHE_BYTE_PJ) if once <= last else (2, DRAM_BYTE_PJ)
        levels[level] += moved * cost
    between = sum(op.calls for op in ops) * NODE_INSTRUCTIONS * INSTRUCTION_PJ
    whole = arithmetic + between + sum(levels)
    if not whole:
        return Proxy(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return Proxy(whole, arithmetic / whole, between / whole, *(level / whole for level in levels))


def _mac_pj(profile: DeviceProfile, int8: bool) -> float:
    """One multiply-add with its share of an instruction: a core does its peak with one instruction a cycle."""
    lanes = _lanes(profile, "int8" if int8 else "fp32")
    if profile.kind == "gpu":
        lanes = max(lanes, 32.0)  # a warp shares each instruction
    return (INT8_MAC_PJ if int8 else FLOAT_MAC_PJ) + INSTRUCTION_PJ / lanes


def _lanes(profile: DeviceProfile, precision: str) -> float:
    """Multiply-adds of one core a cycle: the peak, else the best rate that is known of the device; 4 where none is."""
    peaks = [peak.macs_per_cycle.value for peak in profile.peaks if peak.precision == precision]
    hertz = profile.hardware.clock_mhz.value * 1e6
    rates = [
        rate.gmacs_per_s.value * 1e9 / (hertz * rate.threads) for rate in profile.rates if rate.precision == precision
    ]
    return max(peaks or rates, default=0.0) or 4.0

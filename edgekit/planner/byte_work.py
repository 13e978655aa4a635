"""How much longer work on bytes (codecs, copies) takes on another machine: timed here, scaled by the profiles.

Codecs run on one core and go through their bytes with few operations each, so the slower of two things rules: the
core's clock, or its main memory. Rates of multiplications say nothing of them: vectors are as good as idle.
"""

from __future__ import annotations

from edgekit.devices import DeviceProfile, load

_COPIES = 3  # of a tensor on its way: its bytes, the message, the socket; each is read and written
_BYTES_PER_CYCLE = 3  # Zero 2 W and Pi 4: 2.6, N100: 3.3, Pi 5: 5
_STAND_IN = {"x86_64": "x86-vnni", "AMD64": "x86-vnni"}
_STAND_IN_ELSEWHERE = "pi5"


def slower(here: DeviceProfile, there: DeviceProfile) -> float:
    """How many times longer one core takes for work on bytes.

    A card's figures say nothing of the processor beside it, which does such work: it is taken for this machine.

    Args:
        here: Where it was timed.
        there: Where it is to run.
    """
    if there.name == here.name or there.kind == "gpu":
        return 1.0
    ratios = [here.hardware.clock_mhz.value / there.hardware.clock_mhz.value]
    if here.bandwidth and there.bandwidth:
        ratios.append(memory_gb_per_s(here) / memory_gb_per_s(there))
    return max(ratios)


def memory_gb_per_s(profile: DeviceProfile) -> float:
    """Bandwidth of main memory, the last entry; without one three bytes a cycle, as the boards have whose is known."""
    if profile.bandwidth:
        return profile.bandwidth[-1].gb_per_s.value
    return _BYTES_PER_CYCLE * profile.hardware.clock_mhz.value / 1e3


def serialise_ms(profile: DeviceProfile, size_bytes: int) -> float:
    """Time to bring a tensor's bytes into a message and onto the wire."""
    return _COPIES * 2 * size_bytes * 1e-6 / memory_gb_per_s(profile)


def yardstick(local: DeviceProfile) -> DeviceProfile:
    """The profile that stands for this machine: its own where its memory was measured, else the nearest shipped one."""
    return local if local.bandwidth else load(_STAND_IN.get(local.architecture, _STAND_IN_ELSEWHERE))


def slower_than_here(profile: DeviceProfile) -> float:
    """`slower` than the machine this runs on."""
    local = load("local")
    return 1.0 if profile.name == local.name else slower(yardstick(local), profile)

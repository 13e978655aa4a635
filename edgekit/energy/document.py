"""The `energy` of a measurement document, from a meter's reading or from a profile's power."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgekit.energy.meter import EnergyReading, Meter, Unreadable
from edgekit_runtime.measurement import Energy

if TYPE_CHECKING:
    from edgekit.devices.profile import DeviceProfile, Figure

IDLE_S = 1.0


def unavailable(reason: str) -> Energy:
    """No figure, and why."""
    return Energy(kind="unavailable", reason=reason)


def for_measurement(reading: EnergyReading, runs: int, *, idle: EnergyReading | None = None) -> Energy:
    """Energy of one run from what a meter saw of many (pure).

    Args:
        reading: While the graph ran `runs` times.
        runs: At least 1.
        idle: The same meter while nothing ran, just before: its power is taken off for `net_mj`.

    Returns:
        Gross and net millijoules. The net figure is left out where the work cannot be told from idling.
    """
    if runs < 1 or reading.seconds <= 0:
        return unavailable("nothing ran while the meter was read")
    if reading.joules <= 0:
        return unavailable(
            f"{reading.method} counted nothing in {reading.seconds:.3g} s: its steps are longer than that"
        )
    net, reason = None, "no reading of the idle machine"
    if idle is not None:
        above = reading.joules - idle.watts * reading.seconds
        net = above / runs * 1e3 if above > 0 else None
        reason = "" if above > 0 else "the work took no more power than idling before it"
    return Energy(
        kind="measured",
        mj=reading.joules / runs * 1e3,
        net_mj=net,
        method=f"{reading.method}, {reading.covers}, {runs} runs in {reading.seconds:.3g} s",
        source=reading.source,
        reason=reason,
    )


def metered(meter: Meter, work: Callable[[], int], *, rest: Callable[[], object] | None = None) -> Energy:
    """Measures work: first the idle machine, then the work, by one meter.

    Args:
        meter: Any meter.
        work: Does it, and returns how many runs it was.
        rest: Waits while nothing runs; None: the idle machine is not looked at and only the gross figure is given.
    """
    try:
        idle = None
        if rest is not None:
            meter.start()
            rest()
            idle = meter.stop()
        meter.start()
        runs = work()
        return for_measurement(meter.stop(), runs, idle=idle)
    except Unreadable as error:
        return unavailable(str(error))


def modelled(profile: DeviceProfile, latency_ms: float | None, threads: int = 1) -> Energy:
    """Power of a profile times busy time (pure).

    Args:
        profile: Of the device.
        latency_ms: Of one run, measured or predicted.
        threads: Cores that are busy meanwhile.

    Returns:
        Gross: the device's power while so many cores work. Net: what of it is above idling.
    """
    if latency_ms is None:
        return unavailable("no latency to multiply the power with")
    found = busy_w(profile, threads)
    if found is None:
        return unavailable(f"the profile {profile.name} holds no power for {threads} busy cores")
    watts, how = found
    idle = profile.power.idle_w if profile.power else None
    net = (watts - idle.value) * latency_ms if idle else None
    return Energy(
        kind="modelled",
        mj=watts * latency_ms,
        net_mj=net if net is not None and net > 0 else None,
        method=f"{watts:.3g} W of {profile.name} with {threads} busy cores times {latency_ms:.4g} ms",
        source=how,
        reason="" if idle else f"the profile {profile.name} does not tell idle power",
    )


def busy_w(profile: DeviceProfile, threads: int) -> tuple[float, str] | None:
    """Power with some cores busy, and where it is from; in between it rises evenly with each core."""
    power = profile.power
    if power is None:
        return None
    cores = max(int(profile.hardware.cores.value), 1)
    known: list[tuple[int, Figure]] = [
        (count, figure)
        for count, figure in ((0, power.idle_w), (1, power.one_core_w), (cores, power.all_cores_w))
        if figure is not None
    ]
    threads = cores if profile.kind == "gpu" else min(threads, cores)
    exact = [figure for count, figure in known if count == threads]
    if exact:
        return exact[-1].value, f"{exact[-1].kind}: {exact[-1].source}"
    below = [pair for pair in known if pair[0] < threads]
    above = [pair for pair in known if pair[0] > threads]
    if not below or not above:
        return None
    (low, first), (high, last) = below[-1], above[0]
    watts = first.value + (last.value - first.value) * (threads - low) / (high - low)
    return watts, f"between {first.source} and {last.source}"

"""A device profile: what is known of one kind of device, each figure with its kind and its source.

    name = "pi4"
    [hardware]
    clock_mhz = { value = 1500, kind = "vendor", source = "Raspberry Pi 4 product brief" }

Strict: an unknown key, a figure without a source and a number that is none are refused. What is not known is left out.
Units stand in the names of the figures.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgekit.devices import table
from edgekit.devices.families import Family
from edgekit.devices.table import Kernels
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Base

FigureKind = Literal["vendor", "measured", "derived"]
DeviceKind = Literal["board", "phone", "pc", "gpu", "mcu"]
Precision = Literal["fp32", "fp16", "int8"]
Text = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Figure(Base, frozen=True, kw_only=True):
    """One number. Its unit stands in the name of the field that holds it.

    Attributes:
        value: The number, 0 or above.
        kind: `vendor` (a data sheet), `measured` (read on the device, here or published), `derived` (computed).
        source: Where it is from; for a derived figure, from what and how.
        spread_fraction: Relative standard deviation of the figure, where known.
    """

    value: float
    kind: FigureKind
    source: Text
    spread_fraction: float | None = None

    def __post_init__(self) -> None:
        """Refuses what is no number; the message reaches the reader with the path of the figure."""
        if not math.isfinite(self.value) or self.value < 0:
            raise ValueError(f"a figure is a finite number of 0 or above, got {self.value}")


class Words(Base, frozen=True, kw_only=True):
    """A list of names with the same provenance as a figure."""

    value: tuple[str, ...]
    kind: FigureKind
    source: Text


class Hardware(Base, frozen=True, kw_only=True):
    """The chip and its memory.

    Attributes:
        cores: Cores of the kind that runs graphs (on a GPU: multiprocessors).
        clock_mhz: Clock they hold under load.
        memory_bytes: Memory that a graph can use.
        l1_bytes: First-level data cache of one core.
        l2_bytes: Second-level cache that one core reaches.
        l3_bytes: Last-level cache.
    """

    cores: Figure
    clock_mhz: Figure
    memory_bytes: Figure | None = None
    l1_bytes: Figure | None = None
    l2_bytes: Figure | None = None
    l3_bytes: Figure | None = None


class Peak(Base, frozen=True, kw_only=True):
    """Multiply-accumulates that one core can start in a cycle."""

    precision: Precision
    macs_per_cycle: Figure


class Bandwidth(Base, frozen=True, kw_only=True):
    """Bytes a second that one thread reads and writes while its working set has a size (None: main memory)."""

    working_set_bytes: int | None = None
    gb_per_s: Figure


class Rate(Base, frozen=True, kw_only=True):
    """Effective rate of the large layers of one family on one engine; `efficiency.py` tells what small ones keep of it.

    It may exceed the peak, as an engine can do a convolution with fewer multiplications than its definition.
    """

    engine: Text
    precision: Precision
    family: Family
    threads: Count = 1
    gmacs_per_s: Figure


class Overhead(Base, frozen=True, kw_only=True):
    """What an engine costs besides the work: once an operator, and once a run."""

    engine: Text
    node_us: Figure
    run_us: Figure


class Power(Base, frozen=True, kw_only=True):
    """Power of the whole device at its supply unless the source says otherwise.

    Attributes:
        idle_w: Nothing to do.
        one_core_w: One core busy.
        all_cores_w: All cores busy.
        sensor: What the device offers to measure it; empty: nothing.
    """

    idle_w: Figure | None = None
    one_core_w: Figure | None = None
    all_cores_w: Figure | None = None
    sensor: str = ""


class Published(Base, frozen=True, kw_only=True):
    """A figure that somebody published of a well-known model on this device, for fitting or for the back-test.

    Attributes:
        model: Name in `benchmarks/networks.py`.
        engine: Engine and version as far as told.
        precision: Numeric form of the multiplications.
        threads: None: not told; all cores are assumed.
        latency_ms: Time of one inference.
        energy_uj: Energy of one inference.
        use: `fit` when figures of a profile or predictor came from it, `held_out` when nothing did.
    """

    model: Text
    engine: Text
    precision: Precision
    threads: Count | None = None
    latency_ms: Figure
    energy_uj: Figure | None = None
    use: Literal["fit", "held_out"]


class DeviceProfile(Base, frozen=True, kw_only=True):
    """What is known of one kind of device.

    Attributes:
        name: As `--device` and `--target` take it, equal to the file's stem.
        title: For people.
        kind: What sort of thing it is.
        architecture: As `platform.machine()` says there.
        isa: Instruction-set flags that decide which kernels run, in the words of `/proc/cpuinfo`.
        engines: Engines that run there.
        hardware: The chip and its memory.
        peaks: Largest rates by precision.
        bandwidth: By size of the working set, rising; the entry without a size is main memory.
        rates: Effective rates that are known of this device; they go before what is estimated from the peaks.
        overheads: By engine.
        power: None: nothing is known.
        published: Published figures of well-known models.
        predictor: Name of the JSON file beside this one that holds a calibration; empty: there is none.
        kernels: What that file holds, filled on reading.
    """

    schema: Literal["edgekit.device_profile/1"] = "edgekit.device_profile/1"
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    title: Text
    kind: DeviceKind
    architecture: Text
    isa: Words
    engines: Words
    hardware: Hardware
    peaks: tuple[Peak, ...] = ()
    bandwidth: tuple[Bandwidth, ...] = ()
    rates: tuple[Rate, ...] = ()
    overheads: tuple[Overhead, ...] = ()
    power: Power | None = None
    published: tuple[Published, ...] = ()
    predictor: Annotated[str, msgspec.Meta(pattern=r"^([a-z0-9][a-z0-9.-]*)?$")] = ""
    kernels: tuple[Kernels, ...] = ()

    def calibrated(self, engine: str, threads: int) -> Kernels | None:
        """The calibration of an engine with so many threads; None where there is none."""
        found = [kernels for kernels in self.kernels if (kernels.engine, kernels.threads) == (engine, threads)]
        return found[0] if found else None

    @property
    def has_int8_dot(self) -> bool:
        """Instructions that multiply 8-bit integers and add them up in 32 bits."""
        return bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm", "dp4a"}.intersection(self.isa.value))

    def peak_gmacs_per_s(self, precision: str, threads: int = 1) -> float | None:
        """Largest rate of some cores together; None where the profile does not tell."""
        found = [peak.macs_per_cycle.value for peak in self.peaks if peak.precision == precision]
        cores = min(threads, int(self.hardware.cores.value))
        return found[0] * cores * self.hardware.clock_mhz.value / 1e3 if found else None


def read(path: Path) -> DeviceProfile:
    """Reads and checks one profile, with its predictor.

    Raises:
        Refused: Not TOML, an unknown key, a figure without source, a name that is not the file's, a predictor that is
            absent or of another format.
    """
    profile = read_bare(path)
    if not profile.predictor:
        return profile
    return msgspec.structs.replace(profile, kernels=table.read(path.parent / profile.predictor).kernels)


def read_bare(path: Path) -> DeviceProfile:
    """Reads and checks one profile and leaves its predictor alone.

    Raises:
        Refused: Not TOML, an unknown key, a figure without source, a name that is not the file's.
    """
    try:
        profile = msgspec.toml.decode(path.read_bytes(), type=DeviceProfile)
    except msgspec.ValidationError as error:
        raise Refused(
            f"{path.name} is not a device profile: {error}",
            remedy="each figure is { value, kind = vendor|measured|derived, source }; see profile.schema.json",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{path.name} is not TOML: {error}", remedy="correct the file") from error
    if profile.name != path.stem:
        raise Refused(f"{path.name} calls itself {profile.name!r}", remedy="a profile has the name of its file")
    return profile

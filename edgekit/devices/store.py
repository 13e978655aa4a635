"""Where profiles lie and how they are found.

    ./device_profiles/     of the folder one works in: what `edgekit devices --calibrate` writes, and one's own
    (shipped)              device_profiles/ of the project, in a checkout and in an installed wheel alike

The first one found under a name counts. Nothing is kept in the home folder.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.devices import caches
from edgekit.devices.profile import DeviceProfile, Figure, Hardware, Words, read
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.machine import Machine, this_machine

LOCAL = "local"
FOLDER = "device_profiles"
# In a checkout this is a link to the project's folder; a wheel holds the files themselves here.
SHIPPED = Path(__file__).parent / "profiles"


def folders() -> tuple[Path, ...]:
    """Folders that are searched, the nearest first."""
    own = Path.cwd() / FOLDER
    found = [folder for folder in (own, SHIPPED) if folder.is_dir()]
    return tuple(dict.fromkeys(folder.resolve() for folder in found))


def known() -> tuple[str, ...]:
    """Names of the profiles there are, sorted; calibrated machines among them."""
    return tuple(sorted({path.stem for folder in folders() for path in folder.glob("*.toml")}))


def find(name: str) -> Path | None:
    """The file of a profile; None where there is none of that name."""
    if name not in known():
        return None
    return next(path for folder in folders() if (path := folder / f"{name}.toml").is_file())


def load(name: str) -> DeviceProfile:
    """The profile of a device.

    Args:
        name: A known name; `local` for this machine (calibrated, or as far as it tells by itself); or the path of a
            `.toml` file.

    Raises:
        UsageError: There is no such device.
        Refused: The file cannot be taken.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise Refused(f"{name} does not exist", remedy="check the path")
        return read(Path(name))
    path = find(this_machine().id if name == LOCAL else name)
    if path is not None:
        return read(path)
    if name in (LOCAL, this_machine().id):
        return describe(this_machine())
    raise UsageError(
        f"there is no device {name!r}", remedy=f"one of: {', '.join((LOCAL, *known()))}, or the path of a profile"
    )


def describe(machine: Machine) -> DeviceProfile:
    """What this machine tells by itself: enough to name it, not to predict for it."""
    from edgekit.profiler import environment
    from edgekit_runtime import engines

    told = "this machine, /proc/cpuinfo and its like"

    sizes = caches.read()

    def figure(value: float, source: str = told) -> Figure:
        return Figure(value=value, kind="measured", source=source)

    def cache(level: int) -> Figure | None:
        return figure(sizes[level], str(caches.FOLDER)) if level in sizes else None

    return DeviceProfile(
        name=machine.id,
        title=f"This machine: {machine.cpu}",
        kind="pc" if machine.is_x86 else "board",
        architecture=machine.architecture,
        isa=Words(value=machine.isa, kind="measured", source=told),
        engines=Words(value=tuple(engines.available()), kind="measured", source="the wheels installed here"),
        hardware=Hardware(
            cores=figure(machine.cores),
            clock_mhz=figure(environment.read().clock_mhz or 0.0),
            memory_bytes=figure(machine.memory_bytes) if machine.memory_bytes else None,
            l1_bytes=cache(1),
            l2_bytes=cache(2),
            l3_bytes=cache(3),
        ),
    )

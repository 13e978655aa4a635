"""Cache sizes as the Linux kernel tells them: /sys/devices/system/cpu/cpu0/cache/index0/{level,type,size}."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def read(folder: Path = FOLDER) -> dict[int, int]:
    """Bytes of each level that holds data, as the first core reaches it; nothing where the system does not tell."""
    found: dict[int, int] = {}
    for index in sorted(folder.glob("index[0-9]*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
            number = int(size.rstrip("KMG")) * _UNITS.get(size[-1:], 1)
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and number > 0 and level.isdigit():
            found[int(level)] = number
    return found

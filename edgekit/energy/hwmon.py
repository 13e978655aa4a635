"""Power sensors of hwmon: the INA3221 and INA226 of Jetsons and carrier boards, and whatever else names its rail.

    hwmon3/name        ina3221
    hwmon3/in1_label   VDD_IN     in1_input 4984 mV, curr1_input 832 mA      P = V * I
    hwmon5/name        ina226     power1_input 4 150 000 uW                  told directly

The rail of the whole board is taken alone; rails inside it (VDD_CPU_GPU_CV, VDD_SOC) are not added to it again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from edgekit.energy.files import number, text
from edgekit.energy.sampled import Sampled

HWMON = Path("sys/class/hwmon")
# Rails that feed a whole board, best first: Jetson Orin, Xavier, TX2 and Nano.
BOARD_RAILS = ("VDD_IN", "VIN_SYS_5V0", "POM_5V_IN", "VDD_MUX", "VIN")
_CHIPS = ("ina3221", "ina226", "ina219", "ina231", "ina238", "ina260")


@dataclasses.dataclass(frozen=True)
class Rail:
    """One rail: its chip, its label, and how its power is read in watts."""

    chip: str
    label: str
    read: Callable[[], float]


def rails(root: Path) -> list[Rail]:
    """All rails that name their power or voltage and current, in order of the chips."""
    found = []
    for folder in sorted((root / HWMON).glob("hwmon*")):
        chip = text(folder / "name") or ""
        if chip not in _CHIPS:
            continue
        for number_ in range(1, 5):
            rail = _rail(folder, chip, number_)
            if rail is not None:
                found.append(rail)
    return found


def find(root: Path) -> Sampled | None:
    """The meter of the board's rail; a chip with a single rail is taken for it. None: there is none."""
    there = rails(root)
    board = [rail for name in BOARD_RAILS for rail in there if rail.label == name]
    chosen = (board or (there if len(there) == 1 else []))[:1]
    if not chosen:
        return None
    rail = chosen[0]
    return Sampled(
        rail.read,
        method=f"{rail.chip} {rail.label}",
        source="hwmon, volts times amperes of the rail",
        covers="whole board" if board else f"rail {rail.label}",
    )


def _rail(folder: Path, chip: str, index: int) -> Rail | None:
    label = text(folder / f"in{index}_label") or text(folder / f"power{index}_label") or f"channel {index}"
    power = folder / f"power{index}_input"
    if text(power):
        return Rail(chip, label, lambda: number(power) / 1e6)
    volts, amperes = folder / f"in{index}_input", folder / f"curr{index}_input"
    if text(volts) and text(amperes):
        return Rail(chip, label, lambda: number(volts) * number(amperes) / 1e6)
    return None

"""The Raspberry Pi 5's power management chip, read by `vcgencmd pmic_read_adc`.

    3V3_SYS_A current(1)=0.09563650A        one line a rail, its current
    3V3_SYS_V volt(9)=3.31142300V           and its voltage
    EXT5V_V volt(24)=5.15304000V            the supply's voltage: no current, so it counts in no product

The rails leave out what the supply and the USB ports lose. A fit against a meter at the plug gives the whole:
P = 1.1451 * sum(V * I) + 0.5879 W.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from edgekit.energy.files import text
from edgekit.energy.meter import Unreadable
from edgekit.energy.sampled import Sampled

FACTOR, OFFSET_W = 1.1451, 0.5879
COMMAND = ("vcgencmd", "pmic_read_adc")
_LINE = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=([0-9.]+)[AV]\s*$", re.MULTILINE)
_INTERVAL_S = 0.1  # the command itself takes some ten milliseconds of a core


def parse_w(output: str) -> float:
    """Power at the plug from the command's words.

    Raises:
        Unreadable: No rail tells both its current and its voltage.
    """
    seen: dict[str, dict[str, float]] = {}
    for name, what, value in _LINE.findall(output):
        seen.setdefault(name, {})[what] = float(value)
    products = [rail["A"] * rail["V"] for rail in seen.values() if len(rail) == 2]
    if not products:
        raise Unreadable("vcgencmd pmic_read_adc named no rail with a current and a voltage")
    return FACTOR * sum(products) + OFFSET_W


def find(root: Path, run: Callable[[], str] | None = None) -> Sampled | None:
    """The meter on a Raspberry Pi 5 that has the command; else None."""
    model = text(root / "proc/device-tree/model") or ""
    if "Raspberry Pi 5" not in model or (run is None and shutil.which(COMMAND[0]) is None):
        return None
    read = run or _run
    return Sampled(
        lambda: parse_w(read()),
        method="Raspberry Pi 5 PMIC",
        source=f"vcgencmd pmic_read_adc, P = {FACTOR} * sum(V * I) + {OFFSET_W} W",
        covers="whole board at its supply, estimated from its rails",
        interval_s=_INTERVAL_S,
    )


def _run() -> str:
    try:
        return subprocess.run(COMMAND, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise Unreadable(f"{' '.join(COMMAND)} failed: {error}") from error

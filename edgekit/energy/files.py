"""Reading numbers from the small files of sysfs."""

from __future__ import annotations

from pathlib import Path

from edgekit.energy.meter import Unreadable


def text(path: Path) -> str | None:
    """The file's words; None where it is absent or may not be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> float:
    """The number in a file.

    Raises:
        Unreadable: It is absent, may not be read, or holds no number.
    """
    found = text(path)
    try:
        return float(found or "")
    except ValueError:
        raise Unreadable(f"{path} holds no number") from None

"""Devices that are not at hand: their profiles, calibration of this machine, prediction.

edgekit.devices.known()                  -> names of the profiles
edgekit.devices.load("pi4")              -> what is known of a Raspberry Pi 4, each figure with its source
"""

from __future__ import annotations

from edgekit.devices.profile import DeviceProfile
from edgekit.devices.store import known, load

__all__ = ["DeviceProfile", "known", "load"]

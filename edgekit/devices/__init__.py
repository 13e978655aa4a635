"""Devices that are not at hand: their profiles, calibration of this machine, prediction.

    devices.known()                                     -> names of the profiles
    devices.load("pi4")                                 -> what is known of a Pi 4, each figure with its source
    devices.work_of("student.edge", "onnx.int8")        -> what a graph does, traced on this machine
    devices.predict(devices.load("pi4"), work)          -> a measurement document, `predicted`, with intervals
    devices.calibrate()                                 -> the profile of this machine, measured and written

All but the first two are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgekit.devices.profile import DeviceProfile
from edgekit.devices.store import LOCAL, known, load

if TYPE_CHECKING:
    from edgekit.devices.calibration import calibrate
    from edgekit.devices.prediction import check_memory, predict
    from edgekit.devices.work import Work, of_job, work_of

__all__ = [
    "LOCAL",
    "DeviceProfile",
    "Work",
    "calibrate",
    "check_memory",
    "known",
    "load",
    "of_job",
    "predict",
    "work_of",
]

_HOME = {
    "Work": "work",
    "calibrate": "calibration",
    "check_memory": "prediction",
    "of_job": "work",
    "predict": "prediction",
    "work_of": "work",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgekit.devices' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(importlib.import_module(f"edgekit.devices.{_HOME[name]}"), name)

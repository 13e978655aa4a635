"""The demo's graphs on devices that are not at hand: predicted, never measured, and marked so.

bundle ─► traced here once a graph ─► predicted for each device ─► table, verdict, HTML report
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgekit import devices
from edgekit.profiler.dispatch import keep
from edgekit.report.advice import Advice, int8_advice
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.manifest import Quality
from edgekit_runtime.measurement import Measurement

DEVICES = ("pi4", "pi5", "n100", "jetson-orin-nano-cpu")


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """What is predicted for one device.

    Attributes:
        device: Name of its profile.
        title: What it is.
        documents: One a graph that it runs, with `predicted`.
        advice: Whether int8 pays there, one an int8 graph with a floating-point twin.
        refused: What was not predicted, and why.
    """

    device: str
    title: str
    documents: tuple[Measurement, ...]
    advice: tuple[Advice, ...]
    refused: tuple[str, ...]


def predict_elsewhere(bundle: Bundle, names: Sequence[str] = DEVICES) -> tuple[Elsewhere, ...]:
    """Predicts the full graphs of a bundle on some devices, one thread, and keeps the documents beside it.

    Args:
        bundle: Opened, a folder.
        names: Of device profiles.

    Raises:
        EdgekitError: A graph cannot be traced on this machine, or there is no such device.
    """
    traced = devices.work_of(bundle.root)
    found = tuple(_on(devices.load(name), traced, bundle.manifest.quality) for name in names)
    keep(bundle.root, [document for there in found for document in there.documents])
    return found


def _on(profile: devices.DeviceProfile, traced: Sequence[devices.Work], quality: Sequence[Quality]) -> Elsewhere:
    documents, refused = [], []
    for work in traced:
        try:
            documents.append(devices.predict(profile, work))
        except (Refused, UsageError) as error:
            refused.append(f"{work.graph}: {error.message}")
    advice = tuple(int8_advice(documents, quality))
    return Elsewhere(profile.name, profile.title, tuple(documents), advice, tuple(refused))

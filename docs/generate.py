"""Writes the JSON schemas of this folder and of the device profiles from the types: `python docs/generate.py`.

A test compares the committed files with what this generates, so that page and code never part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgekit.devices.profile import DeviceProfile
from edgekit_converters.recipe.types import Recipe
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.measurement import Measurement
from edgekit_runtime.preprocess import Settings

SCHEMAS: dict[str, Any] = {
    "../device_profiles/profile.schema.json": DeviceProfile,
    "manifest.schema.json": Manifest,
    "measurement.schema.json": Measurement,
    "preprocess.schema.json": Settings,
    "recipe.schema.json": Recipe,
}


def schemas() -> dict[str, bytes]:
    """The schema files by name, JSON Schema 2020-12, sorted keys."""
    made = {}
    for name, kind in SCHEMAS.items():
        document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(kind)}
        made[name] = msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2) + b"\n"
    return made


def main() -> None:
    """Writes every schema beside this file."""
    for name, data in schemas().items():
        (Path(__file__).parent / name).write_bytes(data)


if __name__ == "__main__":
    main()

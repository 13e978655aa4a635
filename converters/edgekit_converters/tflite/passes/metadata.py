"""Pass: metadata that says what the file is and nothing about the machine it was made on.

before: description `MLIR Converted.`, metadata of the converter
after:  description `edgekit`, the minimum runtime version recomputed from the operators
"""

from __future__ import annotations

import numpy as np

from edgekit_converters.tflite.flatbuffer import Model, schema
from edgekit_converters.tflite.min_version import minimum_runtime

KEY = b"min_runtime_version"


def stamp(model: Model) -> str:
    """Replaces description and metadata in place.

    Returns:
        The minimum TFLite runtime, for example `2.14`.
    """
    version = minimum_runtime(model)
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(f"{version}.0".encode().ljust(16, b"\0"), np.uint8)
    model.buffers.append(buffer)
    entry = schema().MetadataT()
    entry.name, entry.buffer = KEY, len(model.buffers) - 1
    model.metadata, model.metadataBuffer = [entry], None
    model.description = b"edgekit"
    return version

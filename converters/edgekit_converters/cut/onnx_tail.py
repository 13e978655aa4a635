"""Consecutive segments of an ONNX graph as one file that stands alone, for servers that know nothing of bundles.

whole.onnx ◄── offsets ── seg2.onnx, seg3.onnx          tail.onnx: both joined, weights inside
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from edgekit_runtime.engines import onnx_bytes

# A protobuf message ends at 2 GiB; what is larger keeps its weights in a file beside it.
_LARGEST = 1_900_000_000


def write_tail(pieces: Sequence[Path], outputs: Collection[str], path: Path) -> None:
    """Writes the segments as one file.

    Args:
        pieces: Files of the segments in the order they run, in one folder beside the weights they share.
        outputs: Names of the outputs to keep, of any of them.
        path: Of the file to write; weights beyond 1.9 GB go to `PATH.data` beside it.

    Raises:
        Refused: A file that is no ONNX model.
    """
    import onnx
    from onnx.external_data_helper import load_external_data_for_model

    model = onnx.load_model_from_string(onnx_bytes.join([piece.read_bytes() for piece in pieces], outputs))
    load_external_data_for_model(model, str(pieces[0].parent))
    size = sum(len(row.raw_data) for row in model.graph.initializer)
    onnx.save(model, path, save_as_external_data=size > _LARGEST, location=f"{path.name}.data")

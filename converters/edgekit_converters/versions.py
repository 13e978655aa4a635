"""Versions of everything that took part in a conversion: they are part of the bundle's identity."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = {
    "edgekit": "edgekit",
    "torch": "torch",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxruntime": "onnxruntime",
    "litert": "ai-edge-litert",
    "litert_torch": "litert-torch",
    "ai_edge_quantizer": "ai-edge-quantizer",
    "numpy": "numpy",
}


def tool_versions() -> dict[str, str]:
    """Installed versions by short name; what is not installed is left out."""
    found = {}
    for name, package in _PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            continue
    return found

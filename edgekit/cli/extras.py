"""What pip's extras bring: the package that is missed, what it is for, the one line that gets it."""

from __future__ import annotations

import importlib.util

from edgekit_runtime.errors import Refused

# Importable name -> (what it is for, the extra). Those of one extra together: what `edgekit doctor` lists in a line.
PACKAGES: dict[str, tuple[str, str]] = {
    "torch": ("conversion", "convert"),
    "onnx": ("conversion to ONNX", "convert"),
    "onnx_ir": ("conversion to ONNX", "convert"),
    "onnxscript": ("conversion to ONNX", "convert"),
    "litert_torch": ("conversion to TFLite", "convert"),
    "ai_edge_quantizer": ("conversion to TFLite", "convert"),
    "safetensors": ("reading weights", "convert"),
    "transformers": ("Hugging Face folders", "convert"),
    "scipy": ("certifying exits", "convert"),
    "jinja2": ("reports", "report"),
    "tokenizers": ("text inputs", "tokenizers"),
    "PIL": ("image inputs", "image"),
    "grpc": ("a server", "remote"),
    "prometheus_client": ("serving", "server"),
    "sklearn": ("the demo", "demo"),
}


def missing(*extras: str) -> list[str]:
    """Packages of some extras that are not installed."""
    return [name for name, (_, extra) in PACKAGES.items() if extra in extras and importlib.util.find_spec(name) is None]


def pip_line(package: str) -> str:
    """The line that gets a package of the table."""
    return f"pip install 'edgekit[{PACKAGES[package][1]}]'"


def refusal(error: ModuleNotFoundError) -> Refused | None:
    """A missing package in words; None where it is none of an extra, and so a bug."""
    package = (error.name or "").partition(".")[0]
    if package not in PACKAGES:
        return None
    purpose = PACKAGES[package][0]
    return Refused(f"{package} is not installed: it is needed for {purpose}", remedy=pip_line(package))

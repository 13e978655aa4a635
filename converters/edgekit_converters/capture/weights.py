"""Weights into a module: safetensors, or a state dict read with `weights_only`. No other pickle is ever loaded."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_converters.quiet import quiet
from edgekit_runtime.errors import Refused

if TYPE_CHECKING:
    import torch

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Reads a state dict onto the CPU.

    Understands a `state_dict` key around the tensors and the prefixes of DataParallel and torch.compile.

    Raises:
        Refused: Missing or truncated file, a pickled module, or something that is not a state dict.
    """
    if not path.is_file():
        raise Refused(f"weights {path}: no such file", remedy="check the path given with --weights")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for key in _WRAPPERS:
        if isinstance(state.get(key), Mapping):
            state = dict(state[key])
            break
    tensors = {name: value for name, value in state.items() if hasattr(value, "shape")}
    if not tensors:
        raise Refused(
            f"weights {path} hold no tensors (top-level keys: {', '.join(map(str, list(state)[:6])) or 'none'})",
            remedy="save model.state_dict() with safetensors.torch.save_file",
        )
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name[len(prefix) :]: value for name, value in tensors.items()}
    return tensors


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(str(path), device="cpu"))
    except (SafetensorError, OSError, ValueError) as error:
        raise Refused(
            f"weights {path} are not a readable safetensors file: {error}",
            remedy="the file may be truncated; copy it again",
        ) from error


def _read_pickle(path: Path) -> dict[str, Any]:
    import torch

    try:
        with quiet():
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Refused(
            f"weights {path} hold more than tensors (a pickled module or custom objects); loading it could run code",
            remedy="where you trust it: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise Refused(
            f"weights {path} cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            remedy="the file may be truncated; copy it again",
        ) from error
    if not isinstance(loaded, Mapping):
        raise Refused(
            f"weights {path} hold a {type(loaded).__name__}, not a state dict", remedy="save model.state_dict() instead"
        )
    return dict(loaded)


def apply_weights(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], origin: str) -> None:
    """Loads the tensors into the module; every difference is named.

    BatchNorm's `num_batches_tracked` counters may be absent on either side: they do not take part in inference.

    Raises:
        Refused: Missing, unexpected or wrongly shaped entries (all of them listed).
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in tensors if name not in own and not name.endswith("num_batches_tracked")]
    wrong = [
        f"{name}: weights {tuple(tensors[name].shape)}, module {tuple(own[name].shape)}"
        for name in own
        if name in tensors and own[name].shape != tensors[name].shape
    ]
    if missing or unexpected or wrong:
        parts = [
            f"{label} ({len(names)}): {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
            for label, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", wrong))
            if names
        ]
        raise Refused(
            f"weights {origin} do not fit the module; " + "; ".join(parts),
            remedy="build the module with the sizes it was trained with, or give the weights that belong to it",
        )
    module.load_state_dict({name: value for name, value in tensors.items() if name in own}, strict=False)

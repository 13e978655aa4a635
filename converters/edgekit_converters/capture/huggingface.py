"""A Hugging Face model folder: config.json, safetensors, and the tokenizer that travels into the bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_converters.quiet import quiet
from edgekit_runtime.errors import Refused

if TYPE_CHECKING:
    import torch

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


def load_folder(folder: Path) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """Builds the model of a folder, without network and without remote code.

    A sentence-transformers folder (modules.json with a Pooling module) becomes the encoder with its pooling and, where
    the folder names it, normalization: one output `embedding`. Every other folder keeps the output names of its class.

    Returns:
        The module in eval mode and remarks for the report.

    Raises:
        Refused: config.json or the weights cannot be read, or the architecture is not known to transformers.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise Refused(f"{folder}/config.json is not readable JSON: {error}", remedy="copy the folder again") from error
    pooling = _pooling(folder)
    model = _load_transformer(folder, config, auto=pooling is not None)
    module = _module_class()(model, pooling)
    note = "sentence-transformers pooling inside the graph" if pooling else f"{type(model).__name__}"
    return module.eval(), (note,)


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """Files of the folder's tokenizer, for the bundle's assets."""
    return tuple(folder / name for name in TOKENIZER_FILES if (folder / name).is_file())


def _load_transformer(folder: Path, config: dict[str, Any], *, auto: bool) -> Any:
    with quiet():
        import transformers

    names = config.get("architectures") or []
    loader = transformers.AutoModel
    if not auto and names and hasattr(transformers, names[0]):
        loader = getattr(transformers, names[0])
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        with quiet():
            return loader.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                attn_implementation="eager",
            )
    except Exception as error:
        raise Refused(
            f"{folder} cannot be loaded by transformers {transformers.__version__}: {str(error).splitlines()[0]}",
            remedy="the folder needs config.json and model.safetensors of an architecture that transformers knows",
        ) from error
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()


def _pooling(folder: Path) -> dict[str, bool] | None:
    modules = folder / "modules.json"
    if not modules.is_file():
        return None
    steps = json.loads(modules.read_text(encoding="utf-8"))
    kinds = [str(step.get("type", "")).rpartition(".")[2] for step in steps]
    if "Pooling" not in kinds:
        return None
    unknown = [kind for kind in kinds if kind not in {"Transformer", "Pooling", "Normalize"}]
    if unknown:
        raise Refused(
            f"{folder}/modules.json has modules that cannot be taken over: {', '.join(unknown)}",
            remedy="write the whole model as an nn.Module and convert file.py:name",
        )
    path = folder / steps[kinds.index("Pooling")]["path"] / "config.json"
    if not path.is_file():  # sentence-transformers' own default
        return {"mean": True, "normalize": "Normalize" in kinds}
    config = json.loads(path.read_text(encoding="utf-8"))
    active = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    if active not in (["pooling_mode_mean_tokens"], ["pooling_mode_cls_token"]):
        raise Refused(f"{path} asks for pooling {', '.join(active)}", remedy="mean and CLS pooling are known")
    return {"mean": active == ["pooling_mode_mean_tokens"], "normalize": "Normalize" in kinds}


def _module_class() -> type[torch.nn.Module]:
    """The wrapper is made on first use, as torch is imported only when something is captured."""
    import torch

    class HuggingFace(torch.nn.Module):
        """`ids`, `mask` of a folder by their own names: input_ids [B, T] int64, attention_mask [B, T] int64."""

        def __init__(self, model: torch.nn.Module, pooling: dict[str, bool] | None) -> None:
            super().__init__()
            self.model = model
            self.pooling = pooling

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
            outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
            if self.pooling is None:
                return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}
            hidden = outputs.last_hidden_state
            if self.pooling["mean"]:
                weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
                pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            else:
                pooled = hidden[:, 0]
            if self.pooling["normalize"]:
                pooled = torch.nn.functional.normalize(pooled, p=2, dim=1)
            return {"embedding": pooled}

    return HuggingFace

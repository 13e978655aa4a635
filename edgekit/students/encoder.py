"""The plain Transformer encoder behind the BERT students: embeddings, attention, feed-forward, post-LayerNorm.

After Devlin et al. 2018 (1810.04805) and without the transformers package: every step is a matrix product, a softmax,
a LayerNorm or an erf-GELU, which both exporters take. Modules are named as in Hugging Face's `BertModel`, so that its
weights load as they are (`pooler` left aside).
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

# Added to the scores of padded words. exp(-10000) is exactly 0 in float32, and the number still fits float16.
MASKED = -10_000.0


@dataclasses.dataclass(frozen=True)
class EncoderSize:
    """Shape of an encoder: layers, width, heads, feed-forward width, words and longest text."""

    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int = 30_522
    positions: int = 512


class Embeddings(nn.Module):
    """Word + position + type, then LayerNorm. The type is 0 everywhere: these students read one text."""

    def __init__(self, size: EncoderSize) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(size.vocabulary, size.width, padding_idx=0)
        self.position_embeddings = nn.Embedding(size.positions, size.width)
        self.token_type_embeddings = nn.Embedding(2, size.width)
        self.LayerNorm = nn.LayerNorm(size.width, eps=1e-12)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids [B, T] to [B, T, width]."""
        place = self.position_embeddings.weight[: ids.shape[1]] + self.token_type_embeddings.weight[0]
        return self.LayerNorm(self.word_embeddings(ids) + place)


class SelfAttention(nn.Module):
    """Scaled dot-product attention over all words that are not padding."""

    def __init__(self, size: EncoderSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.query = nn.Linear(size.width, size.width)
        self.key = nn.Linear(size.width, size.width)
        self.value = nn.Linear(size.width, size.width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """X [B, T, width] and bias [B, 1, 1, T] (0 or MASKED) to [B, T, width]."""
        batch, steps, width = x.shape
        depth = width // self.heads

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.reshape(batch, steps, self.heads, depth).transpose(1, 2)

        scores = split(self.query(x)) @ split(self.key(x)).transpose(2, 3) * (1.0 / math.sqrt(depth))
        mixed = torch.softmax(scores + bias, dim=-1) @ split(self.value(x))
        return mixed.transpose(1, 2).reshape(batch, steps, width)


class AddAndNorm(nn.Module):
    """Linear, addition of what came before, LayerNorm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)
        self.LayerNorm = nn.LayerNorm(outputs, eps=1e-12)

    def forward(self, x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """X [..., inputs] and before [..., outputs] to [..., outputs]."""
        return self.LayerNorm(self.dense(x) + before)


class EncoderLayer(nn.Module):
    """Attention and feed-forward with post-LayerNorm. The nesting of the modules is Hugging Face's."""

    def __init__(self, size: EncoderSize) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(size), "output": AddAndNorm(size.width, size.width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(size.width, size.inner)})
        self.output = AddAndNorm(size.inner, size.width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """X [B, T, width] to [B, T, width]."""
        x = self.attention["output"](self.attention["self"](x, bias), x)
        return self.output(nn.functional.gelu(self.intermediate["dense"](x)), x)


class Encoder(nn.Module):
    """Ids and mask to one vector a word."""

    def __init__(self, size: EncoderSize) -> None:
        super().__init__()
        self.embeddings = Embeddings(size)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(EncoderLayer(size) for _ in range(size.layers))})
        self.apply(_initialise)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Ids and mask [B, T] int64 (mask: 1 word, 0 padding) to [B, T, width]."""
        x = self.embeddings(ids)
        bias = (1.0 - mask.to(x.dtype))[:, None, None, :] * MASKED
        for layer in self.encoder["layer"]:
            x = layer(x, bias)
        return x


def _initialise(module: nn.Module) -> None:
    # BERT starts at 0.02. Wider here: an untrained encoder with 0.02 answers almost the same to every text.
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=1.0 / math.sqrt(module.in_features))
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.5)
        if module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()

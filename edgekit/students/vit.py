"""Row 19: a small ViT with adaptive gamma (2209.11304; ViT: Dosovitskiy et al. 2021, 2010.11929; sizes of DeiT-tiny).

image [B, 3, 96, 96] in 0 to 1 -> adaptive gamma -> 16x16 patches, width 192, [CLS], 37 positions -> 6 pre-norm layers
of 3 heads -> LayerNorm -> [CLS] -> Linear -> logits [B, 10].

Adaptive gamma: each picture is raised to the power that brings its own mean brightness to one half,
gamma = log(1/2) / log(mean), and loses what is left of its mean. It depends on the data and spans decades, so it stays
in floating point, before the first quantizer. Simplified: six of twelve layers, 96 instead of 224 pixels (CIFAR-10
enlarged), GELU by erf, no dropout.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from edgekit.students.sampling import Arrays, check_size, images, seeded, spread_answers

# Black has no logarithm; white would need an endless power.
DARKEST, BRIGHTEST = 0.02, 0.98


@dataclasses.dataclass(frozen=True)
class VitSize:
    """Shape of a ViT: layers, width, heads, feed-forward width, side of a picture and of a patch."""

    layers: int
    width: int
    heads: int
    inner: int
    side: int = 96
    patch: int = 16


SIZES = {"full": VitSize(6, 192, 3, 768), "tiny": VitSize(2, 64, 2, 128, patch=32)}


def adaptive_gamma(image: torch.Tensor) -> torch.Tensor:
    """Brings each picture's mean brightness to one half: [B, 3, H, W] in 0 to 1, the same shape and range."""
    mean = image.mean(dim=(1, 2, 3), keepdim=True).clamp(DARKEST, BRIGHTEST)
    gamma = math.log(0.5) / torch.log(mean)
    # x ** gamma; exp and log are what both formats have for a power that is not constant.
    return torch.exp(gamma * torch.log(image.clamp_min(1e-4)))


class Attention(nn.Module):
    """Self-attention of all patches with all; one projection for query, key and value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, width] to the same."""
        batch, patches, width = x.shape
        depth = width // self.heads
        q, k, v = (
            part.reshape(batch, patches, self.heads, depth).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        weights = torch.softmax(q @ k.transpose(2, 3) * (1.0 / math.sqrt(depth)), dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, patches, width))


class Layer(nn.Module):
    """Pre-norm Transformer layer."""

    def __init__(self, size: VitSize) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.attention = Attention(size.width, size.heads)
        self.wide, self.narrow = nn.Linear(size.width, size.inner), nn.Linear(size.inner, size.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, width] to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.narrow(nn.functional.gelu(self.wide(self.norm2(x))))


class Vit(nn.Module):
    """See the module's docstring.

    Args:
        size: Shape of the network.
        classes: Logits.
    """

    def __init__(self, size: VitSize, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, size.width, size.patch, size.patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, size.width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + (size.side // size.patch) ** 2, size.width))
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, classes)
        nn.init.normal_(self.cls, std=0.02)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Image [B, 3, side, side] float32 in 0 to 1 to logits [B, classes]."""
        lit = adaptive_gamma(image)
        x = self.patches(4.0 * (lit - lit.mean(dim=(1, 2, 3), keepdim=True))).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x[:, 0]))


def build(size: str = "full", seed: int = 0) -> Vit:
    """6 layers of width 192 (`tiny`: 2 of width 64, patches of 32 pixels), seeded weights."""
    check_size(size)
    with seeded(seed):
        student = Vit(SIZES[size])
    spread_answers(student, {"output": student.head}, example(32, seed=seed))
    return student.eval()


def example(batch: int = 2, length: int = 0, size: str = "full", seed: int = 0) -> Arrays:
    """Random pictures of any brightness: `image` [batch, 3, 96, 96] float32 in 0 to 1; `length` changes nothing."""
    drawn = torch.from_numpy(images(batch, 3, 96, seed))
    brightness = torch.linspace(-1.5, 1.5, batch)[:, None, None, None] if batch > 1 else (seed % 7 - 3) / 2
    return {"image": torch.sigmoid(drawn + brightness).numpy()}

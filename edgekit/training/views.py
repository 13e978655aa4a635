"""Changes to images that bring back the doubt of a body that knows its training images by heart."""

from __future__ import annotations

import torch
from torch import nn


def moved(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Moves each image [B, C, H, W] by up to an eighth of its side and mirrors every second one."""
    count, _, height, width = image.shape
    down, across = height // 8, width // 8
    padded = nn.functional.pad(image, (across, across, down, down))
    tops = torch.randint(0, 2 * down + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(0, 2 * across + 1, (count,), generator=generator).tolist()
    image = torch.stack([one[:, y : y + height, x : x + width] for one, y, x in zip(padded, tops, lefts, strict=True)])
    mirrored = torch.rand(count, generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], image.flip(3), image)


def zoomed(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Cuts a part of 0.65 to 1.05 of each side, turned by up to 0.15 rad, mirrored or not; changes light and colour."""
    count = len(image)

    def between(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    scale, angle = between(0.65, 1.05), between(-0.15, 0.15)
    place = between(-1.0, 1.0, 2) * (1 - scale).clamp(min=0.05)[:, None]
    mirror = (torch.rand(count, generator=generator) < 0.5).float() * 2 - 1
    across = torch.stack([scale * torch.cos(angle) * mirror, -scale * torch.sin(angle), place[:, 0]], 1)
    down = torch.stack([scale * torch.sin(angle) * mirror, scale * torch.cos(angle), place[:, 1]], 1)
    grid = nn.functional.affine_grid(torch.stack([across, down], 1), list(image.shape), align_corners=False)
    cut = nn.functional.grid_sample(image, grid, align_corners=False, padding_mode="reflection")
    return cut * between(0.75, 1.25, image.shape[1], 1, 1) + between(-0.3, 0.3, 1, 1, 1)


def mixed(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Moved images, each with up to half of another one in it (mixup, Zhang et al. 2017, 1710.09412)."""
    image = moved(image, generator)
    other = image[torch.randperm(len(image), generator=generator)]
    share = 0.5 + 0.5 * torch.rand(len(image), 1, 1, 1, generator=generator)
    return share * image + (1 - share) * other


def patched(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Moved images, each with a rectangle of another one (CutMix, Yun et al. 2019, 1905.04899)."""
    image = moved(image, generator)
    count, _, height, width = image.shape
    other = image[torch.randperm(count, generator=generator)]
    found = image.clone()
    for number in range(count):
        h = int(torch.randint(height // 4, 3 * height // 4, (1,), generator=generator))
        w = int(torch.randint(width // 4, 3 * width // 4, (1,), generator=generator))
        y = int(torch.randint(0, height - h + 1, (1,), generator=generator))
        x = int(torch.randint(0, width - w + 1, (1,), generator=generator))
        found[number, :, y : y + h, x : x + w] = other[number, :, y : y + h, x : x + w]
    return found

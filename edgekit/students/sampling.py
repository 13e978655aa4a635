"""Seeded randomness for building students: weights, examples, and answers that tell samples apart.

Nothing here disturbs the caller's global random state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

from edgekit_runtime.errors import UsageError

Arrays = dict[str, np.ndarray]


def check_size(size: str) -> None:
    """Accepts `tiny` and `full`.

    Raises:
        UsageError: Any other size.
    """
    if size not in ("tiny", "full"):
        raise UsageError(f"a student has no size {size!r}", remedy="ask for 'tiny' (tests) or 'full' (the paper's)")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs a block with torch's CPU generator at `seed` and puts the old state back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def token_ids(batch: int, length: int, vocabulary: int, seed: int = 0) -> np.ndarray:
    """Random sentences, ids [batch, length] int64: at least one word, then padding (0).

    The first sentence fills the whole length; the others end anywhere.
    """
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, vocabulary, size=(batch, length), dtype=np.int64)
    lengths = rng.integers(1, length + 1, size=batch)
    lengths[0] = length
    return np.where(np.arange(length) < lengths[:, None], ids, 0)


def images(batch: int, channels: int, side: int, seed: int = 0) -> np.ndarray:
    """Random smooth pictures, [batch, channels, side, side] float32, each channel about mean 0 and deviation 1.

    Smooth, because white noise averages out in a convolutional network and all samples would answer alike.
    """
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((batch, channels, 4, 4)).astype(np.float32)
    scale = -(-side // 4)
    return np.ascontiguousarray(coarse.repeat(scale, axis=2).repeat(scale, axis=3)[:, :, :side, :side])


def run(module: nn.Module, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Runs a student on named arrays and names its outputs as the contract does.

    Args:
        module: The student; left in the mode it is in.
        inputs: Arrays named as the arguments of `forward`.

    Returns:
        The arrays of the returned dict, or one array called `output`.
    """
    with torch.no_grad():
        answer = module(**{name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()})
    named = answer if isinstance(answer, Mapping) else {"output": answer}
    return {name: tensor.numpy() for name, tensor in named.items()}


@torch.no_grad()
def settle_batch_norm(module: nn.Module, inputs: Mapping[str, np.ndarray]) -> None:
    """Sets every BatchNorm's statistics from one batch, so that an untrained network neither fades nor explodes."""
    norms = [layer for layer in module.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    module.train()
    run(module, inputs)
    module.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def spread_answers(module: nn.Module, heads: Mapping[str, nn.Linear], inputs: Mapping[str, np.ndarray]) -> None:
    """Rescales the last linear layers so that each logit has mean 0 and deviation 1 over the samples of `inputs`.

    Untrained students otherwise answer nearly the same to everything, and agreement between a graph and its int8 form
    would be decided by noise.

    Args:
        module: The student.
        heads: The linear layer behind each output, by the output's name.
        inputs: A batch of varied samples, named as the arguments of `forward`.
    """
    module.eval()
    for name, logits in run(module, inputs).items():
        flat = torch.from_numpy(logits).flatten(0, -2)
        mean, scale = flat.mean(0), 1.0 / flat.std(0).clamp_min(1e-6)
        heads[name].weight.mul_(scale[:, None])
        heads[name].bias.sub_(mean).mul_(scale)

"""EmbeddingBag as a look-up and a product with a matrix of weights, for every mode and form of torch.

    rows      before: embedding_bag(table, ids [B,T])
              after:  embedding(table, ids) [B,T,D],  w [B,1,T] ──► w @ rows ──► [B,D]
    offsets   before: embedding_bag(table, ids [N], offsets [B])
              after:  embedding(table, ids) [N,D],  w [B,N] ──► w @ rows ──► [B,D]

w is 1 (or the id's weight) where an id belongs to the bag and is not `padding_idx`, else 0. `mean` divides by the
number of those, at least 1; `max` takes the largest row where w is 1. An empty bag gives zeros, as in torch.

As it stands, the operator fixes the batch in torch.export, litert-torch has no lowering for it, and the ONNX exporter
writes a Loop over the bags, which keeps the table in floating point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MODES = ("sum", "mean", "max")
# Far below any row of a table, and still a number in float16.
_LOWEST = -60_000.0


def embedding_bag(
    input: torch.Tensor,
    weight: torch.Tensor,
    offsets: torch.Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: torch.Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> torch.Tensor:
    """`torch.nn.functional.embedding_bag` written out; arguments as there."""
    from torch.nn import functional

    if input.dtype.is_floating_point:  # the older order of arguments, which torch still takes
        input, weight = weight, input
    if max_norm is not None:
        return NotImplemented  # it changes the table itself: nothing to deploy
    real = input >= 0 if padding_idx is None else input != padding_idx % weight.shape[0]
    rows = functional.embedding(input, weight)
    if input.dim() == 2:
        return _bags(rows, real, per_sample_weights, mode)
    assert offsets is not None
    inside = _inside(input, offsets, include_last_offset) & real[None]
    return _bags(rows, inside, per_sample_weights, mode)


def decomposed(
    weight: torch.Tensor,
    indices: torch.Tensor,
    offsets: torch.Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: torch.Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[torch.Tensor, ...]:
    """The operator of a saved program: the bags, then three tensors that only a backward pass would read."""
    answer = embedding_bag(
        indices,
        weight,
        offsets,
        mode=_MODES[mode],
        per_sample_weights=per_sample_weights,
        include_last_offset=include_last_offset,
        padding_idx=None if padding_idx is None or padding_idx < 0 else padding_idx,
    )
    nothing = indices.new_zeros(0)
    return answer, nothing, nothing, nothing


def _inside(ids: torch.Tensor, offsets: torch.Tensor, include_last_offset: bool) -> torch.Tensor:
    """[B,N]: whether place n of the ids lies in bag b."""
    import torch

    place = torch.arange(ids.shape[0])
    starts = offsets[:-1] if include_last_offset else offsets
    # The bag of a place is the last one that begins at or before it.
    bag = (starts[:, None] <= place).sum(0) - 1
    inside = torch.arange(starts.shape[0])[:, None] == bag
    return inside & (place < offsets[-1]) if include_last_offset else inside


def _bags(rows: torch.Tensor, inside: torch.Tensor, weights: torch.Tensor | None, mode: str) -> torch.Tensor:
    """Rows ([B,T,D], or [T,D] for all bags) and whether each counts [B,T] to one vector a bag [B,D]."""
    import torch

    if mode == "max":
        found = torch.where(inside[:, :, None], rows, torch.full((), _LOWEST, dtype=rows.dtype)).amax(1)
        return found * inside.any(1, keepdim=True)
    share = inside.to(rows.dtype)
    weighted = share if weights is None else share * weights
    total = weighted @ rows if rows.dim() == 2 else (weighted[:, None] @ rows)[:, 0]
    return total / share.sum(1, keepdim=True).clamp_min(1.0) if mode == "mean" else total

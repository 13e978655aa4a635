"""EmbeddingBag in every form and mode of torch, written out, against torch itself at sizes the example did not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit_converters.capture.axes import DynamicAxis
from edgekit_converters.capture.rewrite import rewriting
from edgekit_converters.capture.torch_student import capture_module, capture_pt2

WORDS = 30
# Float32 sums of a few rows in another order.
TOLERANCE = 1e-6


class Rows(nn.Module):
    """Bags that are the rows of a matrix of ids."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(WORDS, 8, **how)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.bag(ids)


class WeightedRows(Rows):
    """The same with a weight for each id."""

    def forward(self, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self.bag(ids, per_sample_weights=weights)


class Ragged(Rows):
    """Bags that begin at offsets in one row of ids."""

    def forward(self, ids: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self.bag(ids, offsets)


class WeightedRagged(Rows):
    """The same with a weight for each id."""

    def forward(self, ids: torch.Tensor, offsets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self.bag(ids, offsets, weights)


def ids_of(*shape: int, seed: int = 0) -> np.ndarray:
    """Ids of which a third are padding; the first bag is empty where padding counts for nothing."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, WORDS, shape) * (rng.random(shape) > 0.3)
    if len(shape) == 2:
        ids[0] = 0
    return ids


def axes(*named: tuple[str, int, str, int, int]) -> list[DynamicAxis]:
    return [DynamicAxis(*entry) for entry in named]


def operators(captured: Any) -> set[str]:
    return {str(node.target) for node in captured.program.graph.nodes}


@pytest.mark.parametrize("padding", [0, None, 5])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_rows_of_ids_are_bags(mode: str, padding: int | None) -> None:
    torch.manual_seed(0)
    module = Rows(mode=mode, padding_idx=padding).eval()
    dynamic = axes(("ids", 0, "B", 1, 9), ("ids", 1, "T", 1, 20))
    captured = capture_module(module, name="bags", example={"ids": ids_of(3, 7)}, dynamic=dynamic)
    assert not any("embedding_bag" in name for name in operators(captured))
    program = captured.program.module()
    for size in ((1, 1), (2, 20), (9, 5)):
        ids = torch.from_numpy(ids_of(*size, seed=size[1]))
        torch.testing.assert_close(program(ids=ids), module(ids), rtol=0, atol=TOLERANCE)
    if mode != "max":  # the example holds id 0 in every row: one more of it is no news to a maximum
        assert captured.axis("T").role == ("length" if padding == 0 else "other")


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_offsets_into_one_row_of_ids_are_bags(mode: str, last: bool) -> None:
    torch.manual_seed(1)
    module = Ragged(mode=mode, padding_idx=0, include_last_offset=last).eval()
    offsets = torch.tensor([0, 3, 3, 8, 12][: 5 if last else 4])
    example = {"ids": torch.from_numpy(ids_of(12)), "offsets": offsets}
    shapes = {
        "ids": {0: torch.export.Dim("N", max=40)},
        "offsets": {0: torch.export.Dim("B", min=3 if last else 2, max=9)},
    }
    with rewriting():
        exported = torch.export.export(module, (), example, dynamic_shapes=shapes, strict=False)
    program = exported.module()
    for size, starts in ((12, [0, 5, 12]), (40, [0, 1, 1, 30, 35, 40]), (3, [0, 0, 3])):
        given = {"ids": torch.from_numpy(ids_of(size, seed=size)), "offsets": torch.tensor(starts)}
        torch.testing.assert_close(program(**given), module(**given), rtol=0, atol=TOLERANCE)


def test_weights_of_ids_count_in_both_forms() -> None:
    torch.manual_seed(2)
    rng = np.random.default_rng(0)
    rows, ragged = (kind(mode="sum", padding_idx=0).eval() for kind in (WeightedRows, WeightedRagged))
    flat = {"ids": ids_of(12), "offsets": np.array([0, 4, 9]), "weights": rng.random(12, np.float32)}
    square = {"ids": ids_of(3, 7), "weights": rng.random((3, 7), np.float32)}
    for module, example in ((rows, square), (ragged, flat)):
        captured = capture_module(module, name="bags", example=example)
        assert not any("embedding_bag" in name for name in operators(captured))
        given = {name: torch.from_numpy(array) for name, array in example.items()}
        got = captured.program.module()(**given).detach()
        np.testing.assert_allclose(got, captured.reference(example)["output"], rtol=0, atol=TOLERANCE)


def test_a_saved_program_is_rewritten_and_proven_too(tmp_path: Any) -> None:
    torch.manual_seed(3)
    example = {"ids": torch.from_numpy(ids_of(3, 7))}
    shapes = {"ids": {0: torch.export.Dim("B", min=2, max=9), 1: torch.export.Dim("T", max=20)}}
    program = torch.export.export(Rows(mode="mean", padding_idx=0), (), example, dynamic_shapes=shapes)
    torch.export.save(program, str(tmp_path / "bags.pt2"))
    captured = capture_pt2(tmp_path / "bags.pt2", name="bags", example=None)
    assert not any("embedding_bag" in name for name in operators(captured))
    # torch itself saves such a program for two bags and more; empty bags at the end change nothing.
    assert [(axis.role, axis.min) for axis in captured.axes] == [("length", 2), ("length", 1)]

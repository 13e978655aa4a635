"""TFLite operators as units: loops over time and slices count as one, whatever the rung."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
import edgekit_runtime as er
from edgekit_converters.cut import tflite_units
from edgekit_converters.cut.tflite_units import units
from edgekit_runtime.chain import Chain, split_points
from edgekit_runtime.errors import Refused

Listed = list[tuple[str, Any]]


def operator(inputs: list[int], outputs: list[int], body: int | None = None) -> Any:
    options = SimpleNamespace(thenSubgraphIndex=body, elseSubgraphIndex=body)
    return SimpleNamespace(inputs=inputs, outputs=outputs, builtinOptions=options)


def loop(words: int) -> tuple[Listed, Any]:
    """0 -> FULLY_CONNECTED -> 1 -> a loop of so many steps from state 2 -> 3 -> RESHAPE -> 4."""
    rows, states = range(100, 100 + words), [2, *range(500, 500 + words)]
    steps = [("IF", operator([9, states[t], rows[t]], [states[t + 1]], body=1)) for t in range(words)]
    listed = [
        ("FULLY_CONNECTED", operator([0, 8], [1])),
        ("UNPACK", operator([1], list(rows))),
        *steps,
        ("PACK", operator(states[1:], [3])),
        ("RESHAPE", operator([3], [4])),
    ]
    return listed, SimpleNamespace(outputs=[4])


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch):
    """Units of operators that are in no file."""

    def look(listed: Listed, outputs: list[int]) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        monkeypatch.setattr(tflite_units, "operators", lambda model, subgraph: iter(listed))
        return [(u.kind, u.inputs, u.outputs) for u in units(None, SimpleNamespace(outputs=outputs))]

    return look


@pytest.mark.parametrize("words", [3, 16])
def test_a_loop_is_one_unit_whatever_its_length(seen, words: int) -> None:
    listed, subgraph = loop(words)
    assert seen(listed, subgraph.outputs) == [
        ("FULLY_CONNECTED", (0, 8), (1,)),
        ("LOOP", (1, 9, 2), (3,)),
        ("RESHAPE", (3,), (4,)),
    ]


def test_the_last_state_of_a_loop_is_an_output_where_it_is_read_behind(seen) -> None:
    listed, _ = loop(3)
    listed.append(("SPLIT", operator([502], [5, 6])))
    assert ("LOOP", (1, 9, 2), (502, 3)) in seen(listed, [4, 5])


def test_loops_of_one_body_that_hand_each_other_no_state_stay_apart(seen) -> None:
    listed, _ = loop(3)
    again = [
        ("UNPACK", operator([4], [200, 201])),
        ("IF", operator([9, 2, 200], [600], body=1)),
        ("IF", operator([9, 600, 201], [601], body=1)),
        ("PACK", operator([600, 601], [7])),
    ]
    assert [kind for kind, *_ in seen([*listed, *again], [7])].count("LOOP") == 2


def test_the_order_in_the_file_does_not_count(seen) -> None:
    listed = [
        ("TANH", operator([0], [1])),
        ("LOGISTIC", operator([0], [2])),
        ("MUL", operator([1, 2], [3])),
    ]
    assert seen(listed, [3]) == seen([listed[1], listed[0], listed[2]], [3])


def test_both_forms_of_a_strided_slice_are_one_kind_of_unit(seen) -> None:
    short = [("STRIDED_SLICE", operator([0, 9], [4]))]
    long = [
        ("RESHAPE", operator([0, 7], [1])),
        ("SLICE", operator([1, 8], [2])),
        ("RESHAPE", operator([2, 9], [4])),
    ]
    assert [kind for kind, *_ in seen(short, [4])] == [kind for kind, *_ in seen(long, [4])] == ["STRIDED_SLICE"]
    assert len(seen([*long, ("TANH", operator([1], [5]))], [4, 5])) == 4  # what crosses inside is read elsewhere


def test_a_loop_around_something_else_is_refused(seen) -> None:
    listed = [
        ("IF", operator([9, 2, 0], [10], body=1)),
        ("TANH", operator([10], [11])),
        ("IF", operator([9, 10, 11], [12], body=1)),
    ]
    with pytest.raises(Refused, match="loop"):
        seen(listed, [12])


class Recurrent(nn.Module):
    """ids [B, T] -> 3 scores a word by way of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 12, padding_idx=0)
        self.layer = nn.LSTM(12, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.table(ids))[0])


def test_an_lstm_with_a_ladder_is_cut_before_and_behind_its_loop(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bundle = edgekit.convert(
        Recurrent().eval(),
        out=tmp_path / "lstm.edge",
        calibration={"ids": np.random.default_rng(0).integers(1, 50, (8, 12))},
        dynamic=("ids:1=T:1-32",),
        formats=("tflite",),
        precision="fp32",
    )
    graph = bundle.graph("tflite.fp32")
    assert len(graph.signatures) >= 2
    points = split_points(bundle.manifest, graph.id)
    assert len(points) >= 2
    assert bundle.graph(points[-1].after[-1]).macs < graph.macs / 10  # the head alone
    for length in (5, 32):
        ids = {"ids": np.random.default_rng(length).integers(1, 50, (1, length))}
        with er.open(bundle.root, graph=graph.id, threads=1) as whole:
            wanted = whole.run(ids)["output"]
        for point in points:
            with Chain(bundle, graph.id, stop=point.id) as head, Chain(bundle, graph.id, start=point.id) as tail:
                assert tail.run(head.run(ids))["output"].tobytes() == wanted.tobytes()

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.macs import macs, read_bytes

size = st.integers(1, 6)


@given(n=size, channels=size, outs=size, groups=st.integers(1, 3), kernel=size, length=st.integers(6, 12))
def test_a_grouped_1d_convolution_counts_as_its_loops(
    n: int, channels: int, outs: int, groups: int, kernel: int, length: int
) -> None:
    c, m = channels * groups, outs * groups
    steps = length - kernel + 1
    loops = n * steps * m * kernel * (c // groups)
    assert macs("Conv", [(n, c, length), (m, c // groups, kernel)], [(n, m, steps)]) == loops
    integer = [(n, c, length), (), (), (m, c // groups, kernel), (), (), (), ()]
    assert macs("QLinearConv", integer, [(n, m, steps)]) == loops


@given(batch=st.lists(size, max_size=2), m=size, k=size, n=size)
def test_a_batched_product_counts_as_its_loops(batch: list[int], m: int, k: int, n: int) -> None:
    a, b, out = (*batch, m, k), (*batch, k, n), (*batch, m, n)
    expected = int(np.prod(batch, dtype=int)) * m * k * n
    assert macs("MatMul", [a, b], [out]) == expected
    assert macs("QLinearMatMul", [a, (), (), b], [out]) == expected
    assert macs("MatMulIntegerToFloat", [a], [out]) == expected
    assert macs("BATCH_MATMUL", [a, b], [out]) == expected


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs", "count"),
    [
        ("Conv", [(1, 3, 32, 32), (16, 3, 3, 3)], [(1, 16, 32, 32)], 32 * 32 * 16 * 27),
        ("FusedConv", [(1, 8, 4, 4), (8, 1, 3, 3)], [(1, 8, 4, 4)], 16 * 8 * 9),
        ("ConvTranspose", [(1, 8, 4, 4), (8, 3, 2, 2)], [(1, 3, 8, 8)], 8 * 16 * 3 * 4),
        ("Gemm", [(7, 5), (5, 3)], [(7, 3)], 7 * 5 * 3),
        ("Gemm", [(5, 7)], [(7, 3)], 7 * 5 * 3),  # transA, weights packed out of sight
        ("QGemm", [(7, 5), (), (), (5, 3), (), ()], [(7, 3)], 105),
        ("MatMul", [(7, 5), (5,)], [(7,)], 35),
        ("LSTM", [(5, 2, 4), (2, 24, 4), (2, 24, 6)], [(5, 2, 2, 6)], 10 * 2 * (96 + 144)),
        ("GRU", [(5, 2, 4), (1, 18, 4), (1, 18, 6)], [(5, 1, 2, 6)], 10 * (72 + 108)),
        ("DynamicQuantizeLSTM", [(5, 2, 4), (1, 4, 24), (1, 6, 24)], [(5, 1, 2, 6)], 10 * (96 + 144)),
        ("CONV_2D", [(1, 32, 32, 3), (16, 3, 3, 3), (16,)], [(1, 32, 32, 16)], 32 * 32 * 16 * 27),
        ("DEPTHWISE_CONV_2D", [(1, 25, 5, 64), (1, 3, 3, 64)], [(1, 25, 5, 64)], 25 * 5 * 64 * 9),
        ("TRANSPOSE_CONV", [(4,), (3, 2, 2, 8), (1, 4, 4, 8)], [(1, 8, 8, 3)], 16 * 8 * 3 * 4),
        ("FULLY_CONNECTED", [(1, 4, 8), (3, 8), (3,)], [(1, 4, 3)], 4 * 8 * 3),
        ("Attention", [(2, 5, 8), (8, 24), (24,)], [(2, 5, 8)], 2 * 5 * 8 * 24 + 2 * 2 * 5 * 5 * 8),
        ("MultiHeadAttention", [(2, 5, 8), (2, 7, 8), (2, 7, 6)], [(2, 5, 6)], 2 * 5 * 7 * 14),
        ("Relu", [(1, 8)], [(1, 8)], 0),
        ("Einsum", [(1, 8)], [(1, 8)], None),
        ("Conv", [(1, 3, 8)], [(1, 4, 8)], None),  # the engine did not report the weights
        ("LSTM", [(5, 2, 4)], [(5, 1, 2, 6)], None),
    ],
)
def test_macs_of_one_operator(
    kind: str, inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]], count: int | None
) -> None:
    assert macs(kind, inputs, outputs) == count


def test_a_fused_lstm_counts_every_weight_matrix() -> None:
    gates = [(20, 28)] * 4 + [(20, 20)] * 4
    assert macs("UNIDIRECTIONAL_SEQUENCE_LSTM", [(1, 28, 28), *gates, (), (), ()], [(1, 28, 20)]) == 28 * 4 * 20 * 48


@given(rows=st.integers(1, 2000), width=st.integers(1, 64), taken=st.integers(1, 50), item=st.sampled_from([1, 4]))
def test_of_a_table_only_the_rows_taken_are_read_and_never_more_than_all(
    rows: int, width: int, taken: int, item: int
) -> None:
    table, ids, out = (rows, width), (1, taken), (1, taken, width)
    read = read_bytes("Gather", [rows * width * item, 8 * taken], [table, ids], [out])
    assert read == min(taken, rows) * width * item + 8 * taken
    assert read <= rows * width * item + 8 * taken


def test_scales_of_a_quantized_table_are_read_with_its_rows() -> None:
    sizes = [1000 * 16, 4 * 8, 1000 * 4]
    read = read_bytes("GatherBlockQuantized", sizes, [(1000, 16), (4,), (1000, 1)], [(4, 16)])
    assert read == 4 * 16 + 4 * 8 + 4 * 4


def test_the_table_of_an_embedding_lookup_is_its_second_input() -> None:
    assert read_bytes("EMBEDDING_LOOKUP", [16, 4000], [(4,), (1000, 1)], [(4, 1)]) == 16 + 16


def test_other_operators_read_all_of_their_inputs() -> None:
    assert read_bytes("MatMul", [40, 400], [(1, 10), (10, 10)], [(1, 10)]) == 440
    assert read_bytes("Gather", [], [], []) == 0

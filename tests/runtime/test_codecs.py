"""Codecs give back what they were given, and refuse what they were not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekit_runtime import codecs
from edgekit_runtime.codecs import Measured
from edgekit_runtime.errors import Refused, UsageError

DTYPES = st.sampled_from(("int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64", "bool"))
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=20)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(codecs.LOSSLESS), DTYPES.flatmap(lambda d: SHAPES.flatmap(lambda s: arrays.arrays(d, s))))
def test_a_lossless_codec_gives_back_every_bit(codec, array) -> None:
    pytest.importorskip("lz4")
    back = codecs.decode(codec, codecs.encode(codec, array), array.dtype.name, array.shape)
    assert back.shape == array.shape and back.dtype == array.dtype
    assert back.tobytes() == np.ascontiguousarray(array).tobytes()


FLOATS = st.sampled_from((np.float16, np.float32, np.float64))


@settings(max_examples=200, deadline=None)
@given(
    FLOATS.flatmap(
        lambda d: SHAPES.flatmap(lambda s: arrays.arrays(d, s, elements={"allow_nan": False, "allow_infinity": False}))
    )
)
def test_int8_rows_come_back_within_half_a_scale(array) -> None:
    back = codecs.decode("int8-row", codecs.encode("int8-row", array), array.dtype.name, array.shape)
    assert back.shape == array.shape and back.dtype == array.dtype
    if not array.size:
        return
    long = codecs.row_elements(array.shape) if array.ndim > 1 else array.size
    rows, got = (a.reshape(-1, long).astype(np.longdouble) for a in (array, back))
    largest = np.abs(rows).max(axis=1, keepdims=True)
    # Half a scale; beside it the rounding of scale and product (4 units in the last place of the largest value), and
    # numbers so small that their scale is subnormal.
    tiny = np.finfo(np.promote_types(array.dtype, np.float32)).tiny
    slack = 4 * np.finfo(array.dtype).eps * largest + 127 * np.longdouble(
        max(tiny, np.finfo(array.dtype).smallest_subnormal)
    )
    assert (np.abs(rows - got) <= largest / 254 + slack).all()


def test_int8_rows_are_a_quarter_of_float_and_lossy() -> None:
    wide = np.random.default_rng(0).normal(size=(2, 16, 384)).astype(np.float32)
    assert len(codecs.encode("int8-row", wide)) == 2 * 16 * (384 + 4)
    assert "int8-row" in codecs.available(lossless=False) and "int8-row" not in codecs.available()


@pytest.mark.parametrize("shape", [(3, 5, 64), (3, 8, 6, 6), (3, 64, 1, 1), (3, 10)])
def test_int8_rows_of_a_sample_do_not_depend_on_its_neighbours(shape) -> None:
    louder = np.arange(1, 4).reshape(-1, *[1] * (len(shape) - 1)) ** 4
    batch = (np.random.default_rng(0).normal(size=shape) * louder).astype(np.float32)

    def through(array: np.ndarray) -> np.ndarray:
        return codecs.decode("int8-row", codecs.encode("int8-row", array), "float32", array.shape)

    assert through(batch)[:1].tobytes() == through(batch[:1]).tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_int8_rows_refuse_what_has_no_scale(value) -> None:
    with pytest.raises(Refused, match="NaN"):
        codecs.encode("int8-row", np.array([1.0, value], np.float32))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(codecs.known()), st.binary(max_size=200))
def test_bytes_of_somebody_else_are_refused_and_never_crash(codec, data) -> None:
    pytest.importorskip("lz4")
    try:
        found = codecs.decode(codec, data, "int8", (4, 8))
    except Refused:
        return
    assert found.shape == (4, 8)


def test_a_bit_shuffle_finds_the_likeness_of_neighbours() -> None:
    pytest.importorskip("lz4")
    rng = np.random.default_rng(0)
    smooth = rng.normal(0, 6, (16, 1024)).astype(np.int8)
    plain, shuffled = (codecs.measure(name, [smooth]).bytes for name in ("lz4", "bitshuffle-lz4"))
    assert shuffled < 0.8 * plain


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_an_image_comes_back_nearly_as_it_was(codec) -> None:
    pytest.importorskip("PIL")
    y, x = np.mgrid[0:64, 0:96]
    image = np.stack([x * 2, y * 3, x + y], axis=-1).astype(np.uint8)[None]
    data = codecs.encode(codec, image)
    assert len(data) < image.nbytes / 5
    back = codecs.decode(codec, data, "uint8", image.shape)
    # Quality 85 to 90 on a smooth picture: a mean error of two levels of 255.
    assert np.abs(back.astype(int) - image.astype(int)).mean() < 2
    with pytest.raises(Refused, match="64 x 96 x 3"):
        codecs.decode(codec, data, "uint8", (1, 64, 96, 1))
    with pytest.raises(UsageError, match="uint8 image"):
        codecs.encode(codec, image.astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "shape"), [("int8", (1 << 40,)), ("int8", (-1, -4)), ("object", (4,)), ("no", (4,)), ("U5", (4,))]
)
def test_hostile_shapes_and_dtypes_are_refused_before_anything_is_made(dtype, shape) -> None:
    with pytest.raises(Refused):
        codecs.decode("none", b"1234", dtype, shape)


def test_a_frame_that_claims_another_size_is_refused() -> None:
    pytest.importorskip("zstandard")
    with pytest.raises(Refused):
        codecs.decode("zstd", codecs.encode("zstd", np.zeros(1 << 20, np.int8)), "int8", (16,))


def test_an_unknown_codec_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="bitshuffle-zstd"):
        codecs.encode("gzip", np.zeros(3))


def test_the_best_codec_depends_on_the_link() -> None:
    found = (Measured("none", 100_000, 0.0, 0.0), Measured("zstd", 40_000, 2.0, 1.0))
    assert codecs.best(found, uplink_mbps=5).codec == "zstd"
    assert codecs.best(found, uplink_mbps=1000).codec == "none"
    assert codecs.best(found, uplink_mbps=100, slowdown=10).codec == "none"


@settings(max_examples=80, deadline=None)
@given(FLOATS, st.binary(min_size=1, max_size=60))
def test_int8_rows_of_somebody_else_are_refused_or_of_the_shape_asked_for(dtype, data) -> None:
    name = np.dtype(dtype).name
    try:
        assert codecs.decode("int8-row", data, name, (2, 20)).shape == (2, 20)
    except Refused as error:
        assert "int8-row" in error.message

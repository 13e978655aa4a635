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
        codecs.encode(codec, image.astype(np.int32))


@pytest.mark.parametrize("codec", ["jpeg", "webp@85"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("first", [True, False])
def test_float_pictures_of_a_batch_come_back_in_their_own_range(codec, channels, first) -> None:
    pytest.importorskip("PIL")
    y, x = np.mgrid[0:48, 0:64] / 64.0
    one = np.stack([np.sin(3 * x), y - 0.5, x * y][:channels], axis=-1).astype(np.float32)
    batch = np.stack([one * 2.5, one - 7])
    batch = batch.transpose(0, 3, 1, 2).copy() if first else batch
    data = codecs.encode(codec, batch)
    assert len(data) < batch.nbytes / 10
    back = codecs.decode(codec, data, "float32", batch.shape)
    # A smooth picture: the mean error stays below 1 % of the range that each picture has.
    assert np.abs(back - batch).mean((1, 2, 3)).max() < 0.01 * (batch[0].max() - batch[0].min())
    assert codecs.takes(codec, batch) and not codecs.takes(codec, batch[:, :, :8, :8])
    for damaged in (data[:-3], data + b"x", data[:5], b""):
        with pytest.raises(Refused):
            codecs.decode(codec, damaged, "float32", batch.shape)
    with pytest.raises(Refused):
        codecs.decode(codec, data, "float32", (2, 64, 64, 3))
    with pytest.raises(Refused, match="NaN"):
        codecs.encode(codec, batch * np.float32("nan"))


def test_a_quality_makes_smaller_files_and_a_wrong_one_is_refused() -> None:
    pytest.importorskip("PIL")
    noisy = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    sizes = [len(codecs.encode(f"jpeg@{quality}", noisy)) for quality in (20, 60, 95)]
    assert sizes == sorted(set(sizes))
    assert codecs.encode("jpeg", noisy) == codecs.encode(f"jpeg@{codecs.JPEG_QUALITY}", noisy)
    for wrong in ("jpeg@0", "jpeg@101", "jpeg@", "jpeg@x", "zstd@3", "jpeg@9999999"):
        with pytest.raises(UsageError):
            codecs.encode(wrong, noisy)
    assert codecs.missing("none") == ""


def test_without_pillow_a_picture_codec_names_its_pip_line(monkeypatch) -> None:
    monkeypatch.setattr(codecs, "_installed", lambda name: name not in codecs.PICTURES)
    assert "edgekit[image]" in codecs.missing("webp@50")
    with pytest.raises(Refused, match="PIL"):
        codecs.encode("jpeg@75", np.zeros((1, 3, 32, 32), np.float32))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_pictures_of_somebody_else_are_refused_or_of_the_shape_asked_for(data) -> None:
    pytest.importorskip("PIL")
    for dtype in ("float32", "uint8"):
        try:
            assert codecs.decode("jpeg", data, dtype, (2, 3, 16, 16)).shape == (2, 3, 16, 16)
        except Refused as error:
            assert "jpeg" in error.message


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

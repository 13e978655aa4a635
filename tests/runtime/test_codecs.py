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

import numpy as np
import pytest

from edgekit_converters.verify.parity import parity
from edgekit_runtime.errors import Refused

WANT = [{"y": np.asarray([[0.0, 1.0, 4.0]], np.float32)}, {"y": np.asarray([[2.0, 1.0, 0.0]], np.float32)}]


def test_identical_outputs_have_no_noise():
    (seen,) = parity("g", WANT, WANT)
    assert (seen.max_error_fraction, seen.sqnr_db, seen.same_label_fraction) == (0, None, 1)


def test_an_error_is_told_as_a_fraction_of_the_range():
    got = [{"y": WANT[0]["y"] + np.float32(0.4)}, WANT[1]]
    (seen,) = parity("g", WANT, got)
    assert seen.max_error_fraction == pytest.approx(0.1)
    assert seen.sqnr_db == pytest.approx(10 * np.log10(22 / (3 * 0.16)), abs=1e-3)


@pytest.mark.parametrize(
    ("got", "words"),
    [({"z": WANT[0]["y"]}, "no output"), ({"y": np.zeros((2, 3))}, "shape"), ({"y": np.full((1, 3), np.nan)}, "NaN")],
)
def test_missing_misshapen_and_nan_outputs_are_refused(got, words):
    with pytest.raises(Refused, match=words):
        parity("g", WANT[:1], [got])

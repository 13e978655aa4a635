import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_converters.tflite.smooth import product_error


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), outlier=st.floats(20, 200))
def test_evening_out_an_outlier_column_makes_a_product_more_exact(seed: int, outlier: float) -> None:
    rng = np.random.default_rng(seed)
    rows, matrix = rng.standard_normal((64, 96)), rng.standard_normal((32, 96))
    rows[:, 5] *= outlier
    matrix[:, 5] /= outlier
    factor = np.sqrt(np.abs(rows).max(0) / np.abs(matrix).max(0))
    np.testing.assert_allclose((rows / factor) @ (matrix * factor).T, rows @ matrix.T, atol=1e-8)
    assert product_error(rows / factor, matrix * factor) < product_error(rows, matrix)


def test_a_product_of_small_integers_is_exact() -> None:
    rows, matrix = np.array([[0.0, 255.0]]), np.array([[127.0, 0.0], [0.0, 127.0]])
    assert product_error(rows, matrix) < 1e-12

"""Packed products against integers and dense float64, over shapes that no word, table or block divides."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn.bits import BitMatrix

EDGES = [0, 1, 7, 8, 9, 31, 32, 33, 64, 65, 100, 129, 150]
SHAPES = (
    st.integers(0, 10**6),
    st.sampled_from([*EDGES, 300]),
    st.sampled_from(EDGES),
    st.sampled_from([0, 0.2, 0.5, 1]),
)
ROUND_OFF = {np.float32: 1e-6, np.float64: 1e-14}


def _draw(seed: int, n: int, p: int, density: float) -> np.ndarray:
    return np.random.default_rng(seed).random((n, p)) < density


@given(*SHAPES)
@settings(deadline=None, max_examples=80)
def test_gram_equals_integers(seed: int, n: int, p: int, density: float) -> None:
    d = _draw(seed, n, p, density)
    whole = d.astype(np.int64)
    assert np.array_equal(BitMatrix.from_dense(d).gram(), whole.T @ whole)


@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(0, 70), st.booleans()), max_size=6))
@settings(deadline=None, max_examples=40)
def test_gram_adds_and_subtracts_row_blocks(seed: int, blocks: list[tuple[int, bool]]) -> None:
    gram, expected = np.zeros((40, 40), np.int32), np.zeros((40, 40), np.int64)
    for at, (n, add) in enumerate(blocks):
        d = _draw(seed + at, n, 40, 0.4).astype(np.int64)
        sign = 1 if add else -1
        BitMatrix.from_dense(d).accumulate_gram(gram, sign)
        expected += sign * d.T @ d
        assert np.array_equal(gram, expected)


@pytest.mark.parametrize(("n", "p"), [(9001, 3), (500, 1200)])  # past two blocks of rows, past a block of columns
def test_gram_beyond_its_blocks(n: int, p: int) -> None:
    d = _draw(0, n, p, 0.7)
    d[:, 0] = True
    exact = d.astype(np.float64)
    gram = BitMatrix.from_dense(d).gram()
    assert np.array_equal(gram, exact.T @ exact)
    assert gram[0, 0] == n


@given(*SHAPES, st.sampled_from([1, 2, 4, 5, 9, 10, 16, 17, 33]), st.sampled_from([np.float32, np.float64]))
@settings(deadline=None, max_examples=150)
def test_products_are_dense_ones_to_round_off(
    seed: int, n: int, p: int, density: float, outputs: int, precision: type
) -> None:
    d = _draw(seed, n, p, density).astype(np.float64)
    packed, rng = BitMatrix.from_dense(d), np.random.default_rng(seed)
    w, r = (rng.standard_normal((length, outputs)).astype(precision) for length in (p, n))
    sparse = w * (rng.random((p, 1)) < 0.2)
    for product, exact, magnitude in (
        (packed.times(w), d @ w, d @ np.abs(w)),
        (packed.times(sparse), d @ sparse, d @ np.abs(sparse)),
        (packed.transpose_times(r), d.T @ r, d.T @ np.abs(r)),
    ):
        assert product.dtype == precision
        assert product.shape == exact.shape
        assert (np.abs(product - exact) <= ROUND_OFF[precision] * magnitude).all()
    whole = rng.integers(-1000, 1000, (n, outputs)).astype(precision)
    assert np.array_equal(packed.transpose_times(whole), d.T @ whole)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_products_of_more_rows_than_a_block(outputs: int, precision: type) -> None:
    d = _draw(1, 9000, 40, 0.3).astype(np.float64)
    packed, rng = BitMatrix.from_dense(d), np.random.default_rng(1)
    w, r = (rng.standard_normal((length, outputs)).astype(precision) for length in (40, 9000))
    tolerance = ROUND_OFF[precision]
    assert (np.abs(packed.times(w) - d @ w) <= tolerance * (d @ np.abs(w))).all()
    assert (np.abs(packed.transpose_times(r) - d.T @ r) <= tolerance * (d.T @ np.abs(r))).all()


@given(*SHAPES, st.sampled_from([np.float32, np.float64]))
@settings(deadline=None, max_examples=80)
def test_weighted_gram_is_the_dense_one_to_round_off(
    seed: int, n: int, p: int, density: float, precision: type
) -> None:
    d = _draw(seed, n, p, density).astype(np.float64)
    weights = np.random.default_rng(seed).standard_normal(n).astype(precision)
    gram = BitMatrix.from_dense(d).weighted_gram(weights)
    assert gram.dtype == precision
    exact, magnitude = (d.T @ (factor[:, None] * d) for factor in (weights.astype(np.float64), np.abs(weights)))
    assert (np.abs(gram - exact) <= ROUND_OFF[precision] * magnitude).all()
    assert np.array_equal(gram, gram.T)


def test_weighted_gram_beyond_its_blocks() -> None:
    d = _draw(2, 5000, 1100, 0.4).astype(np.float64)
    weights = np.random.default_rng(2).random(5000)
    exact = d.T @ (weights[:, None] * d)
    packed = BitMatrix.from_dense(d)
    for precision, tolerance in ROUND_OFF.items():
        np.testing.assert_allclose(packed.weighted_gram(weights.astype(precision)), exact, rtol=tolerance)


@given(*SHAPES)
@settings(deadline=None, max_examples=60)
def test_packing_and_selections_keep_every_bit(seed: int, n: int, p: int, density: float) -> None:
    d = _draw(seed, n, p, density)
    rng = np.random.default_rng(seed)
    columns, rows = (rng.integers(0, size, 2 * size if size else 0) for size in (p, n))  # in any order, also twice
    packed = BitMatrix.from_dense(d)
    chosen = packed.select(columns).take(rows)
    assert np.array_equal(packed.dense(), d)
    assert np.array_equal(chosen.dense(), d[rows][:, columns])
    assert np.array_equal(packed.take(rows).select(columns).dense(), chosen.dense())
    assert np.array_equal(chosen.gram(), BitMatrix.from_dense(d[rows][:, columns]).gram())
    bits = np.packbits(d, axis=1, bitorder="little")
    assert np.array_equal(BitMatrix.from_rows(bits).dense()[:, :p], d)


def test_bits_beyond_the_last_column_do_not_count() -> None:
    packed = BitMatrix.from_rows(np.full((5, 2), 255, np.uint8), 11)
    assert np.array_equal(packed.dense(), np.ones((5, 11)))
    assert (packed.times(np.ones((11, 2))) == 11).all()
    assert (packed.gram() == 5).all()


def test_a_quarter_of_a_byte_an_entry() -> None:
    packed = BitMatrix.from_rows(np.zeros((3200, 400), np.uint8))
    packed.times(np.ones((3200, 1)))
    packed.transpose_times(np.ones((3200, 1)))
    assert packed.bytes == packed.rows * packed.columns / 4


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: m.times(np.zeros((9, 1))), r"W: expected \[40, C\], got \[9, 1\]"),
        (lambda m: m.times(np.zeros(40)), r"W: expected \[40, C\], got \[40\]"),
        (lambda m: m.transpose_times(np.zeros((40, 2))), r"R: expected \[20, C\], got \[40, 2\]"),
        (lambda m: m.select(np.array([0, 40])), "columns: expected indices from 0 to 39, got 0 to 40"),
        (lambda m: m.take(np.array([-1])), "rows: expected indices from 0 to 19, got -1 to -1"),
        (lambda m: m.select(np.array([True, False])), "columns: expected a vector of whole numbers, got bool"),
        (
            lambda m: m.accumulate_gram(np.zeros((40, 40)), 1),
            r"gram: expected int32 or int64 \[40, 40\] in C order, got float64",
        ),
        (lambda m: m.weighted_gram(np.zeros(3)), r"weights: expected one for each row, \[20\], got \[3\]"),
        (lambda m: BitMatrix.from_dense(np.full((2, 2), 0.5)), "spikes: expected zeros and ones"),
        (lambda m: BitMatrix.from_dense(np.zeros(3)), r"spikes: expected a matrix \[N, P\], got shape \[3\]"),
        (lambda m: BitMatrix.from_rows(np.zeros((2, 2))), r"bits: expected uint8 \[N, P/8\], got float64 \[2, 2\]"),
        (lambda m: BitMatrix.from_rows(np.zeros((2, 2), np.uint8), 8), "columns: expected 9 to 16 for 2 bytes, got 8"),
    ],
)
def test_refuses(call: Callable[[BitMatrix], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call(BitMatrix.from_dense(_draw(0, 20, 40, 0.5)))

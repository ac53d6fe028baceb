"""Weights of rows: by age and by class, in sums that decay and in rows that are kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight

from snn.model import ReadoutSpec
from snn.readout import Rows
from solver_service.columns import Columns
from solver_service.dictionary import Dictionary, Shape
from solver_service.weights import balanced, by_age
from wire.reasons import WireError


def test_a_weight_halves_with_every_half_life() -> None:
    assert by_age(7, 2)[[6, 4, 2, 0]].tolist() == [1, 0.5, 0.25, 0.125]
    assert by_age(3, None).tolist() == [1, 1, 1]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.sampled_from([None, 5]))
@settings(deadline=None)
def test_balanced_is_that_of_scikit_learn_and_gives_classes_the_same_weight(
    classes: list[int], half_life: int | None
) -> None:
    one_hot, ages = np.eye(4)[classes], by_age(len(classes), half_life)
    weights = balanced(ages, one_hot)
    if half_life is None:
        np.testing.assert_allclose(weights, compute_sample_weight("balanced", classes))
    by_class = weights @ one_hot
    np.testing.assert_allclose(by_class[by_class > 0], ages.sum() / len(set(classes)))


def test_balanced_of_two_classes_in_one_column() -> None:
    np.testing.assert_allclose(balanced(np.ones(4), np.array([[0.0], [1], [1], [1]])), [2, 2 / 3, 2 / 3, 2 / 3])


@given(st.integers(0, 10**6), st.integers(2, 200), st.integers(1, 40), st.lists(st.integers(1, 60), max_size=12))
@settings(deadline=None, max_examples=50)
def test_decayed_sums_are_those_of_weighted_rows(seed: int, n: int, half_life: int, cuts: list[int]) -> None:
    """However the stream is cut into counts, and with a restart at each; the oracle weights and multiplies rows."""
    rng = np.random.default_rng(seed)
    spikes = rng.integers(0, 2, (n, 10), np.uint8)[:, rng.integers(0, 10, 32)]
    spikes[:, 3], spikes[:, 4] = 0, 1
    targets = np.eye(3)[rng.integers(0, 3, n)]
    rows = Rows(rng.permutation(n).astype(np.uint64), np.packbits(spikes, axis=1, bitorder="little"), targets)
    columns, at = Columns(32, 3, half_life), 0
    for size in [*cuts, n]:
        part = slice(at, at + size)
        columns.update(rows.part(part), rows.part(slice(0)))
        columns, at = Columns.from_arrays(columns.arrays(), half_life), min(n, at + size)
    weights = 0.5 ** (np.arange(n - 1, -1, -1) / half_life)
    d = spikes.astype(float)
    exact = Columns(32, 3)
    exact.update(rows, rows.part(slice(0)))
    assert (columns.rows, columns.gram.dtype) == (n, np.float64)
    assert (columns.fingerprints == exact.fingerprints).all()
    assert (columns.candidates == exact.candidates).all()
    varying = [j for j in columns.distinct if 0 < d[:, j].sum() < n]
    assert (columns.candidates == varying).all()
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(columns.weight, weights.sum(), **close)
    np.testing.assert_allclose(columns.counts, weights @ d, **close)
    np.testing.assert_allclose(columns.cross, d.T @ (weights[:, None] * targets), **close)
    np.testing.assert_allclose(columns.total, weights @ targets, **close)
    np.testing.assert_allclose(columns.energy, weights @ targets, **close)
    dd = d[:, columns.distinct]
    np.testing.assert_allclose(columns.gram, dd.T @ (weights[:, None] * dd), **close)


def test_a_half_life_that_does_not_fit_is_refused() -> None:
    with pytest.raises(WireError, match=r"half_life \(20 times its rows are kept\): expected at most .*got 200,000"):
        Dictionary(Shape(64, 2, 1), ReadoutSpec(outputs=3, loss="multinomial", half_life=10_000), 2**20)
    assert Dictionary(Shape(64, 2, 1), ReadoutSpec(outputs=3, half_life=10_000), 2**20).sums_only


@pytest.mark.parametrize(
    ("readout", "says"),
    [
        ({"window": 5, "half_life": 5}, "two ways to forget"),
        ({"class_weight": "balanced", "target": "values"}, "class_weight needs target: class"),
    ],
)
def test_contradictions_are_refused(readout: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ReadoutSpec(outputs=3, **readout)

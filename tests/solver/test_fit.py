"""Weights: a row of weight k is k rows, one of weight 0 is none; Samples, Moments and cvxpy see the same problem."""

import numpy as np
import pytest

from snn.bits import BitMatrix
from solver_service.certificate import certify
from solver_service.fit import Samples
from solver_service.losses import LOSSES, Array
from solver_service.penalties import PENALTIES
from solver_service.solvers import solve
from tests.solver.conftest import Draw, moments_of, samples_of


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", range(5))
def test_weight_is_repetition(draw: Draw, loss: str, seed: int) -> None:
    spikes, targets = draw(loss, seed)
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 4, len(spikes))
    repeated = [spikes.repeat(times, axis=0), targets.repeat(times, axis=0)]
    one, other = samples_of(loss, spikes, targets, 0.37 * times), samples_of(loss, *repeated)
    w, b = rng.standard_normal((one.columns, one.outputs)), rng.standard_normal(one.outputs)
    np.testing.assert_allclose(one.frequency, other.frequency, atol=1e-14)
    np.testing.assert_allclose(one.intercept(w), other.intercept(w), atol=1e-12)
    np.testing.assert_allclose(one.dual_ray(w).correlation, other.dual_ray(w).correlation, atol=1e-14)
    fits = [one, other]
    if loss == "squared":
        fits += [one.moments(), other.moments(), moments_of(spikes, targets, 0.37 * times), moments_of(*repeated)]
    expected = certify(other, PENALTIES["group"], 0.1, w, b)
    for fit in fits:
        certificate = certify(fit, PENALTIES["group"], 0.1, w, b)
        assert certificate.primal == pytest.approx(expected.primal, rel=1e-12)
        assert certificate.dual == pytest.approx(expected.dual, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_weighted_optimum_is_that_of_cvxpy(draw: Draw, loss: str, penalty: str) -> None:
    spikes, targets = draw(loss, 1)
    weights = np.random.default_rng(1).exponential(size=len(spikes))
    weights[::7] = 0
    fit = samples_of(loss, spikes, targets, weights)
    oracle = solve(fit, penalty, 0.02, backend="cvxpy")
    for one in [fit, fit.moments()] if loss == "squared" else [fit]:
        ours = solve(one, penalty, 0.02, tolerance=1e-9)
        assert ours.relative_gap <= 1e-9
        assert ours.primal == pytest.approx(oracle.primal, rel=1e-7, abs=1e-8)
        assert ours.beta == pytest.approx(oracle.beta, rel=1e-12)


def test_a_class_of_weight_zero_is_an_unseen_one() -> None:
    rng = np.random.default_rng(0)
    spikes, classes = (rng.random((60, 9)) < 0.5).astype(float), rng.integers(0, 3, 60)
    fit = samples_of("multinomial", spikes, np.eye(3)[classes], (classes != 2).astype(float))
    s = solve(fit, "group", 0.05)
    assert s.relative_gap <= 1e-6
    assert s.intercept[2] < s.intercept[:2].min() - 30


def test_parts_of_samples_are_those_of_the_dense_matrix() -> None:
    rng = np.random.default_rng(0)
    spikes = (rng.random((200, 70)) < 0.4).astype(float)
    fit = samples_of("squared", spikes, np.zeros((200, 2)), rng.random(200))
    columns, rows = np.array([69, 3, 40, 64, 3]), rng.integers(0, 200, 300)
    weights = rng.random(200)
    for part, dense, weight in ((None, spikes, weights), (rows, spikes[rows], weights[rows])):
        exact = dense[:, columns].T @ (weight[:, None] * dense[:, columns])
        np.testing.assert_allclose(fit.weighted_gram(weight, columns, part), exact, rtol=1e-5)
    repeated = spikes[np.ix_(rows, columns)]
    assert np.array_equal(fit.sampled_gram(rows, columns), repeated.T @ repeated)
    some, w = fit.restricted(columns), rng.standard_normal((5, 2))
    np.testing.assert_allclose(some.times(w), spikes[:, columns] @ w, atol=1e-13)
    assert some.columns == 5
    assert np.array_equal(some.frequency, fit.frequency[columns])
    every, w = np.arange(70), rng.standard_normal((70, 2))
    assert fit.restricted(every) is fit
    np.testing.assert_allclose(fit.restricted(every[::-1]).times(w), spikes[:, ::-1] @ w, atol=1e-13)
    for used in (1, 10, 69):  # a few columns are selected, most of them are not
        sparse = np.where(rng.permutation(70)[:, None] < used, rng.standard_normal((70, 2)), 0.0)
        np.testing.assert_allclose(fit.times(sparse), spikes @ sparse, atol=1e-13)


def test_moments_of_unweighted_rows_are_exact() -> None:
    rng = np.random.default_rng(0)
    spikes, targets = (rng.random((300, 40)) < 0.5).astype(float), np.eye(4)[rng.integers(0, 4, 300)]
    ours, plain = samples_of("squared", spikes, targets).moments(), moments_of(spikes, targets)
    for name in ("curvature", "correlation", "mean", "variances", "frequency"):
        assert np.array_equal(getattr(ours, name), getattr(plain, name))


@pytest.mark.parametrize("loss", ["squared", "multinomial"])
def test_samples_of_a_large_dictionary_take_little_memory(loss: str) -> None:
    """60,000 x 10,000 are 4.8 GB as float64, 150 MB as bits by row and by column. Here a hundredth of it."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 256, (6000, 125), np.uint8)
    fit = Samples(LOSSES[loss], BitMatrix.from_rows(bits), np.eye(2)[rng.integers(0, 2, 6000)])
    fit.dual_ray(rng.standard_normal((1000, 2)))
    assert fit.spikes.bytes < 1.03 * 2 * bits.nbytes


@pytest.mark.parametrize(
    ("targets", "weights", "says"),
    [
        (np.zeros((4, 1)), None, r"targets: expected \[5, C\], got \[4, 1\]"),
        (np.zeros(5), None, r"targets: expected \[5, C\], got \[5\]"),
        (np.zeros((5, 1)), np.ones(4), r"weights: expected one for each row, \[5\], got \[4\]"),
        (np.zeros((5, 1)), np.array([1, 1, 1, 1, -1.0]), "weights: expected finite numbers of at least 0, not all 0"),
        (np.zeros((5, 1)), np.array([1, 1, 1, 1, np.nan]), "weights: expected finite"),
        (np.zeros((5, 1)), np.zeros(5), "weights: expected finite"),
    ],
)
def test_refuses(targets: Array, weights: Array | None, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Samples(LOSSES["squared"], BitMatrix.from_dense(np.ones((5, 2))), targets, weights)

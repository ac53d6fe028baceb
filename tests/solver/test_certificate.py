"""The dual point is feasible, whatever W is, and the rounding grid makes scores exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver_service.certificate import beta_max, certify, dual_value
from solver_service.grid import grid_bits, to_grid
from solver_service.losses import LOSSES
from solver_service.penalties import PENALTIES
from tests.solver.conftest import moments_of, samples_of


@given(st.sampled_from(sorted(LOSSES)), st.sampled_from(sorted(PENALTIES)), st.integers(0, 10**6), st.floats(1e-3, 1))
@settings(deadline=None, max_examples=60)
def test_every_dual_value_bounds_every_primal_value(loss: str, penalty: str, seed: int, relative_beta: float) -> None:
    rng = np.random.default_rng(seed)
    n, p, c = int(rng.integers(1, 30)), int(rng.integers(0, 12)), 1 if loss == "logistic" else 3
    spikes = (rng.random((n, p)) < 0.4).astype(float)
    targets = rng.integers(0, 2, (n, 1)).astype(float) if c == 1 else np.eye(3)[rng.integers(0, 3, n)]
    weights = None if seed % 2 else rng.exponential(size=n)
    fit, chosen = samples_of(loss, spikes, targets, weights), PENALTIES[penalty]
    beta = relative_beta * beta_max(fit, chosen)
    primal, dual = np.inf, -np.inf
    for scale in (0.0, 0.1, 1.0, 5.0):
        w, b = scale * rng.standard_normal((p, c)), scale * rng.standard_normal(c)
        certificate = certify(fit, chosen, beta, w, b)
        primal, dual = min(primal, certificate.primal), max(dual, certificate.dual)
        assert np.isfinite(certificate.gap)
        ray = fit.dual_ray(w, b)  # the point itself: mean zero, inside the dual ball once scaled
        gradient = fit.loss.gradient(spikes @ w + fit.intercept(w, b), targets)
        assert np.abs((fit.share * gradient).sum(axis=0)).max() < 1e-13
        np.testing.assert_allclose(ray.correlation, -spikes.T @ (fit.share * gradient), atol=1e-14)
        s = max(0.0, min(chosen.largest_scale(ray.correlation, beta), ray.best_scale))
        assert chosen.largest_scale(s * ray.correlation, beta) >= 1 - 1e-15  # feasible
        reached = ray.value(s) - chosen.conjugate(s * ray.correlation, beta)
        assert reached <= dual_value(ray, chosen, beta) + 1e-15 * abs(reached)
        if loss == "squared":
            other = certify(moments_of(spikes, targets, weights), chosen, beta, w, b)
            assert other.primal == pytest.approx(certificate.primal, rel=1e-10, abs=1e-12)
            assert other.dual == pytest.approx(certificate.dual, rel=1e-8, abs=1e-12)
    assert dual <= primal + 1e-12 * max(1.0, abs(primal))


@given(st.integers(0, 10**6), st.floats(-12, 12))
@settings(deadline=None)
def test_scores_on_the_grid_do_not_depend_on_the_order(seed: int, exponent: float) -> None:
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((50, 3)) * 10.0**exponent * rng.choice([0, 1e-9, 1, 1e6], (50, 1))
    b = rng.standard_normal(3) * 10.0**exponent
    grid_w, grid_b = to_grid(w, b)
    g = grid_bits(w, b)
    assert ((np.abs(grid_w).sum(axis=0) + np.abs(grid_b)) < np.ldexp(1.0, 53 - g)).all()
    assert (grid_w[(w == 0).all(axis=1)] == 0).all()
    np.testing.assert_allclose(grid_w, w, rtol=0, atol=np.ldexp(1.0, -g - 1))
    spiking = np.flatnonzero(rng.random(50) < 0.5)
    reference = None
    for _ in range(5):
        total = np.zeros(3)
        for j in rng.permutation(spiking):
            total = total + grid_w[j]
        total = total + grid_b
        reference = total if reference is None else reference
        assert (total == reference).all()


def test_scale_of_beta() -> None:
    """By hand: column (1, 0, 0, 0) has c = 3/16 for centred targets that equal it, and variance 3/16."""
    column = np.array([[1.0], [0.0], [0.0], [0.0]])
    fit = samples_of("squared", column, column)
    for penalty in PENALTIES.values():
        assert beta_max(fit, penalty) == pytest.approx(3 / 16, rel=1e-15)


def test_columns_without_information_are_round_off() -> None:
    fit = samples_of("squared", np.ones((5, 3)), np.eye(2)[[0, 1, 0, 1, 0]])
    assert beta_max(fit, PENALTIES["group"]) <= 1e-12

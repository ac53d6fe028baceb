"""Penalties: prox and conjugate against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solver_service.penalties import PENALTIES


@pytest.mark.parametrize(
    ("name", "value", "prox"),
    [
        ("l1", 7.0, [[2.0, -3.0]]),
        ("group", 5.0, [[2.4, -3.2]]),
        ("ridge", 12.5, [[1.5, -2.0]]),
        ("none", 0.0, [[3.0, -4.0]]),
    ],
)
def test_by_hand(name: str, value: float, prox: list[list[float]]) -> None:
    w = np.array([[3.0, -4.0]])
    assert PENALTIES[name].value(w) == pytest.approx(value, rel=1e-15)
    np.testing.assert_allclose(PENALTIES[name].prox(w, 1.0), prox, rtol=1e-15)


@given(st.sampled_from(sorted(PENALTIES)), st.integers(0, 10**6), st.floats(0.01, 10))
def test_prox_is_the_least(name: str, seed: int, step: float) -> None:
    rng, penalty = np.random.default_rng(seed), PENALTIES[name]
    w = 3 * rng.standard_normal((4, 3))

    def objective(v: np.ndarray) -> float:
        return float(np.square(v - w).sum()) / 2 + step * penalty.value(v)

    least = objective(penalty.prox(w, step))
    for size in (1e-3, 0.1, 1.0):
        assert objective(penalty.prox(w, step) + size * rng.standard_normal(w.shape)) >= least - 1e-12


@given(st.sampled_from(sorted(PENALTIES)), st.integers(0, 10**6), st.floats(0.01, 10))
def test_conjugate_bounds_every_product(name: str, seed: int, beta: float) -> None:
    rng, penalty = np.random.default_rng(seed), PENALTIES[name]
    c = rng.standard_normal((4, 3))
    c *= min(1.0, penalty.largest_scale(c, beta))
    for size in (0.01, 1.0, 100.0):
        w = size * rng.standard_normal(c.shape)
        assert float((c * w).sum()) - beta * penalty.value(w) <= penalty.conjugate(c, beta) + 1e-12 * size

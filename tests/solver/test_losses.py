"""Losses: gradient, Hessian, conjugate and intercept against finite differences and first principles."""

import numpy as np
import pytest

from solver_service.losses import LOSSES, Array, Heads, Loss

HEADS = Heads([(LOSSES["multinomial"], 3), (LOSSES["logistic"], 1), (LOSSES["multinomial"], 2)])


def _targets(loss: Loss, rng: np.random.Generator, n: int, outputs: int = 3) -> Array:
    if isinstance(loss, Heads):
        return np.concatenate([_targets(head, rng, n, at.stop - at.start) for head, at in loss.heads], axis=1)
    if loss.name == "logistic":
        return rng.integers(0, 2, (n, 1)).astype(float)
    return rng.standard_normal((n, outputs)) if loss.name == "squared" else np.eye(outputs)[rng.integers(0, outputs, n)]


@pytest.fixture(params=[*LOSSES.values(), HEADS], ids=[*LOSSES, "heads"])
def loss(request: pytest.FixtureRequest) -> Loss:
    return request.param


@pytest.mark.parametrize(
    ("name", "score", "target", "value", "gradient"),
    [
        ("squared", [3.0, 1.0], [1.0, 1.0], 2.0, [2.0, 0.0]),
        ("logistic", [0.0], [1.0], np.log(2), [-0.5]),
        ("logistic", [np.log(3)], [0.0], np.log(4), [0.75]),
        ("multinomial", [np.log(2), 0.0, 0.0], [0.0, 1.0, 0.0], np.log(4), [0.5, -0.75, 0.25]),
    ],
)
def test_by_hand(name: str, score: list[float], target: list[float], value: float, gradient: list[float]) -> None:
    z, y = np.array([score]), np.array([target])
    assert LOSSES[name].value(z, y)[0] == pytest.approx(value, rel=1e-15)
    np.testing.assert_allclose(LOSSES[name].gradient(z, y)[0], gradient, rtol=1e-15)


def test_derivatives(loss: Loss) -> None:
    rng, h = np.random.default_rng(0), 1e-5
    y = _targets(loss, rng, 20)
    z, v = 2 * rng.standard_normal(y.shape), rng.standard_normal(y.shape)
    slope = (loss.value(z + h * v, y) - loss.value(z - h * v, y)) / (2 * h)
    np.testing.assert_allclose((loss.gradient(z, y) * v).sum(axis=1), slope, atol=1e-8)
    bend = (loss.gradient(z + h * v, y) - loss.gradient(z - h * v, y)) / (2 * h)
    np.testing.assert_allclose(loss.hessian(z)(v), bend, atol=1e-8)
    unit = np.zeros_like(z)
    unit[:, 0] = 1
    np.testing.assert_allclose(loss.hessian_diagonal(z)[:, 0], loss.hessian(z)(unit)[:, 0], rtol=1e-12)
    assert ((loss.hessian(z)(v) * v).sum(axis=1) <= loss.curvature * (v * v).sum(axis=1) + 1e-12).all()


def test_fenchel_young(loss: Loss) -> None:
    """value + conjugate >= <q, z>, with equality exactly at the gradient."""
    rng = np.random.default_rng(1)
    y = _targets(loss, rng, 50)
    z, other = rng.standard_normal(y.shape), rng.standard_normal(y.shape)
    at = loss.gradient(z, y)
    np.testing.assert_allclose(loss.value(z, y) + loss.conjugate(at, y), (at * z).sum(axis=1), atol=1e-12)
    q = 0.7 * loss.gradient(other, y)
    assert (loss.value(z, y) + loss.conjugate(q, y) >= (q * z).sum(axis=1) - 1e-12).all()


def test_intercept_zeroes_the_mean_gradient(loss: Loss) -> None:
    rng = np.random.default_rng(2)
    y = _targets(loss, rng, 200)
    share = rng.random((200, 1))
    share /= share.sum()
    for spread in (0.0, 1.0, 20.0):
        offsets = spread * rng.standard_normal(y.shape)
        b = loss.intercept(offsets, y, share, np.zeros(y.shape[1]))
        assert np.abs((share * loss.gradient(offsets + b, y)).sum(axis=0)).max() < 1e-14
    if loss.name in ("logistic", "multinomial"):
        one_class = np.zeros_like(y)
        one_class[:, :1] = 1
        b = loss.intercept(offsets, one_class, share, np.zeros(y.shape[1]))
        assert np.isfinite(b).all()
        assert np.abs((share * loss.gradient(offsets + b, one_class)).sum(axis=0)).max() < 1e-14

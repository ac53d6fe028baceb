"""Factors and inverses in blocks are those of one call, and a deadline ends them."""

import numpy as np
import pytest

from solver_service import linear_algebra
from solver_service.linear_algebra import Cholesky


@pytest.mark.parametrize("k", [1, 9, 40, 41])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_blocks_factor_and_invert(monkeypatch: pytest.MonkeyPatch, k: int, precision: type) -> None:
    monkeypatch.setattr(linear_algebra, "LARGEST_CALL", 0)
    monkeypatch.setattr(linear_algebra, "BLOCK", 8)
    rng = np.random.default_rng(k)
    half = rng.standard_normal((k, 2 * k))
    a = (half @ half.T).astype(precision)
    whole = a.copy()
    factor = Cholesky(a)
    near = 1e-4 if precision is np.float32 else 1e-11
    np.testing.assert_allclose(np.tril(factor.lower) @ np.tril(factor.lower).T, a, atol=near * np.abs(a).max())
    np.testing.assert_allclose(factor.inverse() @ a, np.eye(k), atol=100 * near)
    np.testing.assert_array_equal(a, whole)


def test_blocks_reject_what_is_not_positive_definite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_algebra, "LARGEST_CALL", 0)
    monkeypatch.setattr(linear_algebra, "BLOCK", 8)
    a = np.eye(20)
    a[17, 17] = -1
    with pytest.raises(np.linalg.LinAlgError):
        Cholesky(a)


def test_a_deadline_ends_a_factor_and_an_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_algebra, "LARGEST_CALL", 0)
    monkeypatch.setattr(linear_algebra, "BLOCK", 8)

    def late() -> None:
        nonlocal left
        left -= 1
        if not left:
            raise TimeoutError

    left = 3
    with pytest.raises(TimeoutError):
        Cholesky(np.eye(40), late)
    left = 3
    with pytest.raises(TimeoutError):
        Cholesky(np.eye(40)).inverse(late)

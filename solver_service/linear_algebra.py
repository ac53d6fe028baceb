"""Cholesky factors, and BLAS on one thread.

OpenBLAS's threads spin while they wait for each other, which collapses when they share cores with Flink: on a busy
two-core machine a 2,000 x 2,000 `potrf` took 1.1 s on two threads and 0.08 s on one, a whole MNIST solve 4 s and 2 s.
"""

from contextlib import AbstractContextManager

import numpy as np
import scipy.linalg as sl
from threadpoolctl import ThreadpoolController

from solver_service.losses import Array

_blas = ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """BLAS on one thread while the context is entered, in the whole process."""
    limit: AbstractContextManager[object] = _blas.limit(limits=1, user_api="blas")
    return limit


class Cholesky:
    """Lower factor L of a symmetric positive definite A [k, k]; raises LinAlgError where A is not."""

    def __init__(self, a: Array) -> None:
        self.lower: Array = sl.cholesky(a, lower=True, check_finite=False)

    def solve(self, right: Array) -> Array:
        """A^-1 right."""
        return np.asarray(sl.cho_solve((self.lower, True), right, check_finite=False))

    def half_solve(self, right: Array) -> Array:
        """L^-1 right."""
        return np.asarray(sl.solve_triangular(self.lower, right, lower=True, check_finite=False))

    def inverse(self) -> Array:
        """A^-1."""
        inverse, _ = sl.lapack.get_lapack_funcs(("potri",), (self.lower,))[0](self.lower, lower=1)
        return np.asarray(np.tril(inverse) + np.tril(inverse, -1).T)


def damped_cholesky(a: Array) -> Cholesky:
    """Cholesky of A plus the smallest tried multiple of its mean diagonal that makes it positive definite."""
    unit = max(float(a.trace()) / len(a), 1e-300)
    for jitter in (0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2):
        try:
            return Cholesky(a + jitter * unit * np.eye(len(a)) if jitter else a)
        except np.linalg.LinAlgError:
            continue
    return Cholesky(a + unit * np.eye(len(a)))

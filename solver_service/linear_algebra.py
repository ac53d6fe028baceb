"""Cholesky factors on one BLAS thread.

OpenBLAS's threaded `potrf` collapses when its threads share their cores: a 2,000 x 2,000 factor took 1.1 s on two
threads of a busy two-core machine and 0.08 s on one. Products keep all threads.
"""

import numpy as np
import scipy.linalg as sl
from threadpoolctl import ThreadpoolController

from solver_service.losses import Array

_blas = ThreadpoolController()


class Cholesky:
    """Lower factor L of a symmetric positive definite A [k, k]; raises LinAlgError where A is not."""

    def __init__(self, a: Array) -> None:
        with _blas.limit(limits=1, user_api="blas"):
            self.lower: Array = sl.cholesky(a, lower=True, check_finite=False)

    def solve(self, right: Array) -> Array:
        """A^-1 right."""
        return np.asarray(sl.cho_solve((self.lower, True), right, check_finite=False))

    def half_solve(self, right: Array) -> Array:
        """L^-1 right."""
        return np.asarray(sl.solve_triangular(self.lower, right, lower=True, check_finite=False))

    def inverse(self) -> Array:
        """A^-1."""
        with _blas.limit(limits=1, user_api="blas"):
            inverse, _ = sl.lapack.get_lapack_funcs(("potri",), (self.lower,))[0](self.lower, lower=1)
        return np.asarray(np.tril(inverse) + np.tril(inverse, -1).T)


def damped_cholesky(a: Array) -> Cholesky:
    """Cholesky of A plus the smallest tried multiple of its mean diagonal that makes it positive definite."""
    unit = max(float(a.trace()) / len(a), np.finfo(float).tiny)
    for jitter in (0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2):
        try:
            return Cholesky(a + jitter * unit * np.eye(len(a)) if jitter else a)
        except np.linalg.LinAlgError:
            continue
    return Cholesky(a + unit * np.eye(len(a)))

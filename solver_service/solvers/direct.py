"""Squared loss with ridge or no penalty: one factorisation of the Gram matrix, free of N.

    (H + beta I) W = B,   H and B of `Moments`

Without a penalty H may be singular (duplicate columns, N < P), but B lies in its range: independent columns are picked
and the others get no coefficient.
"""

import numpy as np
import scipy.linalg as sl

from solver_service.fit import Moments
from solver_service.linear_algebra import independent
from solver_service.losses import Array
from solver_service.solvers.base import Point

REFINEMENTS = 2  # of the solution by its residual


def solve(fit: Moments, beta: float) -> Point:
    """(W, b); beta = 0 where there is no penalty."""
    h = fit.curvature.copy()
    h[np.diag_indices_from(h)] += beta
    chosen, lower = independent(h)
    w: Array = np.zeros_like(fit.correlation)
    for _ in range(1 + REFINEMENTS):
        residual = fit.correlation - fit.products(w) - beta * w
        w[chosen] += sl.cho_solve((lower, True), residual[chosen], check_finite=False)
    return Point(w, fit.intercept(w))

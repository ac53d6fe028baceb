"""A dyadic grid for the published readout, so that its scores are the same bits in any order of summation.

Coefficients and intercept are rounded to multiples of 2^-g with  sum_j |W_jc| + |b_c| < 2^(53-g)  for every output c.
A spike is 0 or 1, so every partial sum of a score is a multiple of 2^-g below 2^(53-g): a float64, without rounding.
"""

import numpy as np

from solver_service.losses import Array


def grid_bits(w: Array, b: Array) -> int:
    """The finest g that the bound allows, less one bit for the rounding itself."""
    largest = float((np.abs(w).sum(axis=0) + np.abs(b)).max(initial=0.0))
    return 52 - int(np.frexp(max(largest, 2.0**-500))[1])


def to_grid(w: Array, b: Array) -> tuple[Array, Array]:
    """W [P, C] and b [C] on their grid. Zero stays zero."""
    g = grid_bits(w, b)
    return np.ldexp(np.rint(np.ldexp(w, g)), -g) + 0.0, np.ldexp(np.rint(np.ldexp(b, g)), -g) + 0.0

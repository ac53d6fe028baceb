"""What a penalty is to a solver: a sum of norms over groups of coefficients (design, section 2.4).

    penalty(W) = sum_g ||W_g||_2,   dual ball: ||C_g||_2 <= 1 for every g,   prox_t(W)_g = max(0, 1 - t / ||W_g||) W_g

A penalty is its groups, and the groups are told by one product: `inner(U, V)` sums U * V within each group, and
broadcasts against W [P, C].
"""

from typing import Protocol

import numpy as np

from solver_service.losses.base import Array


class Penalty(Protocol):
    name: str

    def inner(self, u: Array, v: Array) -> Array:
        """Inner products of `u` and `v` [P, C] within each group: [P, 1] or [P, C]."""


def sizes(penalty: Penalty, w: Array) -> Array:
    """Norms of the groups of `w` [P, C]: [P, 1] or [P, C]."""
    return np.asarray(np.sqrt(penalty.inner(w, w)))


def value(penalty: Penalty, w: Array) -> float:
    return float(sizes(penalty, w).sum())


def dual_norms(penalty: Penalty, c: Array) -> Array:
    """For each row of `c` [P, C] the norm that the dual point must keep at or below beta [P]."""
    return np.asarray(sizes(penalty, c).max(axis=1))


def prox(penalty: Penalty, w: Array, step: Array | float) -> Array:
    """argmin over v of ||v - w||^2 / 2 + step * penalty(v)."""
    n = sizes(penalty, w)
    return np.asarray(w * np.maximum(0.0, 1.0 - step / np.where(n > 0, n, np.inf)))

"""What a penalty is to a solver: convex in W [P, C], zero at W = 0 (design, section 2.4).

    conjugate(C) = sup over W of <C, W> - beta penalty(W),   finite where C is dual feasible

The penalties that make W sparse are sums of norms over groups of coefficients, and such a penalty is its groups:

    penalty(W) = sum_g ||W_g||_2,   dual feasible: ||C_g||_2 <= beta for every g,   conjugate = 0
"""

from typing import Protocol

import numpy as np

from solver_service.losses.base import Array


class Penalty(Protocol):
    name: str

    def value(self, w: Array) -> float:
        """penalty(W)."""

    def prox(self, w: Array, step: Array | float) -> Array:
        """argmin over v of ||v - w||^2 / 2 + step * penalty(v)."""

    def largest_scale(self, c: Array, beta: float) -> float:
        """The largest s >= 0 for which s * C is dual feasible."""

    def conjugate(self, c: Array, beta: float) -> float:
        """At a dual feasible C."""


class SumOfNorms:
    """The groups are told by one product: `inner(U, V)` sums U * V within each group, [P, 1] or [P, C]."""

    name: str

    def inner(self, u: Array, v: Array) -> Array:
        raise NotImplementedError

    def sizes(self, w: Array) -> Array:
        """Norms of the groups of W: [P, 1] or [P, C]."""
        return np.asarray(np.sqrt(self.inner(w, w)))

    def dual_norms(self, c: Array) -> Array:
        """For each row of C the norm that the dual point must keep at or below beta [P]."""
        return np.asarray(self.sizes(c).max(axis=1))

    def value(self, w: Array) -> float:
        return float(self.sizes(w).sum())

    def prox(self, w: Array, step: Array | float) -> Array:
        n = self.sizes(w)
        return np.asarray(w * np.maximum(0.0, 1.0 - step / np.where(n > 0, n, np.inf)))

    def largest_scale(self, c: Array, beta: float) -> float:
        largest = float(self.dual_norms(c).max(initial=0.0))
        return beta / largest if largest > 0 else np.inf

    def conjugate(self, c: Array, beta: float) -> float:
        return 0.0

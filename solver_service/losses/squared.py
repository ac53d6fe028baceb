"""Squared loss, design section 2.4:

loss(z, y) = 1/2 ||z - y||^2        conjugate(q, y) = 1/2 ||q||^2 + <q, y>
"""

from collections.abc import Callable

import numpy as np

from solver_service.losses.base import Array, Floats


class Squared:
    name = "squared"
    curvature = 1.0

    def value(self, scores: Array, targets: Array) -> Array:
        return 0.5 * np.square(scores - targets).sum(axis=1)

    def gradient(self, scores: Array, targets: Array) -> Array:
        return scores - targets

    def hessian(self, scores: Floats) -> Callable[[Floats], Floats]:
        return lambda direction: direction

    def hessian_diagonal(self, scores: Array) -> Array:
        return np.ones_like(scores)

    def centred(self, values: Floats) -> Floats:
        return values

    def conjugate(self, dual: Array, targets: Array) -> Array:
        return 0.5 * np.square(dual).sum(axis=1) + (dual * targets).sum(axis=1)

    def dual_scale(self, gradient: Array, targets: Array, share: Array) -> float:
        """The dual is a parabola along the ray."""
        energy = float((share * np.square(gradient)).sum())
        return -float((share * gradient * targets).sum()) / energy if energy > 0 else 1.0

    def intercept(self, offsets: Array, targets: Array, share: Array, start: Array) -> Array:
        residual = targets - offsets
        b = (share * residual).sum(axis=0)
        return np.asarray(b + (share * (residual - b)).sum(axis=0))  # again: the shares, too, are rounded

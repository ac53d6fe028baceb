"""Squared loss, design section 2.4:

loss(z, y) = 1/2 ||z - y||^2        conjugate(q, y) = 1/2 ||q||^2 + <q, y>
"""

import numpy as np

from solver_service.losses.base import Array


class Squared:
    name = "squared"
    curvature = 1.0

    def value(self, scores: Array, targets: Array) -> Array:
        return 0.5 * np.square(scores - targets).sum(axis=1)

    def gradient(self, scores: Array, targets: Array) -> Array:
        return scores - targets

    def hessian_product(self, scores: Array, direction: Array) -> Array:
        return direction

    def hessian_diagonal(self, scores: Array) -> Array:
        return np.ones_like(scores)

    def conjugate(self, dual: Array, targets: Array) -> Array:
        return 0.5 * np.square(dual).sum(axis=1) + (dual * targets).sum(axis=1)

    def dual_scale(self, gradient: Array, targets: Array) -> float:
        """The dual is a parabola along the ray."""
        energy = float(np.square(gradient).sum())
        return -float((gradient * targets).sum()) / energy if energy > 0 else 1.0

    def intercept(self, offsets: Array, targets: Array, start: Array) -> Array:
        return np.mean(targets - offsets, axis=0)

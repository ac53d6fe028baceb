"""Logistic loss for classes 0 and 1 and one output, design section 2.4:

loss(z, y) = log(1 + e^z) - y z,  p = 1 / (1 + e^-z)
conjugate(q, y) = m log m + (1 - m) log(1 - m),  m = y + q in [0, 1]
"""

import numpy as np
from scipy.special import entr, expit

from solver_service.losses.base import Array

FLOOR = 1e-17  # odds beyond this are lost in a float64 sum; keeps the intercept of a single class finite


class Logistic:
    name = "logistic"
    curvature = 0.25

    def value(self, scores: Array, targets: Array) -> Array:
        return (np.logaddexp(0.0, scores) - targets * scores)[:, 0]

    def gradient(self, scores: Array, targets: Array) -> Array:
        return np.where(targets > 0.5, -expit(-scores), expit(scores))

    def hessian_product(self, scores: Array, direction: Array) -> Array:
        return self.hessian_diagonal(scores) * direction

    def hessian_diagonal(self, scores: Array) -> Array:
        return expit(scores) * expit(-scores)

    def conjugate(self, dual: Array, targets: Array) -> Array:
        magnitude = np.abs(dual)  # m = |q| for y = 0 and 1 - |q| for y = 1: the same entropy
        return (-entr(magnitude) - entr(1.0 - magnitude))[:, 0]

    def dual_scale(self, gradient: Array, targets: Array) -> float:
        return 1.0

    def intercept(self, offsets: Array, targets: Array, start: Array) -> Array:
        """Newton on the mean gradient, inside a bracket that shrinks with every step."""
        n = len(targets)
        ones = float(targets.sum())
        odds = np.log(max(ones / n, FLOOR)) - np.log(max(1 - ones / n, FLOOR))
        low, high = odds - offsets.max(), odds - offsets.min()
        if not FLOOR < ones / n < 1 - FLOOR:
            return np.array([low if ones == 0 else high])
        b = float(np.clip(start[0], low, high))
        for _ in range(100):
            z = offsets + b
            slope = float(self.gradient(z, targets).sum())
            low, high = (b, high) if slope < 0 else (low, b)
            step = b - slope / max(float(self.hessian_diagonal(z).sum()), FLOOR)
            new = step if low <= step <= high else (low + high) / 2
            if abs(new - b) <= 1e-16 * max(1.0, abs(b)):
                break
            b = new
        return np.array([b])

"""Logistic loss for classes 0 and 1 and one output, design section 2.4:

loss(z, y) = log(1 + e^z) - y z,  p = 1 / (1 + e^-z)
conjugate(q, y) = m log m + (1 - m) log(1 - m),  m = y + q in [0, 1]
"""

from collections.abc import Callable

import numpy as np
from scipy.special import entr, expit

from solver_service.losses.base import Array, Floats

FLOOR = 1e-17  # odds beyond this are lost in a float64 sum; keeps the intercept of a single class finite
LAST_STEP = 1e-12  # Newton squares the error, so after a step this small it is round-off


class Logistic:
    name = "logistic"
    curvature = 0.25

    def value(self, scores: Array, targets: Array) -> Array:
        return (np.logaddexp(0.0, scores) - targets * scores)[:, 0]

    def gradient(self, scores: Array, targets: Array) -> Array:
        return np.where(targets > 0.5, -expit(-scores), expit(scores))

    def hessian(self, scores: Floats) -> Callable[[Floats], Floats]:
        weights = self.hessian_diagonal(scores)
        return lambda direction: weights * direction

    def hessian_diagonal(self, scores: Array) -> Array:
        return expit(scores) * expit(-scores)

    def centred(self, values: Floats) -> Floats:
        return values

    def conjugate(self, dual: Array, targets: Array) -> Array:
        magnitude = np.abs(dual)  # m = |q| for y = 0 and 1 - |q| for y = 1: the same entropy
        return (-entr(magnitude) - entr(1.0 - magnitude))[:, 0]

    def dual_scale(self, gradient: Array, targets: Array, share: Array) -> float:
        return 1.0

    def intercept(self, offsets: Array, targets: Array, share: Array, start: Array) -> Array:
        """Newton on the mean gradient, inside a bracket that shrinks with every step."""
        ones, zeros = float((share * targets).sum()), float((share * (1 - targets)).sum())
        odds = np.log(max(ones, FLOOR)) - np.log(max(zeros, FLOOR))
        low, high = odds - offsets.max(), odds - offsets.min()
        if min(ones, zeros) <= FLOOR:
            return np.array([low if ones < zeros else high])
        b = float(np.clip(start[0], low, high))
        for _ in range(100):
            z = offsets + b
            slope = float((share * self.gradient(z, targets)).sum())
            low, high = (b, high) if slope < 0 else (low, b)
            step = b - slope / max(float((share * self.hessian_diagonal(z)).sum()), FLOOR)
            new = step if low <= step <= high else (low + high) / 2
            b, moved = new, abs(new - b)
            if moved <= LAST_STEP * max(1.0, abs(b)):
                break
        return np.array([b])

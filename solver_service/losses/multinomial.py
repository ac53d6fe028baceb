"""Multinomial (softmax) loss over C classes, design section 2.4:

loss(z, y) = log sum_c e^{z_c} - <y, z>,  p = softmax(z)
conjugate(q, y) = sum_c m_c log m_c,  m = y + q in the simplex
"""

import numpy as np
from scipy.special import entr

from solver_service.losses.base import Array

FLOOR = 1e-17  # odds beyond this are lost in a float64 sum; keeps the intercept of an unseen class finite
INTERCEPT_STEPS = 1000  # 3 from a warm start; far away a step is about 1


class Multinomial:
    name = "multinomial"
    curvature = 0.5

    def value(self, scores: Array, targets: Array) -> Array:
        top = scores.max(axis=1)
        return top + np.log(np.exp(scores - top[:, None]).sum(axis=1)) - (targets * scores).sum(axis=1)

    def gradient(self, scores: Array, targets: Array) -> Array:
        return _softmax(scores) - targets

    def hessian_product(self, scores: Array, direction: Array) -> Array:
        p = _softmax(scores)
        weighted = p * direction
        return weighted - p * weighted.sum(axis=1, keepdims=True)

    def hessian_diagonal(self, scores: Array) -> Array:
        p = _softmax(scores)
        return p * (1.0 - p)

    def conjugate(self, dual: Array, targets: Array) -> Array:
        return -entr(np.maximum(targets + dual, 0.0)).sum(axis=1)  # max: round-off below the simplex

    def dual_scale(self, gradient: Array, targets: Array) -> float:
        return 1.0

    def intercept(self, offsets: Array, targets: Array, start: Array) -> Array:
        """Newton, regularised by the size of the gradient, which makes it converge from anywhere (the loss is
        quasi-self-concordant: Doikov 2023). Classes that no sample has sit at the floor. The b sum to zero."""
        frequency = targets.mean(axis=0)
        seen = frequency > 0
        b = np.where(seen, start - start[seen].mean(), np.log(FLOOR) + offsets.min() - offsets.max())
        shift = np.outer(seen, seen)  # the free direction, which gradient and step do not have
        for _ in range(INTERCEPT_STEPS if seen.sum() > 1 else 0):
            p = _softmax(offsets + b)
            gradient = np.where(seen, (p - targets).mean(axis=0), 0.0)
            size = float(np.abs(gradient).max())
            hessian = np.diag(p.mean(axis=0)) - p.T @ p / len(p) + shift + size * np.eye(len(b)) + np.diag(~seen * 1.0)
            step = np.where(seen, -np.linalg.solve(hessian, gradient), 0.0)
            b = b + step
            if np.abs(step).max() <= 1e-15 * max(1.0, float(np.abs(b).max())):
                break
        return np.asarray(b - b.mean())


def _softmax(scores: Array) -> Array:
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))

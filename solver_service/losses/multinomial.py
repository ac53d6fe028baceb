"""Multinomial (softmax) loss over C classes, design section 2.4:

loss(z, y) = log sum_c e^{z_c} - <y, z>,  p = softmax(z)
conjugate(q, y) = sum_c m_c log m_c,  m = y + q in the simplex
"""

from collections.abc import Callable

import numba
import numpy as np
from scipy.special import entr

from solver_service.losses.base import Array, Floats

FLOOR = 1e-17  # odds beyond this are lost in a float64 sum; keeps the intercept of an unseen class finite
INTERCEPT_STEPS = 1000  # 3 from a warm start; far away a step is about 1
LAST_STEP = 1e-10  # Newton squares the error, so after a step this small it is round-off


class Multinomial:
    name = "multinomial"
    curvature = 0.5

    def value(self, scores: Array, targets: Array) -> Array:
        return _values(scores, targets)

    def gradient(self, scores: Array, targets: Array) -> Array:
        return _softmax(scores) - targets

    def hessian(self, scores: Floats) -> Callable[[Floats], Floats]:
        p = _softmax(scores)

        return lambda direction: _curved(p, direction)

    def hessian_diagonal(self, scores: Array) -> Array:
        p = _softmax(scores)
        return p * (1.0 - p)

    def centred(self, values: Floats) -> Floats:
        return values - values.mean(axis=1, keepdims=True)

    def conjugate(self, dual: Array, targets: Array) -> Array:
        return -entr(np.maximum(targets + dual, 0.0)).sum(axis=1)  # max: round-off below the simplex

    def dual_scale(self, gradient: Array, targets: Array, share: Array) -> float:
        return 1.0

    def intercept(self, offsets: Array, targets: Array, share: Array, start: Array) -> Array:
        """Newton, regularised by the size of the gradient, which makes it converge from anywhere (the loss is
        quasi-self-concordant: Doikov 2023). Classes that no sample has sit at the floor. The b sum to zero."""
        seen = (share * targets).sum(axis=0) > 0
        b = np.where(seen, start - start[seen].mean(), np.log(FLOOR) + offsets.min() - offsets.max())
        shift = np.outer(seen, seen)  # the free direction, which gradient and step do not have
        for _ in range(INTERCEPT_STEPS if seen.sum() > 1 else 0):
            gradient, hessian = _mean_derivatives(offsets, b, targets, share)
            gradient[~seen] = 0
            size = float(np.abs(gradient).max())
            hessian += shift + size * np.eye(len(b)) + np.diag(~seen * 1.0)
            step = np.where(seen, -np.linalg.solve(hessian, gradient), 0.0)
            b = b + step
            if np.abs(step).max() <= LAST_STEP * max(1.0, float(np.abs(b).max())):
                break
        return np.asarray(b - b.mean())


@numba.njit(nogil=True, cache=True)
def _softmax(scores: Floats) -> Floats:
    """Compiled: numpy's reductions over short rows take 4 times as long."""
    p = np.empty_like(scores)
    for i in range(len(scores)):
        top = scores[i].max()
        total = scores.dtype.type(0)
        for c in range(scores.shape[1]):
            p[i, c] = np.exp(scores[i, c] - top)
            total += p[i, c]
        for c in range(scores.shape[1]):
            p[i, c] /= total
    return p


@numba.njit(nogil=True, cache=True)
def _mean_derivatives(offsets: Array, b: Array, targets: Array, share: Array) -> tuple[Array, Array]:
    """Gradient [C] and Hessian [C, C] of the weighted mean loss by b."""
    classes = len(b)
    gradient, mean, cross, p = np.zeros(classes), np.zeros(classes), np.zeros((classes, classes)), np.empty(classes)
    for i in range(len(offsets)):
        top, total = -np.inf, 0.0
        for c in range(classes):
            top = max(top, offsets[i, c] + b[c])
        for c in range(classes):
            p[c] = np.exp(offsets[i, c] + b[c] - top)
            total += p[c]
        for c in range(classes):
            p[c] /= total
            gradient[c] += share[i, 0] * (p[c] - targets[i, c])
            weighted = share[i, 0] * p[c]
            mean[c] += weighted
            for other in range(c + 1):
                cross[c, other] += weighted * p[other]
    for c in range(classes):
        for other in range(c):
            cross[other, c] = cross[c, other]
    return gradient, np.diag(mean) - cross


@numba.njit(nogil=True, cache=True)
def _curved(p: Floats, direction: Floats) -> Floats:
    """(diag(p) - p p') direction in every row."""
    product = np.empty_like(direction)
    for i in range(len(p)):
        mean = p.dtype.type(0)
        for c in range(p.shape[1]):
            mean += p[i, c] * direction[i, c]
        for c in range(p.shape[1]):
            product[i, c] = p[i, c] * (direction[i, c] - mean)
    return product


@numba.njit(nogil=True, cache=True)
def _values(scores: Array, targets: Array) -> Array:
    values = np.empty(len(scores))
    for i in range(len(scores)):
        top = scores[i].max()
        total = aligned = 0.0
        for c in range(scores.shape[1]):
            total += np.exp(scores[i, c] - top)
            aligned += targets[i, c] * scores[i, c]
        values[i] = top + np.log(total) - aligned
    return values

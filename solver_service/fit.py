"""The smooth part of the objective, the mean loss, seen through one of two representations of the same data.

    F(W, b) = (1/N) sum_i loss(D_i W + b, y_i)

`Samples` holds D itself and serves every loss. `Moments` holds D'D, D'Y, Y'Y and the counts, which is all that the
squared loss needs, so its cost does not grow with N (solver study, "what a stream adds"):

    H = D'D/N - m m',  B = D'(Y - ybar)/N,  F(W, b(W)) = (||Y - ybar||^2/N - 2 <B, W> + <W, H W>) / 2,  m = counts/N

W is float64 [P, C], b [C]; b(W) is the best intercept for W.
"""

from collections.abc import Callable
from copy import copy
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from solver_service.losses import LOSSES, Array, Loss

MEAN_TOLERANCE = 1e-12  # round-off of a mean gradient; above it a dual point is not feasible


class DualRay(NamedTuple):
    """The residual at (W, b(W)) as a line of dual candidates s * gradient, each with mean zero."""

    correlation: Array  # [P, C] -D'gradient/N
    best_scale: float  # the s that maximises the dual along the line, constraints aside
    value: Callable[[float], float]  # dual objective at s


class Fit(Protocol):
    rows: int
    columns: int
    outputs: int

    def value(self, w: Array, b: Array) -> float:
        """F(W, b)."""

    def intercept(self, w: Array, start: Array | None = None) -> Array:
        """b(W)."""

    def dual_ray(self, w: Array, start: Array | None = None) -> DualRay:
        """Dual candidates from W; `start` is a first guess of b(W)."""


class Samples:
    """Rows of the dictionary [N, P] (binary, as float64) with targets [N, C] as the loss takes them."""

    def __init__(self, loss: Loss, spikes: npt.ArrayLike, targets: Array) -> None:
        self.loss = loss
        self.spikes: Array = np.asarray(spikes, np.float64)
        self.targets = np.asarray(targets, np.float64)
        (self.rows, self.columns), self.outputs = self.spikes.shape, self.targets.shape[1]
        self.frequency: Array = self.spikes.mean(axis=0)

    def offsets(self, w: Array) -> Array:
        used = np.flatnonzero(w.any(axis=1))
        if 2 * len(used) > self.columns:
            return np.asarray(self.spikes @ w)
        return np.asarray(self.spikes[:, used] @ w[used])

    def value(self, w: Array, b: Array) -> float:
        return float(self.loss.value(self.offsets(w) + b, self.targets).mean())

    def intercept(self, w: Array, start: Array | None = None) -> Array:
        return self.loss.intercept(self.offsets(w), self.targets, np.zeros(self.outputs) if start is None else start)

    def dual_ray(self, w: Array, start: Array | None = None) -> DualRay:
        offsets = self.offsets(w)
        b = self.loss.intercept(offsets, self.targets, np.zeros(self.outputs) if start is None else start)
        gradient = self.loss.gradient(offsets + b, self.targets)
        tilt = float(np.abs(gradient.mean(axis=0)).max())
        if tilt > MEAN_TOLERANCE * max(1.0, float(np.abs(self.targets).max())):  # b(W) was not found: nothing is proved
            return DualRay(np.zeros_like(w), 1.0, lambda s: -np.inf)
        return DualRay(
            self.spikes.T @ gradient / -self.rows,
            self.loss.dual_scale(gradient, self.targets),
            lambda s: -float(self.loss.conjugate(s * gradient, self.targets).mean()),
        )


class Moments:
    """Moments of dictionary and targets: gram [P, P], counts [P], cross [P, C], total [C], energy [C]."""

    loss = LOSSES["squared"]

    def __init__(
        self, rows: int, gram: npt.ArrayLike, counts: npt.ArrayLike, cross: npt.ArrayLike, total: Array, energy: Array
    ) -> None:
        """`energy` [C] sums the squared targets. The arrays may be integers; they are exact in float64."""
        self.rows = rows
        m = np.asarray(counts, np.float64) / rows
        self.mean = total / rows
        self.curvature: Array = np.divide(gram, rows, dtype=np.float64)
        for j in range(0, len(m), 256):  # in blocks: no second [P, P] float64
            self.curvature[j : j + 256] -= np.outer(m[j : j + 256], m)
        self.correlation: Array = np.asarray(cross, np.float64) / rows - np.outer(m, self.mean)
        self.variances: Array = np.maximum(0.0, energy / rows - np.square(self.mean))
        self.variance = float(self.variances.sum())
        self.frequency = m
        self.columns, self.outputs = len(m), len(self.mean)

    def output(self, c: int) -> "Moments":
        """The same data with output `c` alone; they share the moments of the columns."""
        one = copy(self)
        one.outputs, one.mean, one.correlation = 1, self.mean[[c]], self.correlation[:, [c]]
        one.variance = float(self.variances[c])
        return one

    def products(self, w: Array) -> Array:
        """H W [P, C]."""
        used = np.flatnonzero(w.any(axis=1))
        if 2 * len(used) > self.columns:
            return np.asarray(self.curvature @ w)
        return np.asarray(self.curvature[:, used] @ w[used])

    def value(self, w: Array, b: Array) -> float:
        shift = b - self.intercept(w)
        explained = float((w * (2 * self.correlation - self.products(w))).sum())
        return (max(0.0, self.variance - explained) + float(shift @ shift)) / 2

    def intercept(self, w: Array, start: Array | None = None) -> Array:
        return np.asarray(self.mean - self.frequency @ w)

    def dual_ray(self, w: Array, start: Array | None = None) -> DualRay:
        products = self.products(w)
        along = self.variance - float((w * self.correlation).sum())  # <r, y - ybar> / N
        energy = max(0.0, self.variance - float((w * (2 * self.correlation - products)).sum()))  # ||r||^2 / N
        return DualRay(
            self.correlation - products,
            along / energy if energy > 0 else 1.0,
            lambda s: s * along - s * s * energy / 2,
        )

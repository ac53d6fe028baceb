"""The smooth part of the objective, the mean loss, seen through one of two representations of the same data.

    F(W, b) = sum_i s_i loss(D_i W + b, y_i),   s_i = weight_i / total weight   (1/N without weights)

`Samples` holds D itself, in bits, and serves every loss. `Moments` holds D'SD, D'SY, Y'SY and the counts, which is all
that the squared loss needs, so its cost does not grow with N (solver study, "what a stream adds"):

    F(W, b(W)) = (||Y - ybar||_S^2 - 2 <B, W> + <W, H W>) / 2
    H = D'SD - m m',  B = D'S(Y - ybar),  m = D's,  S = diag(s)

W is float64 [P, C], b [C]; b(W) is the best intercept for W.
"""

from collections.abc import Callable
from copy import copy
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from snn.bits import BitMatrix, Indices
from solver_service.losses import LOSSES, Array, Floats, Loss

MEAN_TOLERANCE = 1e-12  # round-off of a mean gradient; above it a dual point is not feasible


class DualRay(NamedTuple):
    """The residual at (W, b(W)) as a line of dual candidates s * gradient, each with mean zero."""

    correlation: Array  # [P, C] -D'gradient/N
    best_scale: float  # the s that maximises the dual along the line, constraints aside
    value: Callable[[float], float]  # dual objective at s


class Fit(Protocol):
    loss: Loss
    frequency: Array
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
    """Rows of the dictionary [N, P] with targets [N, C] as the loss takes them and weights [N], all 1 where not given.

    Raises ValueError where the shapes disagree, or weights are negative, not finite or all zero.
    """

    def __init__(self, loss: Loss, spikes: BitMatrix, targets: Array, weights: Array | None = None) -> None:
        self.loss = loss
        self.spikes = spikes
        self.targets = np.asarray(targets, np.float64)
        self.rows, self.columns = spikes.rows, spikes.columns
        if self.targets.ndim != 2 or len(self.targets) != self.rows:
            raise ValueError(f"targets: expected [{self.rows}, C], got {list(self.targets.shape)}")
        self.outputs = self.targets.shape[1]
        self.weights = np.ones(self.rows) if weights is None else _checked_weights(weights, self.rows)
        self.share: Array = (self.weights / self.weights.sum())[:, None]
        self.frequency: Array = self.transpose_times(self.share)[:, 0]

    def times(self, w: Floats) -> Floats:
        """D W [N, C], in W's precision."""
        used = np.flatnonzero(w.any(axis=1))
        if 2 * len(used) > self.columns:
            return self.spikes.times(w)
        return self.spikes.select(used).times(w[used])

    def transpose_times(self, r: Floats) -> Floats:
        """D' R [P, C], in R's precision."""
        return self.spikes.transpose_times(r)

    def weighted_gram(self, weights: Array, columns: Indices, rows: Indices | None = None) -> npt.NDArray[np.float32]:
        """D' diag(weights) D [k, k] over some columns, and over all rows or those given, one weight each."""
        d = self.spikes if rows is None else self.spikes.take(rows)
        return d.select(columns).weighted_gram(weights.astype(np.float32))

    def sampled_gram(self, rows: Indices, columns: Indices) -> npt.NDArray[np.int32]:
        """D' D [k, k] over some rows, which may repeat, and columns."""
        return self.spikes.take(rows).select(columns).gram()

    def restricted(self, columns: Indices) -> "Samples":
        """The same rows with some of the columns; with all of them, this very object and the layouts it has made."""
        if np.array_equal(columns, np.arange(self.columns)):
            return self
        part = copy(self)
        part.spikes, part.columns, part.frequency = self.spikes.select(columns), len(columns), self.frequency[columns]
        return part

    def on(self, device: str | None) -> "Samples":
        """The same with D on a device (`BitMatrix.on`)."""
        moved = copy(self)
        moved.spikes = self.spikes.on(device)
        return moved

    def take(self, rows: Indices) -> "Samples":
        """Some of the rows, with their targets and weights."""
        return Samples(self.loss, self.spikes.take(rows), self.targets[rows], self.weights[rows])

    def moments(self) -> "Moments":
        """All that the squared loss needs."""
        unweighted = bool((self.weights == 1).all())
        weights = self.weights[:, None]
        return Moments(
            self.rows,
            self.spikes.gram() if unweighted else self.spikes.weighted_gram(self.weights),
            self.transpose_times(weights)[:, 0],
            self.transpose_times(weights * self.targets),
            (weights * self.targets).sum(axis=0),
            (weights * np.square(self.targets)).sum(axis=0),
            float(self.weights.sum()),
        )

    def mean(self, samples: Array) -> Array:
        """Weighted mean over the rows, of [N] or [N, C]."""
        return np.asarray(self.share[:, 0] @ samples)

    def value(self, w: Array, b: Array) -> float:
        return float(self.mean(self.loss.value(self.times(w) + b, self.targets)))

    def intercept(self, w: Array, start: Array | None = None) -> Array:
        return self._intercept(self.times(w), start)

    def dual_ray(self, w: Array, start: Array | None = None) -> DualRay:
        offsets = self.times(w)
        return self.dual_ray_at(offsets + self._intercept(offsets, start))

    def dual_ray_at(self, scores: Array) -> DualRay:
        """Dual candidates from scores D W + b(W)."""
        gradient = self.loss.gradient(scores, self.targets)
        tilt = float(np.abs(self.mean(gradient)).max())
        if tilt > MEAN_TOLERANCE * max(1.0, float(np.abs(self.targets).max())):  # b(W) was not found: nothing is proved
            return DualRay(np.zeros((self.columns, self.outputs)), 1.0, lambda s: -np.inf)
        return DualRay(
            -self.transpose_times(self.share * gradient),
            self.loss.dual_scale(gradient, self.targets, self.share),
            lambda s: -float(self.mean(self.loss.conjugate(s * gradient, self.targets))),
        )

    def _intercept(self, offsets: Array, start: Array | None) -> Array:
        start = np.zeros(self.outputs) if start is None else start
        return self.loss.intercept(offsets, self.targets, self.share, start)


def _checked_weights(weights: Array, rows: int) -> Array:
    weights = np.asarray(weights, np.float64)
    if weights.shape != (rows,):
        raise ValueError(f"weights: expected one for each row, [{rows}], got {list(weights.shape)}")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError("weights: expected finite numbers of at least 0, not all 0")
    return weights


class Moments:
    """Weighted sums over the rows: gram D'SD [P, P], counts [P], cross D'SY [P, C], total [C], energy [C]."""

    loss: Loss = LOSSES["squared"]

    def __init__(
        self,
        rows: int,
        gram: npt.ArrayLike,
        counts: npt.ArrayLike,
        cross: npt.ArrayLike,
        total: Array,
        energy: Array,
        weight: float | None = None,
    ) -> None:
        """`energy` sums the squared targets, `weight` the weights: the number of rows where each has 1. The arrays may
        be integers; they are exact in float64."""
        self.rows = rows
        weight = rows if weight is None else weight
        m = np.asarray(counts, np.float64) / weight
        self.mean = total / weight
        self.curvature: Array = np.divide(gram, weight, dtype=np.float64)
        for j in range(0, len(m), 256):  # in blocks: no second [P, P] float64
            self.curvature[j : j + 256] -= np.outer(m[j : j + 256], m)
        self.correlation: Array = np.asarray(cross, np.float64) / weight - np.outer(m, self.mean)
        self.variances: Array = np.maximum(0.0, energy / weight - np.square(self.mean))
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

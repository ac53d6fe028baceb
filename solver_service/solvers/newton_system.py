"""The Newton system of smooth loss and penalty, solved by preconditioned conjugate gradients.

    (H + B) v = r,   H = [D 1]' loss'' [D 1] / N,   B = full I - rank u u' in every group of coefficients

in the variables [k + 1, C]: chosen rows of W, then the intercept. The preconditioner has one float32 inverse a class,
of the diagonal blocks of H, counted on a sample of rows, plus full; the rank-one terms come in by Woodbury:

    P = A^-1 + A^-1 U L^1/2 K^-1 L^1/2 U' A^-1,   K = I - L^1/2 (sum_c u_c u_c' o A_c^-1) L^1/2

It serves the systems that follow for as long as CG converges quickly. Rows are sampled by their weight p_c (1 - p_c),
all with equal weights then, so that a Gram matrix is counted on bits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snn.bits import Indices
from solver_service.fit import Samples
from solver_service.linear_algebra import damped_cholesky
from solver_service.losses import Array, Floats
from solver_service.solvers.base import Stop

Single = npt.NDArray[np.float32]
SAMPLE_ROWS = 4096  # rows of the preconditioner; the Hessian itself uses all
CG_STEPS = 60
CG_SLOW, CG_SLOW_SHARE = 6, 0.01  # iterations after which a new preconditioner pays, at least and of its size: an
# iteration costs k^2, a preconditioner k^3
LARGEST_INVERSES = 2**30  # bytes; beyond it the classes share one inverse
CG_SHARE = 0.03  # of the right side that is left over, in the preconditioner's norm


class Bend(NamedTuple):
    """The penalty's second-order model at W [k, C]."""

    slope: Array  # [k, C] gradient
    full: Array  # [k, 1] or [k, C]
    rank: Array  # as full
    unit: Array  # [k, C]
    inner: Callable[[Floats, Floats], Floats]  # products within each group
    active: npt.NDArray[np.bool_]  # [k, C] coefficients that may move


class System:
    """The Newton system at one point."""

    def __init__(
        self,
        fit: Samples,
        rows: Indices,
        scores: Array,
        gradient: Array,
        c: Array,
        bend: Bend,
        mass: float,
        precision: type[np.floating[Any]] = np.float32,
    ) -> None:
        """`gradient` [N, C] of the mean loss by the scores, c = -D'gradient at the rows; `mass` on the intercept's free
        shift; `precision` of the products with H."""
        self.fit, self.rows, self.scores, self.bend, self.mass = fit, rows, scores, bend, mass
        self._part = fit.restricted(rows)
        self.right: Array = np.concatenate([(c - bend.slope) * bend.active, -gradient.sum(axis=0)[None]])
        self._hessian = fit.loss.hessian(scores.astype(precision))
        self._share = fit.share.astype(precision)
        self._precision = precision

    def product(self, v: Array) -> Array:
        u = v.astype(self._precision)
        bent = self._share * self._hessian(self._part.times(u[:-1]) + u[-1])
        smooth = np.empty_like(v)
        smooth[:-1] = self._part.transpose_times(bent)
        _, full, rank, unit, inner, active = self.bend
        smooth[:-1] += full * v[:-1] - rank * inner(unit, v[:-1]) * unit
        smooth[:-1] *= active
        smooth[-1] = bent.sum(axis=0) + self.mass * v[-1]
        return smooth

    def solve(self, preconditioner: "Preconditioner | None", stop: Stop) -> tuple[Array, "Preconditioner"]:
        """The direction, by CG with the given preconditioner, or a new one where that is missing or slow."""
        if preconditioner is not None and not preconditioner.outgrown(self):
            slow = max(CG_SLOW, int(CG_SLOW_SHARE * len(self.rows)))
            direction, iterations = self._conjugate_gradients(preconditioner, slow, stop)
            if iterations < slow or stop.overdue:
                return direction, preconditioner
        preconditioner = Preconditioner(self, stop)
        return self._conjugate_gradients(preconditioner, CG_STEPS, stop)[0], preconditioner

    def _conjugate_gradients(self, preconditioner: "Preconditioner", steps: int, stop: Stop) -> tuple[Array, int]:
        x = np.zeros_like(self.right)
        r = self.right
        z = self._precondition(preconditioner, r)
        p, rz = z, float((r * z).sum())
        first = rz
        for iteration in range(1, steps + 1):
            hp = self.product(p)
            curvature = float((p * hp).sum())
            if curvature <= 0:
                return x, iteration
            alpha = rz / curvature
            x = x + alpha * p
            r = r - alpha * hp
            z = self._precondition(preconditioner, r)
            rz, before = float((r * z).sum()), rz
            if rz <= CG_SHARE**2 * first or rz <= 0 or stop.overdue:
                return x, iteration
            p = z + rz / before * p
        return x, steps

    def _precondition(self, preconditioner: "Preconditioner", r: Array) -> Array:
        z = preconditioner.solve(self.rows, r)
        z[:-1] *= self.bend.active
        return z


class Preconditioner:
    """Inverses of the class blocks [k + 1, k + 1] and the Woodbury factor, of one system; serves its successors.

    Where the inverses would take too much memory, one of the classes' mean serves them all.
    """

    def __init__(self, system: System, stop: Stop) -> None:
        fit, self.rows = system.fit, system.rows
        _, full, rank, unit, self.inner, active = system.bend
        k, outputs = unit.shape
        grouped = full.shape[1] < outputs and bool(rank.any())
        diagonal = np.broadcast_to(full if grouped else full - rank * np.square(unit), unit.shape)
        weights = fit.share * fit.loss.hessian_diagonal(system.scores)
        shared = 4 * outputs * (k + 1) ** 2 > LARGEST_INVERSES
        if shared:
            weights, diagonal = weights.mean(axis=1, keepdims=True), diagonal.mean(axis=1, keepdims=True)
            active = active.any(axis=1, keepdims=True)
        self.inverses: list[Single] = []
        for c in range(weights.shape[1]):
            stop.check()
            a = sampled_gram(fit, weights[:, c], self.rows, SAMPLE_ROWS)
            on = np.append(active[:, c], True)
            if not on.all():
                a *= np.outer(on, on)
            a[np.arange(k), np.arange(k)] += np.where(on[:-1], diagonal[:, c], 1.0)
            a[k, k] += system.mass
            self.inverses.append(damped_cholesky(a).inverse())
        self.inverses *= outputs if shared else 1
        self._mean_diagonal = float(np.mean([inverse.diagonal().mean() for inverse in self.inverses]))
        self.unit, self.half, self.woodbury = unit.astype(np.float32), np.sqrt(rank).astype(np.float32), None
        if grouped:
            inner = np.eye(k, dtype=np.float32)
            for c in range(outputs):
                side = self.unit[:, [c]] * self.half
                inner -= side * self.inverses[c][:k, :k] * side.T
            self.woodbury = damped_cholesky(inner)

    def outgrown(self, system: System) -> bool:
        return len(np.setdiff1d(system.rows, self.rows)) > 0.02 * len(self.rows)

    def solve(self, rows: Indices, right: Array) -> Array:
        if len(rows) == len(self.rows) and (rows == self.rows).all():
            return self._solve(right)
        kept = np.isin(rows, self.rows)
        at = np.searchsorted(self.rows, rows[kept])
        whole = np.zeros((len(self.rows) + 1, right.shape[1]))
        whole[at], whole[-1] = right[:-1][kept], right[-1]
        solved = self._solve(whole)
        z = np.empty_like(right)
        z[:-1][kept], z[-1] = solved[at], solved[-1]
        z[:-1][~kept] = right[:-1][~kept] * self._mean_diagonal
        return z

    def _solve(self, right: Array) -> Array:
        r = right.astype(np.float32)
        z = np.stack([inverse @ r[:, c] for c, inverse in enumerate(self.inverses)], axis=1)
        if self.woodbury is None:
            return z.astype(np.float64)
        y = self.woodbury.solve(self.half * self.inner(self.unit, z[:-1]))
        correction = self.unit * (self.half * y)
        z += np.stack([inverse[:, :-1] @ correction[:, c] for c, inverse in enumerate(self.inverses)], axis=1)
        return z.astype(np.float64)


def sampled_gram(fit: Samples, weights: Array, columns: Indices, sample: int) -> Single:
    """[D 1]' diag(weights) [D 1] over some columns, from all rows, or from a sample by weight where there are more."""
    k = len(columns)
    a = np.empty((k + 1, k + 1), np.float32)
    if fit.rows <= sample:
        a[:k, :k] = fit.weighted_gram(weights, columns)
        total = float(weights.sum())
        a[k, :k] = fit.transpose_times(weights[:, None])[columns, 0]
    else:
        upto = np.cumsum(weights)
        total = float(upto[-1])
        rows = np.searchsorted(upto, (np.arange(sample) + 0.5) * (total / sample))
        a[:k, :k] = fit.sampled_gram(rows, columns)
        a[:k, :k] *= total / sample
        a[k, :k] = a.diagonal()[:k]
    a[:k, k], a[k, k] = a[k, :k], total
    return a

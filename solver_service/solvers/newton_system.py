"""The Newton system of smooth loss and penalty, solved by preconditioned conjugate gradients.

    (H + B) v = r,   H = [D 1]' loss'' [D 1] / N,   B = full I - rank u u' in every group of coefficients

in the variables [k + 1, C]: chosen rows of W, then the intercept. The expensive part of the preconditioner is `Blocks`:
float32 inverses of A_c, the diagonal block of H for class c, counted on a sample of rows, plus full. They serve the
systems that follow for as long as CG converges quickly. For each system they are scaled to its diagonal, and its
rank-one terms come in by Woodbury:

    P = S M S,   M = (A - U U')^-1 = A^-1 + A^-1 U K^-1 U' A^-1,   K = I - U' A^-1 U = I - sum_c u_c u_c' o A_c^-1
    S^2 = diag A / diag (H + full),   U = u sqrt(rank full of the blocks / full), so that K stays positive definite

Where neither the loss nor B sees a shift of all outputs, the direction keeps to the steps that add up to zero over
them, and so does P (`balanced`): along the others the blocks are stiff and H + B is all but flat.

Rows are sampled by their weight p_c (1 - p_c), all with equal weights then, so that a Gram matrix is counted on bits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from scipy.linalg import blas

from snn.bits import Indices
from solver_service.fit import Samples
from solver_service.linear_algebra import damped_cholesky
from solver_service.losses import Array, Floats
from solver_service.solvers.base import Point, Stop

Single = npt.NDArray[np.float32]
SAMPLE_ROWS = 4096  # rows of a block; the Hessian itself uses all
CG_STEPS = 60
CG_SLOW, CG_SLOW_SHARE = 6, 0.01  # iterations after which new blocks pay, at least and of their size: an iteration
# costs k^2, blocks k^3
LARGEST_INVERSES = 2**30  # bytes; beyond it the classes share one inverse
HELD_STEPS = 20  # of CG, after coefficients were held
CG_SHARE = 0.03  # of the right side that is left over, in the preconditioner's norm
CG_LARGEST = 0.3  # of its largest entry, which the gap sees and that norm may not, where blocks are old
MOST_FRESH = 0.1  # of the columns may be new to the blocks; they are preconditioned by their diagonal


class Bend(NamedTuple):
    """The penalty's second-order model at W [k, C]."""

    slope: Array  # [k, C] gradient
    full: Array  # [k, 1] or [k, C]
    rank: Array  # as full
    unit: Array  # [k, C]
    inner: Callable[[Floats, Floats], Floats]  # products within each group
    active: npt.NDArray[np.bool_]  # [k, C] coefficients that may move


def balanced(fit: Samples, point: Point) -> Point:
    """The point with the same loss whose coefficients add up to zero over the outputs, where shifts are free."""
    return Point(fit.loss.centred(point.w), point.b)


class System:
    """The Newton system at one point."""

    def __init__(
        self,
        part: Samples,
        rows: Indices,
        scores: Array,
        gradient: Array,
        c: Array,
        bend: Bend,
        mass: float,
        precision: type[np.floating[Any]] = np.float32,
    ) -> None:
        """`part`: the samples restricted to `rows` of W; `gradient` [N, C] of the mean loss by the scores,
        c = -D'gradient at the rows; `mass` on the intercept's free shift; `precision` of the products with H."""
        self.part, self.rows, self.bend, self.mass = part, rows, bend, mass
        self.right: Array = np.concatenate([(c - bend.slope) * bend.active, -gradient.sum(axis=0)[None]])
        self._hessian = part.loss.hessian(scores.astype(precision))
        self._share = part.share.astype(precision)
        self._precision = precision
        self.weights: Single = (part.share * part.loss.hessian_diagonal(scores)).astype(np.float32)
        self.grouped = bend.full.shape[1] < part.outputs and bool(bend.rank.any())
        self.balanced = bend.full.shape[1] < part.outputs
        full = bend.full if self.grouped else bend.full - bend.rank * np.square(bend.unit)
        self.bent: Array = np.where(bend.active, full, 1.0)  # the diagonal of B, without the rank-one terms of groups
        smooth = part.transpose_times(self.weights) * bend.active
        self.diagonal: Array = np.concatenate([smooth + self.bent, self.weights.sum(axis=0)[None] + mass])

    def product(self, v: Array) -> Array:
        u = v.astype(self._precision)
        bent = self._share * self._hessian(self.part.times(u[:-1]) + u[-1])
        smooth = np.empty_like(v)
        smooth[:-1] = self.part.transpose_times(bent)
        _, full, rank, unit, inner, active = self.bend
        smooth[:-1] += full * v[:-1] - rank * inner(unit, v[:-1]) * unit
        smooth[:-1] *= active
        smooth[-1] = bent.sum(axis=0) + self.mass * v[-1]
        return smooth

    def solve(self, blocks: "Blocks | None", stop: Stop, share: float = CG_SHARE) -> tuple[Array, "Blocks"]:
        """The direction, by CG with the given blocks; it goes on with new ones where they are missing or slow."""
        x, r = np.zeros_like(self.right), self.right
        if blocks is not None and not blocks.outgrown(self):
            slow = max(CG_SLOW, int(CG_SLOW_SHARE * len(self.rows)))
            x, r, done = self._conjugate_gradients(Preconditioner(self, blocks, stop), x, r, slow, share, stop)
            if done:
                return x, blocks
        blocks = Blocks(self, stop)
        return self._conjugate_gradients(Preconditioner(self, blocks, stop), x, r, CG_STEPS, share, stop)[0], blocks

    def hold(self, x: Array, held: npt.NDArray[np.bool_], values: Array, share: float, stop: Stop) -> Array:
        """The direction from x on, where the coefficients `held` [k, C] have `values` from now on."""
        self.bend = self.bend._replace(active=self.bend.active & ~held)
        x = x.copy()
        x[:-1][held] = values[held]
        r = self.right - self.product(x)
        r[:-1] *= self.bend.active
        return self._conjugate_gradients(self._preconditioner, x, r, HELD_STEPS, share, stop)[0]

    def _conjugate_gradients(
        self, preconditioner: "Preconditioner", x: Array, r: Array, steps: int, share: float, stop: Stop
    ) -> tuple[Array, Array, bool]:
        """A better x with its residual r, and whether that is small enough."""
        self._preconditioner, active = preconditioner, self.bend.active
        z = preconditioner.solve(r, active)
        p, rz = z, float((r * z).sum())
        whole = np.concatenate([self.right[:-1] * active, self.right[-1:]])
        goal = share**2 * float((whole * preconditioner.solve(whole, active)).sum())
        largest = CG_LARGEST * float(np.abs(whole).max())
        for _ in range(steps):
            done = rz <= goal and float(np.abs(r).max()) <= largest
            if done or rz <= 0 or stop.overdue:
                return x, r, True
            hp = self.product(p)
            curvature = float((p * hp).sum())
            if curvature <= 0:
                return x, r, True
            alpha = rz / curvature
            x, r = x + alpha * p, r - alpha * hp
            z = preconditioner.solve(r, active)
            rz, before = float((r * z).sum()), rz
            p = z + rz / before * p
        return x, r, rz <= goal and float(np.abs(r).max()) <= largest


class Blocks:
    """Inverses of the class blocks [k + 1, k + 1] of one system.

    Where they would take too much memory, one of the classes' mean serves them all.
    """

    def __init__(self, system: System, stop: Stop) -> None:
        self.rows, self.full, self.diagonal = system.rows, system.bend.full, system.diagonal
        part, weights, bent = system.part, system.weights, system.bent
        active = system.bend.active
        k, outputs = active.shape
        if 4 * outputs * (k + 1) ** 2 > LARGEST_INVERSES:
            weights, bent = weights.mean(axis=1, keepdims=True), bent.mean(axis=1, keepdims=True)
            self.diagonal, active = self.diagonal.mean(axis=1, keepdims=True), active.any(axis=1, keepdims=True)
        self.inverses: list[Single] = []
        for c in range(weights.shape[1]):
            stop.check()
            a = sampled_gram(part, weights[:, c], np.arange(k), SAMPLE_ROWS)
            on = np.append(active[:, c], True)
            if not on.all():
                a *= np.outer(on, on)
            a[np.arange(k), np.arange(k)] += bent[:, c]
            a[k, k] += system.mass
            self.inverses.append(damped_cholesky(a, stop.check).inverse(stop.check))

    def outgrown(self, system: System) -> bool:
        return len(np.setdiff1d(system.rows, self.rows)) > MOST_FRESH * len(self.rows)

    def times(self, right: Single) -> Single:
        """[k + 1, C] A^-1 right."""
        if len(self.inverses) == 1:
            return np.asarray(blas.ssymm(1.0, self.inverses[0], right, lower=1))
        columns = [blas.ssymv(1.0, a, right[:, c], lower=1) for c, a in enumerate(self.inverses)]
        return np.stack(columns, axis=1)


class Preconditioner:
    """Blocks fitted to a system. It is held by the system and does not hold it: the blocks, most of a solve's memory,
    would else stay until Python looks for cycles."""

    def __init__(self, system: System, blocks: Blocks, stop: Stop) -> None:
        self.blocks, (_, full, rank, unit, self.inner, _) = blocks, system.bend
        self.centred = system.part.loss.centred if system.balanced else None
        self.fresh: Single = (1 / system.diagonal).astype(np.float32)
        kept = np.isin(system.rows, blocks.rows)
        self.kept = np.append(kept, True)
        self.at = np.append(np.searchsorted(blocks.rows, system.rows[kept]), len(blocks.rows))
        self.size = len(blocks.rows) + 1, system.right.shape[1]
        self.scale: Single = np.sqrt(blocks.diagonal[self.at] / system.diagonal[self.kept]).astype(np.float32)
        self.woodbury = None
        if system.grouped:
            at = self.at[:-1]
            self.side = np.zeros((self.size[0] - 1, self.size[1]), np.float32)
            self.side[at] = unit[kept] * np.sqrt(rank[kept] * blocks.full[at] / full[kept])
            inner = np.eye(len(self.side), dtype=np.float32)
            for c in range(self.size[1]):
                _subtract(inner, blocks.inverses[c % len(blocks.inverses)].T, np.ascontiguousarray(self.side[:, c]))
            self.woodbury = damped_cholesky(inner.T, stop.check)

    def solve(self, right: Array, active: npt.NDArray[np.bool_]) -> Array:
        """P right [k + 1, C], 0 where a coefficient is not `active` [k, C]."""
        r = right.astype(np.float32)
        whole = np.zeros(self.size, np.float32)
        whole[self.at] = self.scale * r[self.kept]
        z = self.blocks.times(whole)
        if self.woodbury is not None:
            y = self.woodbury.solve(self.inner(self.side, z[:-1]))
            whole[:-1] = self.side * y
            whole[-1] = 0
            z += self.blocks.times(whole)
        solved = self.fresh * r
        solved[self.kept] = self.scale * z[self.at]
        solved[:-1] *= active
        exact = solved.astype(np.float64)  # before it is centred: nothing else keeps W from drifting off
        return exact if self.centred is None else self.centred(exact)


@numba.njit(nogil=True, cache=True)
def _subtract(inner: Single, inverse: Single, side: Single) -> None:
    """Upper triangle of inner [k, k] -= side side' o inverse; compiled, because numpy would make copies."""
    for i in range(len(inner)):
        for j in range(i, len(inner)):
            inner[i, j] -= side[i] * side[j] * inverse[i, j]


def sampled_gram(fit: Samples, weights: Floats, columns: Indices, sample: int) -> Single:
    """[D 1]' diag(weights) [D 1] over some columns, from all rows, or from a sample by weight where there are more."""
    k = len(columns)
    a = np.empty((k + 1, k + 1), np.float32)
    if fit.rows <= sample:
        a[:k, :k] = fit.weighted_gram(weights, columns)
        total = float(weights.sum())
        a[k, :k] = fit.transpose_times(weights[:, None])[columns, 0]
    else:
        upto = np.cumsum(weights, dtype=np.float64)
        total = float(upto[-1])
        rows = np.searchsorted(upto, (np.arange(sample) + 0.5) * (total / sample))
        a[:k, :k] = fit.sampled_gram(rows, columns)
        a[:k, :k] *= total / sample
        a[k, :k] = a.diagonal()[:k]
    a[:k, k], a[k, k] = a[k, :k], total
    return a

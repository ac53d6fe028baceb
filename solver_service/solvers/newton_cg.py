"""Any loss, either penalty: damped Newton-CG on the non-zero groups (solver study, "the multinomial group problem").

With w a group, n = ||w||, w^ = w/n and c = -grad F, the Newton system on the non-zero groups is

    (H + (beta/n)(1 + mu) I - (beta/n - r) w^ w^') v = c - beta w^,     H = [D 1]' loss'' [D 1] / N
    r = clip((beta - c.w^) / (2 n), floor, .9 beta/n)

r is the curvature along w^ that the norm has in the variable sqrt(n); it damps steps that would carry a group through
zero. A group that shrinks by the relative step rho < 0 is scaled by (1 + rho/2)^2, to zero at rho <= -2 (retraction).
CG is preconditioned by one Cholesky factor a class (diagonal blocks of H, on at most SAMPLE_ROWS rows) with the group
term by Woodbury. Zero groups that violate the dual constraint enter by a proximal step; a cold start follows a path
of falling beta.
"""

import numpy as np

from solver_service.certificate import Certificate, beta_max, dual_value
from solver_service.fit import Samples
from solver_service.linear_algebra import Cholesky, damped_cholesky
from solver_service.losses import Array
from solver_service.penalties import Penalty, prox, sizes
from solver_service.penalties import value as penalty_value
from solver_service.solvers.base import Point, Stop, worst_violators

PATH = 0.3  # ratio of neighbouring betas on the path
PATH_GAP = 1e-2  # how well the path's inner points are solved
PATH_STEPS = 6
FIRST_WORKING_SET = 64
SAMPLE_ROWS = 4096  # rows of the preconditioner; the Hessian itself uses all
CG_STEPS = 60
SMALLEST_DAMPING, LARGEST_DAMPING = 1e-9, 1e6  # mu
ZERO = 1e-4  # a group this far below the median norm, and not held by the dual constraint, leaves


def solve(fit: Samples, penalty: Penalty, beta: float, start: Point, stop: Stop) -> Point:
    """(W, b) from the warm start, or along the path where that is zero."""
    point = start
    if not start.w.any():
        step = PATH * beta_max(fit, penalty)
        while step * PATH > beta and not stop.overdue:
            point = _descend(fit, penalty, step, point, stop._replace(relative_gap=PATH_GAP), PATH_STEPS)
            step *= PATH
    return _descend(fit, penalty, beta, point, stop, 1000)


def _descend(fit: Samples, penalty: Penalty, beta: float, point: Point, stop: Stop, steps: int) -> Point:
    """Newton steps, each of them a descent, until the gap is closed or round-off ends it."""
    w, b = point
    damping = 1.0
    for _ in range(steps):
        b = fit.intercept(w, b)
        ray = fit.dual_ray(w, b)
        objective = _objective(fit, penalty, beta, w, b)
        gap = Certificate(objective, dual_value(ray, penalty, beta)).relative_gap
        if gap <= stop.relative_gap or stop.overdue:
            break
        entered = _enter(fit, penalty, beta, w, b, ray.correlation, objective)
        floor = 1e-3 if gap > PATH_GAP else 1e-7
        moved, b, size = _newton_step(fit, penalty, beta, Point(entered, b), damping, floor)
        if size == 0 and damping >= LARGEST_DAMPING and entered is w:
            break
        w = _leave(penalty, moved, ray.correlation, beta)
        if size < 0.3:
            damping = min(damping * 5, LARGEST_DAMPING)
        elif size == 1:
            damping = max(damping / 5, SMALLEST_DAMPING)
    return Point(w, b)


def _objective(fit: Samples, penalty: Penalty, beta: float, w: Array, b: Array) -> float:
    return fit.value(w, b) + beta * penalty_value(penalty, w)


def _enter(fit: Samples, penalty: Penalty, beta: float, w: Array, b: Array, c: Array, objective: float) -> Array:
    """W with the worst violators moved off zero, together and only as far as the objective falls."""
    n, size = sizes(penalty, w), sizes(penalty, c)
    violation = np.where(n == 0, size, 0.0)
    rows = worst_violators(
        violation.max(axis=1), beta, np.ones(len(w), bool), max(FIRST_WORKING_SET, int(n.any(axis=1).sum()))
    )
    if not len(rows):
        return w
    curvature = fit.loss.curvature * fit.frequency[rows, None]
    move = np.zeros_like(w)
    move[rows] = prox(penalty, c[rows] / curvature, beta / curvature) * (n[rows] == 0)
    theta = 1.0
    while theta > 1e-9:
        if _objective(fit, penalty, beta, w + theta * move, b) < objective:
            return w + theta * move
        theta /= 4
    return w


def _leave(penalty: Penalty, w: Array, c: Array, beta: float) -> Array:
    """W without the groups that are all but zero."""
    n = sizes(penalty, w)
    if not n.any():
        return w
    gone = (n < ZERO * np.median(n[n > 0])) & (sizes(penalty, c) < beta)
    return np.where(gone, 0.0, w)


def _newton_step(
    fit: Samples, penalty: Penalty, beta: float, point: Point, damping: float, floor: float
) -> tuple[Array, Array, float]:
    """The point after one step along the Newton direction, and the step's size (0: no descent)."""
    rows = np.flatnonzero(point.w.any(axis=1))
    if not len(rows):
        return point.w, point.b, 1.0
    spikes = np.concatenate([fit.spikes[:, rows], np.ones((fit.rows, 1))], axis=1)
    w, b = point.w[rows], point.b
    system = _System(fit, penalty, beta, spikes, w, b, damping, floor)
    direction = system.solve()
    objective = system.objective
    slope = -float((system.right * direction).sum())
    size = 1.0
    while size > 1e-8:
        new_w = _retract(penalty, w, size * direction[:-1])
        new_b = b + size * direction[-1]
        scores = spikes[:, :-1] @ new_w + new_b
        new = float(fit.loss.value(scores, fit.targets).mean()) + beta * penalty_value(penalty, new_w)
        if new <= objective + 1e-4 * size * slope:
            full = point.w.copy()
            full[rows] = new_w
            return full, new_b, size
        size /= 2
    return point.w, b, 0.0


def _retract(penalty: Penalty, w: Array, step: Array) -> Array:
    """w + step, but a shrinking group stops at zero instead of passing it."""
    n2 = penalty.inner(w, w)
    rho = penalty.inner(w, step) / np.where(n2 > 0, n2, 1.0)
    along = rho * w
    scale = np.square(np.maximum(0.0, 1 + rho / 2))
    scale = np.where(rho <= -1.99, 0.0, scale)
    return np.asarray(np.where(n2 > 0, np.where(rho < 0, (w + step - along) * scale, w + step), 0.0))


class _System:
    """The Newton system at one point, in the variables [k + 1, C]: non-zero rows of W, then the intercept."""

    def __init__(
        self,
        fit: Samples,
        penalty: Penalty,
        beta: float,
        spikes: Array,
        w: Array,
        b: Array,
        damping: float,
        floor: float,
    ) -> None:
        self.fit, self.penalty, self.spikes = fit, penalty, spikes
        self.scores: Array = spikes[:, :-1] @ w + b
        n = sizes(penalty, w)
        self.active = np.broadcast_to(n > 0, w.shape)
        safe = np.where(n > 0, n, 1.0)
        self.unit: Array = w / safe
        gradient = spikes.T @ fit.loss.gradient(self.scores, fit.targets) / fit.rows
        self.right: Array = -gradient
        self.right[:-1] = (self.right[:-1] - beta * self.unit) * self.active
        radial = np.clip(
            (beta + penalty.inner(gradient[:-1], self.unit)) / (2 * safe), floor * beta / safe, 0.9 * beta / safe
        )
        self.full: Array = beta / safe * (1 + damping)
        self.rank: Array = beta / safe - radial
        self.objective = float(fit.loss.value(self.scores, fit.targets).mean()) + beta * float(n.sum())
        self.mass = 1e-12 + 1e-10 * damping  # fixes the free shift of the intercept
        self._factor()

    def product(self, v: Array) -> Array:
        smooth = self.spikes.T @ self.fit.loss.hessian_product(self.scores, self.spikes @ v) / self.fit.rows
        smooth[:-1] += self.full * v[:-1] - self.rank * self.penalty.inner(self.unit, v[:-1]) * self.unit
        smooth[:-1] *= self.active
        smooth[-1] += self.mass * v[-1]
        return np.asarray(smooth)

    def _factor(self) -> None:
        stride = max(1, self.fit.rows // SAMPLE_ROWS)
        sample = self.spikes[::stride]
        weights = self.fit.loss.hessian_diagonal(self.scores[::stride]) / len(sample)
        k, outputs = self.unit.shape
        grouped = self.full.shape[1] < outputs
        diagonal = np.broadcast_to(self.full if grouped else self.full - self.rank, self.unit.shape)
        self.factors: list[Cholesky] = []
        for c in range(outputs):
            a = sample.T @ (weights[:, [c]] * sample)
            on = np.append(self.active[:, c], True)
            a *= np.outer(on, on)
            a[np.diag_indices(k)] += np.where(on[:-1], diagonal[:, c], 1.0)
            a[k, k] += self.mass
            self.factors.append(damped_cholesky(a))
        self.woodbury: Cholesky | None = None
        if grouped:
            half = np.sqrt(self.rank)
            inner = np.eye(k)
            for c, factor in enumerate(self.factors):
                side = self.unit[:, [c]] * half
                inner -= side * factor.inverse()[:k, :k] * side.T
            self.woodbury = damped_cholesky(inner)
            self.half: Array = half

    def precondition(self, r: Array) -> Array:
        z = np.stack([factor.solve(r[:, c]) for c, factor in enumerate(self.factors)], axis=1)
        if self.woodbury is None:
            return z
        y = self.woodbury.solve(self.half * self.penalty.inner(self.unit, z[:-1]))
        correction = np.zeros_like(r)
        correction[:-1] = self.unit * (self.half * y)
        return z + np.stack([factor.solve(correction[:, c]) for c, factor in enumerate(self.factors)], axis=1)

    def solve(self) -> Array:
        """Preconditioned CG to a residual of 1e-3 in the preconditioner's norm."""
        x = np.zeros_like(self.right)
        r = self.right
        z = self.precondition(r)
        p, rz = z, float((r * z).sum())
        first = rz
        for _ in range(CG_STEPS):
            if rz <= 1e-6 * first:
                break
            hp = self.product(p)
            curvature = float((p * hp).sum())
            if curvature <= 0:
                break
            alpha = rz / curvature
            x = x + alpha * p
            r = r - alpha * hp
            z = self.precondition(r)
            rz, before = float((r * z).sum()), rz
            p = z + rz / before * p

        return x

"""Any loss, sums of norms: damped Newton-CG on the non-zero groups (solver study, "the multinomial group problem").

With w a group, n = ||w||, w^ = w/n and c = -grad F, the Newton system on the non-zero groups is

    (H + (beta/n)(1 + mu) I - (beta/n - r) w^ w^') v = c - beta w^,     H = [D 1]' loss'' [D 1] / N
    r = clip((beta - c.w^) / (2 n), floor, .9 beta/n)

r is the curvature along w^ that the norm has in the variable sqrt(n); it damps steps that would carry a group through
zero. A group that shrinks by the relative step rho < 0 is scaled by (1 + rho/2)^2, to zero at rho <= -2 (retraction).
Groups that would pass zero are held there, and the others' step is solved again: else those that gain what these lose
would overshoot, and only short steps descend. `newton_system` solves it. Zero groups that violate the dual constraint
enter together by a proximal step; a cold start follows a path of falling beta.
"""

import numpy as np

from snn.bits import Indices
from solver_service.certificate import Certificate, beta_max, dual_value
from solver_service.fit import Samples
from solver_service.losses import Array
from solver_service.penalties import SumOfNorms
from solver_service.solvers.base import Overdue, Point, Stop, worst_violators
from solver_service.solvers.newton_system import Bend, Blocks, System, balanced

PATH = 0.2  # ratio of neighbouring betas on the path
PATH_GAP = 3e-2  # how well the path's inner points are solved
PATH_STEPS = 6
FIRST_WORKING_SET = 256
SMALLEST_DAMPING, LARGEST_DAMPING = 1e-6, 1e6  # mu
NEAR = 1e-3  # the relative gap below which a preconditioner serves several steps; above it 30 iterations are lost
FAR = 1e-2  # the relative gap above which the radial curvature is held up
CG_MOST, CG_LEAST = 0.03, 1e-3  # of the right side that CG leaves over: the root of the relative gap, within these
HOLDS, CROSSING = 2, -1.5  # rounds of holding, and the relative step at which a group is held at zero
ZERO = 1e-4  # a group this far below the median norm, and not held by the dual constraint, leaves


def solve(fit: Samples, penalty: SumOfNorms, beta: float, start: Point, stop: Stop) -> Point:
    """(W, b) from the warm start, or along the path where that is zero."""
    descent = _Descent(fit, penalty, stop)
    grouped = penalty.sizes(start.w).shape[1] < fit.outputs
    point = balanced(fit, start) if grouped else start
    if not start.w.any():
        step = PATH * beta_max(fit, penalty)
        while step > 3 * beta and not stop.overdue:
            point = descent.run(point, step, PATH_GAP, PATH_STEPS)
            step *= PATH
    return descent.run(point, beta, stop.relative_gap, 1000)


class _Descent:
    """Newton steps, each of them a descent; the preconditioner lasts over steps and along the path."""

    def __init__(self, fit: Samples, penalty: SumOfNorms, stop: Stop) -> None:
        self.fit, self.penalty, self.stop = fit, penalty, stop
        self.blocks: Blocks | None = None
        self.gap = np.inf  # relative, of the newest point
        self._part = fit
        self._rows: Indices = np.arange(fit.columns)

    def run(self, point: Point, beta: float, tolerance: float, steps: int) -> Point:
        """The best point, until the gap is closed or round-off ends it."""
        fit, penalty, loss = self.fit, self.penalty, self.fit.loss
        w, b = point
        offsets = fit.times(w)
        best, best_gap, damping = point, np.inf, 1.0
        for step in range(steps):
            b = loss.intercept(offsets, fit.targets, fit.share, b)
            scores = offsets + b
            ray = fit.dual_ray_at(scores)
            objective = float(fit.mean(loss.value(scores, fit.targets))) + beta * penalty.value(w)
            now = Certificate(objective, dual_value(ray, penalty, beta))
            self.gap = now.relative_gap
            if now.gap < best_gap:
                best, best_gap = Point(w, b), now.gap
            if now.relative_gap <= tolerance or self.stop.overdue:
                break
            if step == 0:
                damping = min(1.0, now.relative_gap)
            entered, offsets = self._enter(beta, w, b, offsets, ray.correlation)
            floor = 1e-3 if now.relative_gap > FAR else 1e-5
            if now.relative_gap > NEAR:
                self.blocks = None
            try:
                known = ray.correlation if entered is w and ray.correlation.any() else None
                moved, offsets, b, size = self._newton_step(beta, entered, offsets, b, known, objective, damping, floor)
            except Overdue:
                break
            if size == 0 and damping >= LARGEST_DAMPING and entered is w:
                break
            w = self._leave(moved, ray.correlation, beta)
            if w is not moved:
                offsets = offsets - fit.times(moved - w)
            damping = _next_damping(damping, size)
        return best

    def _enter(self, beta: float, w: Array, b: Array, offsets: Array, c: Array) -> tuple[Array, Array]:
        """W with the worst violators moved off zero, together and only as far as the objective falls; and D W."""
        fit, penalty = self.fit, self.penalty
        n, size = penalty.sizes(w), penalty.sizes(c)
        violation = np.where(n == 0, size, 0.0)
        limit = max(FIRST_WORKING_SET, int(n.any(axis=1).sum()))
        rows = worst_violators(violation.max(axis=1), beta, np.ones(len(w), bool), limit)
        if not len(rows):
            return w, offsets
        curvature = fit.loss.curvature * fit.frequency[rows, None]
        move = np.zeros_like(w)
        move[rows] = penalty.prox(c[rows] / curvature, beta / curvature) * (n[rows] == 0)
        offset_move = fit.times(move)
        before = float(fit.mean(fit.loss.value(offsets + b, fit.targets)))
        theta, added = 1.0 / len(rows) ** 0.5, beta * penalty.value(move)
        while theta > 1e-9:
            after = float(fit.mean(fit.loss.value(offsets + theta * offset_move + b, fit.targets)))
            if after + theta * added < before:
                return w + theta * move, offsets + theta * offset_move
            theta /= 4
        return w, offsets

    def _leave(self, w: Array, c: Array, beta: float) -> Array:
        """W without the groups that are all but zero."""
        n = self.penalty.sizes(w)
        if not n.any():
            return w
        gone = (n > 0) & (n < ZERO * np.median(n[n > 0])) & (self.penalty.sizes(c) < beta)
        return np.where(gone, 0.0, w) if gone.any() else w

    def _newton_step(
        self,
        beta: float,
        w: Array,
        offsets: Array,
        b: Array,
        c: Array | None,
        objective: float,
        damping: float,
        floor: float,
    ) -> tuple[Array, Array, Array, float]:
        """W, D W, b after one step along the Newton direction, the step's size (0: no descent)."""
        fit, penalty = self.fit, self.penalty
        rows = np.flatnonzero(w.any(axis=1))
        if not len(rows):
            return w, offsets, b, 1.0
        scores = offsets + b
        gradient = fit.share * fit.loss.gradient(scores, fit.targets)
        part = self._restricted(rows)
        if c is None:
            c = -part.transpose_times(gradient)
            objective = float(fit.mean(fit.loss.value(scores, fit.targets))) + beta * penalty.value(w)
        else:
            c = c[rows]
        bend, mass = _bend(penalty, beta, w[rows], c, damping, floor), 1e-10 * (1 + damping)
        precision = np.float32 if bend.full.shape[1] < fit.outputs else np.float64  # along w^ there is little curvature
        system = System(part, rows, scores, gradient, c, bend, mass, precision)
        share = min(CG_MOST, max(CG_LEAST, self.gap**0.5))
        direction, self.blocks = system.solve(self.blocks, self.stop, share)
        for _ in range(HOLDS):
            crossing = (_growth(penalty, w[rows], direction[:-1]) <= CROSSING) & system.bend.active
            if self.stop.overdue or not crossing.any():
                break
            direction = system.hold(direction, crossing, -w[rows], share, self.stop)
        slope = -float((system.right * direction).sum())
        direction[:-1][bend.active & ~system.bend.active] *= 2  # which the retraction takes for zero
        size = 1.0
        while size > 1e-8:
            moved = _retract(penalty, w[rows], size * direction[:-1])
            new_b, new_offsets = b + size * direction[-1], part.times(moved)
            new = float(fit.mean(fit.loss.value(new_offsets + new_b, fit.targets))) + beta * penalty.value(moved)
            if new <= objective + 1e-4 * size * slope:
                new_w = np.zeros_like(w)
                new_w[rows] = moved
                return new_w, new_offsets, new_b, size
            size /= 2
        return w, offsets, b, 0.0

    def _restricted(self, rows: Indices) -> Samples:
        """The samples with these columns, kept while they are the same."""
        if not np.array_equal(rows, self._rows):
            self._part, self._rows = self.fit.restricted(rows), rows
        return self._part


def _next_damping(damping: float, size: float) -> float:
    if size < 0.3:
        return min(damping * 5, LARGEST_DAMPING)
    return max(damping / 5, SMALLEST_DAMPING) if size == 1 else damping


def _bend(penalty: SumOfNorms, beta: float, w: Array, c: Array, damping: float, floor: float) -> Bend:
    n = penalty.sizes(w)
    safe = np.where(n > 0, n, 1.0)
    unit = w / safe
    radial = np.clip((beta - penalty.inner(c, unit)) / (2 * safe), floor * beta / safe, 0.9 * beta / safe)
    active = np.broadcast_to(n > 0, w.shape)
    return Bend(beta * unit, beta / safe * (1 + damping), beta / safe - radial, unit, penalty.inner, active)


def _growth(penalty: SumOfNorms, w: Array, step: Array) -> Array:
    """rho: the relative change of the groups' norms."""
    n2 = penalty.inner(w, w)
    return np.asarray(penalty.inner(w, step) / np.where(n2 > 0, n2, 1.0))


def _retract(penalty: SumOfNorms, w: Array, step: Array) -> Array:
    """w + step, but a shrinking group stops at zero instead of passing it."""
    n2, rho = penalty.inner(w, w), _growth(penalty, w, step)
    along = rho * w
    scale = np.square(np.maximum(0.0, 1 + rho / 2))
    scale = np.where(rho <= -1.99, 0.0, scale)
    return np.asarray(np.where(n2 > 0, np.where(rho < 0, (w + step - along) * scale, w + step), 0.0))

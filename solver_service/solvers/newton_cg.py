"""Any loss, sums of norms: damped Newton-CG on the non-zero groups (solver study, "the multinomial group problem").

With w a group, n = ||w||, w^ = w/n and c = -grad F, the Newton system on the non-zero groups is

    (H + (beta/n)((1 + mu) I - w^ w^')) v = c - beta w^,     H = [D 1]' loss'' [D 1] / N

and `newton_system` solves it. Groups that would pass zero are held there, and the others' step is solved again: else
those that gain what these lose would overshoot, and only short steps descend. Zero groups that violate the dual
constraint enter together by a proximal step. From zero as from a warm start it goes straight to the last beta.
"""

import numpy as np

from snn.bits import Indices
from solver_service.certificate import Certificate, dual_value
from solver_service.fit import Samples
from solver_service.losses import Array
from solver_service.penalties import SumOfNorms
from solver_service.solvers.base import Overdue, Point, Stall, Stop, slack, worst_violators
from solver_service.solvers.newton_system import Bend, Blocks, System, balanced

NEWTON_STEPS = 1000
FIRST_WORKING_SET = 256
SMALLEST_DAMPING, LARGEST_DAMPING = 1e-6, 1e6  # mu; at first the relative gap's square
FLAT = 1e-6  # of beta/n: the curvature along w^ that keeps the system definite
NEAR = 1e-3  # the relative gap below which a preconditioner serves several steps; above it 30 iterations are lost
CG_MOST, CG_LEAST = 0.03, 1e-3  # of the right side that CG leaves over: the root of the relative gap, within these
HOLDS = 2  # rounds of holding
ZERO = 1e-4  # a group this far below the median norm, and not held by the dual constraint, leaves


def solve(fit: Samples, penalty: SumOfNorms, beta: float, start: Point, stop: Stop) -> Point:
    """(W, b) from the warm start."""
    grouped = penalty.sizes(start.w).shape[1] < fit.outputs
    return _Descent(fit, penalty, beta, stop).run(balanced(fit, start) if grouped else start)


class _Descent:
    """Newton steps, each of them a descent; the preconditioner lasts over steps."""

    def __init__(self, fit: Samples, penalty: SumOfNorms, beta: float, stop: Stop) -> None:
        self.fit, self.penalty, self.beta, self.stop = fit, penalty, beta, stop
        self.blocks: Blocks | None = None
        self.gap = np.inf  # relative, of the newest point
        self._part = fit
        self._rows: Indices = np.arange(fit.columns)

    def run(self, point: Point) -> Point:
        """The best point, until the gap is closed or round-off ends it."""
        fit, penalty, beta, loss = self.fit, self.penalty, self.beta, self.fit.loss
        w, b = point
        offsets = fit.times(w)
        best, best_gap, damping, stall = point, np.inf, 1.0, Stall()
        for step in range(NEWTON_STEPS):
            b = loss.intercept(offsets, fit.targets, fit.share, b)
            scores = offsets + b
            ray = fit.dual_ray_at(scores)
            objective = float(fit.mean(loss.value(scores, fit.targets))) + beta * penalty.value(w)
            now = Certificate(objective, dual_value(ray, penalty, beta))
            self.gap = now.relative_gap
            if now.gap < best_gap:
                best, best_gap = Point(w, b), now.gap
            if self.stop.reached(now.relative_gap) or stall.ended(objective, now.gap):
                break
            if step == 0:
                damping = min(1.0, now.relative_gap) ** 2
            entered, offsets = self._enter(w, b, offsets, ray.correlation)
            if now.relative_gap > NEAR:
                self.blocks = None
            try:
                known = ray.correlation if entered is w and ray.correlation.any() else None
                moved, offsets, b, size = self._newton_step(entered, offsets, b, known, objective, damping)
            except Overdue:
                break
            if size == 0 and damping >= LARGEST_DAMPING and entered is w:
                break
            w = self._leave(moved, ray.correlation)
            if w is not moved:
                offsets = offsets - fit.times(moved - w)
            damping = _next_damping(damping, size)
        return best

    def _enter(self, w: Array, b: Array, offsets: Array, c: Array) -> tuple[Array, Array]:
        """W with the worst violators moved off zero, together and only as far as the objective falls; and D W."""
        fit, penalty, beta = self.fit, self.penalty, self.beta
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

    def _leave(self, w: Array, c: Array) -> Array:
        """W without the groups that are all but zero."""
        n = self.penalty.sizes(w)
        if not n.any():
            return w
        gone = (n > 0) & (n < ZERO * np.median(n[n > 0])) & (self.penalty.sizes(c) < self.beta)
        return np.where(gone, 0.0, w) if gone.any() else w

    def _newton_step(
        self, w: Array, offsets: Array, b: Array, c: Array | None, objective: float, damping: float
    ) -> tuple[Array, Array, Array, float]:
        """W, D W, b after one step along the Newton direction, the step's size (0: no descent)."""
        fit, penalty, beta = self.fit, self.penalty, self.beta
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
        bend, mass = _bend(penalty, beta, w[rows], damping), 1e-10 * (1 + damping)
        precision = np.float32 if bend.full.shape[1] < fit.outputs else np.float64  # along w^ there is little curvature
        system = System(part, rows, scores, gradient, c, bend, mass, precision)
        share = min(CG_MOST, max(CG_LEAST, self.gap**0.5))
        direction, self.blocks = system.solve(self.blocks, self.stop, share)
        for _ in range(HOLDS):
            crossing = (_growth(penalty, w[rows], direction[:-1]) <= -1) & system.bend.active
            if self.stop.overdue or not crossing.any():
                break
            direction = system.hold(direction, crossing, -w[rows], share, self.stop)
        slope = -float((system.right * direction).sum())
        size = 1.0
        while size > 1e-8:
            moved = _stopped(penalty, w[rows], size * direction[:-1])
            new_b, new_offsets = b + size * direction[-1], part.times(moved)
            new = float(fit.mean(fit.loss.value(new_offsets + new_b, fit.targets))) + beta * penalty.value(moved)
            if new <= objective + 1e-4 * size * slope + slack(objective):
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


def _bend(penalty: SumOfNorms, beta: float, w: Array, damping: float) -> Bend:
    n = penalty.sizes(w)
    safe = np.where(n > 0, n, 1.0)
    unit = w / safe
    active = np.broadcast_to(n > 0, w.shape)
    return Bend(beta * unit, beta / safe * (1 + damping), beta / safe * (1 - FLAT), unit, penalty.inner, active)


def _growth(penalty: SumOfNorms, w: Array, step: Array) -> Array:
    """rho: the relative change of the groups' norms."""
    n2 = penalty.inner(w, w)
    return np.asarray(penalty.inner(w, step) / np.where(n2 > 0, n2, 1.0))


def _stopped(penalty: SumOfNorms, w: Array, step: Array) -> Array:
    """w + step, but groups stop at zero instead of passing it, and those at zero stay."""
    return np.asarray(np.where((penalty.sizes(w) > 0) & (_growth(penalty, w, step) > -1), w + step, 0.0))

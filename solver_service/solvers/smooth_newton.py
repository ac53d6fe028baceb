"""Any loss, ridge or no penalty: damped Newton-CG on all coefficients.

    (H + (beta + mu) I) v = c - beta W,   c = -grad F,   H as in `newton_system`

Armijo's rule on the objective guards the step, and mu follows its size. Without a penalty independent columns are
picked and the others get no coefficient. The objective may then fall without end (separable data); the certificate
says how far it still can.
"""

import numpy as np

from solver_service.certificate import Certificate, dual_value
from solver_service.fit import Samples
from solver_service.linear_algebra import independent
from solver_service.losses import Array
from solver_service.penalties import Penalty
from solver_service.solvers.base import Overdue, Point, Stall, Stop, slack
from solver_service.solvers.newton_system import Bend, Blocks, System, balanced

SMALLEST_DAMPING, LARGEST_DAMPING = 1e-12, 1e3  # mu over the loss's curvature
NEWTON_STEPS = 1000
SMALLEST_STEP = 1e-8


def solve(fit: Samples, penalty: Penalty, beta: float, start: Point, stop: Stop) -> Point:
    """The best (W, b) on the way from the warm start; beta = 0 where there is no penalty."""
    if beta:
        return _descend(fit, penalty, beta, start, stop)
    chosen = np.sort(independent(fit.moments().curvature)[0])
    w, b = _descend(fit.restricted(chosen), penalty, beta, Point(start.w[chosen], start.b), stop)
    whole = np.zeros_like(start.w)
    whole[chosen] = w
    return Point(whole, b)


def _descend(fit: Samples, penalty: Penalty, beta: float, start: Point, stop: Stop) -> Point:
    loss, rows = fit.loss, np.arange(fit.columns)
    w, b = balanced(fit, start)
    offsets, damping, size = fit.times(w), SMALLEST_DAMPING, 1.0
    best, best_gap, stall = start, np.inf, Stall()
    blocks: Blocks | None = None
    for _ in range(NEWTON_STEPS):
        b = loss.intercept(offsets, fit.targets, fit.share, b)
        scores = offsets + b
        ray = fit.dual_ray_at(scores)
        objective = float(fit.mean(loss.value(scores, fit.targets))) + beta * penalty.value(w)
        now = Certificate(objective, dual_value(ray, penalty, beta))
        if now.gap < best_gap:
            best, best_gap = Point(w, b), now.gap
        if stop.reached(now.relative_gap) or stall.ended(objective, now.gap):
            break
        gradient = fit.share * loss.gradient(scores, fit.targets)
        bend = _bend(w, beta, damping * loss.curvature)
        system = System(fit, rows, scores, gradient, ray.correlation, bend, 1e-10, np.float64)
        try:
            direction, blocks = system.solve(blocks, stop)
        except Overdue:
            break
        slope = -float((system.right * direction).sum())
        offset_step = fit.times(direction[:-1])
        size = 1.0
        while True:
            new = scores + size * (offset_step + direction[-1])
            new_w = w + size * direction[:-1]
            value = float(fit.mean(loss.value(new, fit.targets))) + beta * penalty.value(new_w)
            if value <= objective + 1e-4 * size * slope + slack(objective):
                break
            size /= 2
            if size < SMALLEST_STEP:
                size = 0.0
                break
        w, b, offsets = w + size * direction[:-1], b + size * direction[-1], offsets + size * offset_step
        if size < 0.3:
            damping = min(damping * 10, LARGEST_DAMPING)
        elif size == 1:
            damping = max(damping / 10, SMALLEST_DAMPING)
    return best


def _bend(w: Array, beta: float, damping: float) -> Bend:
    ones = np.ones((len(w), 1))
    nothing = 0 * ones
    return Bend(
        beta * w, (beta + damping) * ones, nothing, np.zeros_like(w), lambda u, v: nothing, np.ones(w.shape, bool)
    )

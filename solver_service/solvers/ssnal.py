"""Squared loss and L1: semismooth Newton on proximal points, in Gram space (Li, Sun and Toh 2018, "A highly efficient
semismooth Newton augmented Lagrangian method for solving Lasso problems"; solver study, "SSNAL").

For one output, with the moments H and b of `Moments`, the problem is  min over w:  w'Hw/2 - b'w + beta |w|_1.  The
proximal problem around a centre w adds ||v - w||^2 / (2 sigma); its dual is smooth in v:

    phi(v) = v'Hv/2 + ||w+||^2 / (2 sigma),   w+ = soft(u, sigma beta),   u = w + sigma (b - Hv)
    grad phi = H (v - w+)

On the active set J = {|u| > sigma beta} a Newton step leads to the v with

    v = 0 off J,   (H_JJ + I/sigma) v_J = b_J - beta sign(u_J) + w_J/sigma

and a line search on phi guards it. Where v = w+, that is the proximal point, the next centre. Nothing depends on the
number of rows. It runs on a working set: the support and the worst violators, at most doubling. Neighbouring active
sets share one factorisation (`ActiveSetFactor`). Several outputs are solved each by itself.
"""

from typing import NamedTuple

import numpy as np

from solver_service.certificate import Certificate, certify, dual_value
from solver_service.fit import Moments
from solver_service.linear_algebra import ActiveSetFactor
from solver_service.losses import Array
from solver_service.penalties import NORMS
from solver_service.solvers.base import Overdue, Point, Stop, worst_violators

L1 = NORMS["l1"]
FIRST_WORKING_SET = 64
SMALLEST_SHARE = 1e-13  # round-off of a gap
FIRST_SIGMA, LARGEST_SIGMA = 1e3, 1e6  # over the mean diagonal of H; from far away a larger one needs tiny steps
PROXIMAL_STEPS = 50  # per working set; 1 to 3 are usual
NEWTON_STEPS = 50  # per proximal point; 3 to 10 are usual
EASIER = 0.1  # a working set is solved to this share of the gap over all columns
SMALLEST_STEP = 1e-6  # of a Newton direction
INEXACT = 1e-2  # a proximal point is found when it moves by less than this share of its way from the centre


def solve(fit: Moments, beta: float, start: Array, stop: Stop) -> Point:
    """(W, b) from the warm start `start` [P, C]."""
    w, share = start, stop
    while True:  # the outputs share one dual scale, so each may have to be better than its share
        share = share._replace(relative_gap=share.relative_gap / (fit.outputs if share is stop else 10))
        w = np.stack([_working_sets(fit.output(c), beta, w[:, c], share) for c in range(fit.outputs)], axis=1)
        if fit.outputs == 1 or share.relative_gap < SMALLEST_SHARE or stop.overdue:
            break
        if certify(fit, L1, beta, w, fit.intercept(w)).relative_gap <= stop.relative_gap:
            break
    return Point(w, fit.intercept(w))


def _working_sets(fit: Moments, beta: float, start: Array, stop: Stop) -> Array:
    w = start[:, None]
    before = Certificate(np.inf, -np.inf)
    while True:
        ray = fit.dual_ray(w)
        primal = fit.value(w, fit.intercept(w)) + beta * L1.value(w)
        now = Certificate(primal, dual_value(ray, L1, beta))
        if stop.reached(now.relative_gap):
            break
        if now.primal >= before.primal and now.gap >= before.gap:  # round-off
            break
        support = w.any(axis=1)
        limit = max(FIRST_WORKING_SET, int(support.sum()))
        entering = worst_violators(L1.dual_norms(ray.correlation), beta, ~support, limit)
        inside = np.sort(np.concatenate([np.flatnonzero(support), entering]))
        target = max(stop.relative_gap / 2, EASIER * now.relative_gap) * max(1.0, abs(primal))
        problem = Quadratic(fit.curvature[np.ix_(inside, inside)], fit.correlation[inside, 0], beta, fit.variance)
        better = proximal_points(problem, w[inside, 0], target, stop)
        w = np.zeros_like(w)
        w[inside, 0], before = better, now
    return w[:, 0]


class Quadratic(NamedTuple):
    """min over w:  variance/2 + w'Hw/2 - b'w + beta |w|_1, where variance/2 keeps the objective at or above zero."""

    h: Array
    b: Array
    beta: float
    variance: float

    def gap(self, w: Array, hw: Array) -> float:
        """Primal minus dual at w, with hw = Hw."""
        residual = self.b - hw
        along = self.variance - float(w @ self.b)
        energy = max(0.0, along - float(w @ residual))
        s = min(self.beta / float(np.abs(residual).max()), along / energy if energy > 0 else 1.0)
        return energy / 2 + self.beta * float(np.abs(w).sum()) - (s * along - s * s * energy / 2)


def proximal_points(problem: Quadratic, w: Array, target: float, stop: Stop) -> Array:
    """The best w seen on the way to a gap of `target`."""
    unit = float(problem.h.trace()) / len(w) or 1.0
    sigma = FIRST_SIGMA / unit
    hw = problem.h @ w
    gap = problem.gap(w, hw)
    best, best_gap = w, gap
    factor = ActiveSetFactor(problem.h, 1 / sigma, stop.check)
    for _ in range(PROXIMAL_STEPS):
        if gap <= target or stop.overdue:
            break
        try:
            w, hw = _proximal_point(problem, sigma, factor, w, hw, stop)
        except Overdue:
            break
        before, gap = gap, problem.gap(w, hw)
        if gap < best_gap:
            best, best_gap = w, gap
        elif sigma * unit >= LARGEST_SIGMA:
            break
        if gap > before / 10:
            sigma = min(10 * sigma, LARGEST_SIGMA / unit)
            factor = ActiveSetFactor(problem.h, 1 / sigma, stop.check)
    return best


def _proximal_point(
    problem: Quadratic, sigma: float, factor: ActiveSetFactor, w: Array, hw: Array, stop: Stop
) -> tuple[Array, Array]:
    """The proximal point w+ of w and H w+."""
    h, b, beta, _ = problem
    v, hv, u = w, hw, w + sigma * (b - hw)
    new = _soft(u, sigma * beta)
    for _ in range(NEWTON_STEPS):
        if float(np.abs(new - v).max()) <= INEXACT * float(np.abs(new - w).max()) or stop.overdue:
            break
        active = np.flatnonzero(new)
        step = -v
        step[active] += factor.solve(active, b[active] - beta * np.sign(u[active]) + w[active] / sigma)
        h_step = h @ step
        size = _line_search(v, hv, step, h_step, u, sigma, beta)
        v, hv, u = v + size * step, hv + size * h_step, u - size * sigma * h_step
        new = _soft(u, sigma * beta)
        if size < SMALLEST_STEP:
            break
    return new, h @ new


def _line_search(v: Array, hv: Array, step: Array, h_step: Array, u: Array, sigma: float, beta: float) -> float:
    """A size in (0, 1] of the step, along which phi is convex: 1 where it falls all the way, else near its least."""
    linear, quadratic = float(step @ hv), float(step @ h_step)

    def slope(size: float) -> float:
        return linear + size * quadratic - float(_soft(u - size * sigma * h_step, sigma * beta) @ h_step)

    low, high, first = 0.0, 1.0, -slope(0.0)
    if slope(1.0) <= first * 0.1:
        return 1.0
    for _ in range(20):
        middle = (low + high) / 2
        at = slope(middle)
        if abs(at) <= 0.1 * first:
            return middle
        low, high = (middle, high) if at < 0 else (low, middle)
    return low


def _soft(u: Array, threshold: float) -> Array:
    return u - np.clip(u, -threshold, threshold)

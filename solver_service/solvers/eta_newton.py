"""Squared loss and group penalty: projected Newton on the variational form of the norm (solver study, "eta-Newton").

    ||W_j|| = min over eta_j >= 0 of (||W_j||^2 / eta_j + eta_j) / 2, so with the moments H and B of `Moments`

    f(eta)  = beta/2 sum_j eta_j - 1/2 <B, W>,   W = E^1/2 S E^1/2 B,   S = (beta I + E^1/2 H E^1/2)^-1,   E = diag(eta)
    grad_j  = (beta/2) (1 - ||C_j||^2 / beta^2),                        C = B - H W
    Hessian = (C C') o M / beta^2,                                   M = H - H E^1/2 S E^1/2 H

f is convex and smooth on eta >= 0, columns enter and leave through the bound, and one factor serves all outputs. It
runs on a working set: the support and the worst violators, at most doubling.
"""

import numpy as np

from snn.bits import Indices
from solver_service.certificate import Certificate, dual_value
from solver_service.fit import Moments
from solver_service.linear_algebra import Cholesky, damped_cholesky
from solver_service.losses import Array
from solver_service.penalties import NORMS
from solver_service.solvers.base import Overdue, Point, Stop, worst_violators

FIRST_WORKING_SET = 64
NEWTON_STEPS = 30  # per working set; 3 to 5 are usual
REWEIGHTINGS = 2  # eta = ||W||, before Newton, where much of the working set is new
WARM = 0.9  # share of the working set that has coefficients already
FIRST_DAMPING, LARGEST_DAMPING = 1e-3, 1e3  # Levenberg-Marquardt; without it N < P gives steps of 1e9


def solve(fit: Moments, beta: float, start: Array, stop: Stop) -> Point:
    """(W, b) from the warm start `start` [P, C]."""
    w = _working_sets(fit, beta, start, stop)
    return Point(w, fit.intercept(w))


def _working_sets(fit: Moments, beta: float, w: Array, stop: Stop) -> Array:
    group = NORMS["group"]
    while True:
        ray = fit.dual_ray(w)
        primal = fit.value(w, fit.intercept(w)) + beta * group.value(w)
        gap = Certificate(primal, dual_value(ray, group, beta)).relative_gap
        norms = group.dual_norms(ray.correlation)
        support = w.any(axis=1)
        entering = worst_violators(norms, beta, ~support, max(FIRST_WORKING_SET, int(support.sum())))
        if stop.reached(gap):
            return w
        inside = np.sort(np.concatenate([np.flatnonzero(support), entering]))
        target = max(stop.relative_gap / 2, gap / 30) * max(1.0, abs(primal))
        better = _newton(_Restricted(fit, inside, beta, stop), w[inside], target)
        w = np.zeros_like(w)
        w[inside] = better


class _Restricted:
    """The problem on a working set: f, and at a point eta all that a Newton step needs."""

    def __init__(self, fit: Moments, inside: np.ndarray, beta: float, stop: Stop) -> None:
        self.h: Array = fit.curvature[np.ix_(inside, inside)]
        self.target: Array = fit.correlation[inside]
        self.variance = fit.variance
        self.beta, self.stop = beta, stop

    def at(self, eta: Array) -> "_Iterate":
        return _Iterate(self, eta)


class _Iterate:
    def __init__(self, problem: _Restricted, eta: Array) -> None:
        self.problem, self.eta = problem, eta
        self.used = np.flatnonzero(eta > 0)
        self.root = np.sqrt(eta[self.used])
        h_used = problem.h[self.used]
        k = h_used[:, self.used] * np.outer(self.root, self.root)
        k[np.diag_indices_from(k)] += problem.beta
        self.factor: Cholesky = damped_cholesky(k, problem.stop.check)
        target = self.root[:, None] * problem.target[self.used]
        self.w = np.zeros_like(problem.target)
        self.w[self.used] = self.root[:, None] * self.factor.solve(target)
        self.value = problem.beta / 2 * float(eta.sum()) - float((problem.target * self.w).sum()) / 2
        self.residual: Array = problem.target - h_used.T @ self.w[self.used]

    @property
    def gradient(self) -> Array:
        beta = self.problem.beta
        return np.asarray(beta / 2 * (1 - np.square(self.residual).sum(axis=1) / beta**2))

    @property
    def gap(self) -> float:
        """Primal minus dual on the working set."""
        p = self.problem
        along = p.variance - float((self.w * p.target).sum())
        energy = max(0.0, along - float((self.w * self.residual).sum()))
        norms = np.sqrt(np.square(self.residual).sum(axis=1))
        s = min(p.beta / float(norms.max()), along / energy if energy > 0 else 1.0)
        primal = energy / 2 + p.beta * float(np.sqrt(np.square(self.w).sum(axis=1)).sum())
        return primal - (s * along - s * s * energy / 2)

    def newton_direction(self, damping: float) -> Array:
        """`damping` is relative to the curvature beta / (2 eta) that the penalty alone would have."""
        gradient, p = self.gradient, self.problem
        tiny = 1e-9 * float(self.eta.mean())
        free = np.flatnonzero((self.eta > tiny) | (gradient < 0))
        hessian = self._curvature(free) * (self.residual[free] @ (self.residual[free].T / p.beta**2))
        floor = 1e-3 * float(self.eta.mean())  # also for the zeros that enter
        hessian[np.diag_indices_from(hessian)] += damping * p.beta / (2 * np.maximum(self.eta[free], floor))
        direction = -self.eta  # what is not free goes to zero
        direction[free] = -damped_cholesky(hessian, p.stop.check).solve(gradient[free])
        return direction

    def _curvature(self, free: Indices) -> Array:
        """M over some columns; where eta > 0 it is beta E^-1/2 (I - beta S) E^-1/2."""
        beta, h, root, inverse = (
            self.problem.beta,
            self.problem.h,
            self.root,
            self.factor.inverse(self.problem.stop.check),
        )
        inside, zero = np.flatnonzero(self.eta[free]), np.flatnonzero(self.eta[free] == 0)
        at = np.searchsorted(self.used, free[inside])
        block = -beta * inverse[np.ix_(at, at)]
        block[np.diag_indices_from(block)] += 1
        block *= np.outer(beta / root[at], 1 / root[at])
        if not len(zero):
            return block
        m = np.empty((len(free), len(free)))
        m[np.ix_(inside, inside)] = block
        across = (h[np.ix_(free[zero], self.used)] * root) @ inverse
        m[np.ix_(zero, inside)] = beta * across[:, at] / root[at]
        m[np.ix_(inside, zero)] = m[np.ix_(zero, inside)].T
        m[np.ix_(zero, zero)] = h[np.ix_(free[zero], free[zero])] - (across * root) @ h[np.ix_(self.used, free[zero])]
        return m


def _newton(problem: _Restricted, w: Array, target: float) -> Array:
    """W on the working set with gap at most `target`, or as far as NEWTON_STEPS or the deadline let it go."""
    warm = float(np.mean(w.any(axis=1))) > WARM
    try:
        at, damping = problem.at(_first_eta(problem, w)), FIRST_DAMPING
        w = at.w
        for step in range(NEWTON_STEPS):
            if at.gap <= target:
                break
            problem.stop.check()
            new = None
            if warm or step >= REWEIGHTINGS:
                new, damping = _line_search(at, damping)
            at = new or problem.at(np.sqrt(np.square(at.w).sum(axis=1)))  # reweighting: always descends
            w = at.w
    except Overdue:
        pass
    return w


def _first_eta(problem: _Restricted, w: Array) -> Array:
    """The norms of W; for new columns what each would take alone, shared among them."""
    eta = np.sqrt(np.square(w).sum(axis=1))
    new = eta == 0
    residual = problem.target - problem.h @ w
    excess = np.sqrt(np.square(residual).sum(axis=1)) - problem.beta
    alone = np.maximum(excess, 0.0) / np.diag(problem.h).clip(1e-300)
    eta[new] = alone[new] / max(1, int(new.sum())) ** 0.5
    return eta


def _line_search(at: _Iterate, damping: float) -> tuple[_Iterate | None, float]:
    """The next point and damping; no point where round-off hides the descent."""
    gradient = at.gradient
    while damping < LARGEST_DAMPING:
        direction = at.newton_direction(damping)
        for size in (1.0, 0.5, 0.25):
            eta = np.maximum(0.0, at.eta + size * direction)
            new = at.problem.at(eta)
            if new.value <= at.value + 1e-4 * float(gradient @ (eta - at.eta)):
                return new, damping / 10 if size == 1.0 else damping
        damping *= 100
    return None, FIRST_DAMPING

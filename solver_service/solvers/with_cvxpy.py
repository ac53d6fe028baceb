"""The whole problem as cvxpy states it, solved by Clarabel's interior point: the tests' oracle, and a backend.

min over (W, b):  sum_i s_i loss(D_i W + b, y_i)  +  beta penalty(W)

Of `Moments` it states the squared loss at the best intercept, -<B, W> + <W, H W> / 2.
"""

import cvxpy as cp
import numpy as np

from solver_service.fit import Moments, Samples
from solver_service.losses import Array, Heads, Loss
from solver_service.penalties import Penalty
from solver_service.solvers.base import Point


def solve(fit: Moments | Samples, penalty: Penalty, beta: float) -> Point:
    """(W, b) to Clarabel's tolerance. Meant for small problems: a minute and gigabytes at N * C of some 10,000."""
    w, b = cp.Variable((fit.columns, fit.outputs)), cp.Variable((1, fit.outputs))
    loss = _mean_loss(fit, w, b) if isinstance(fit, Samples) else _quadratic(fit, w)
    term = {
        "l1": lambda: cp.sum(cp.abs(w)),
        "group": lambda: cp.sum(cp.norm(w, 2, axis=1)),
        "ridge": lambda: cp.sum_squares(w) / 2,
        "none": lambda: cp.Constant(0.0),
    }[penalty.name]()
    problem = cp.Problem(cp.Minimize(loss + beta * term))
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return Point(np.asarray(w.value), np.asarray(b.value)[0] if isinstance(fit, Samples) else fit.intercept(w.value))


def _quadratic(fit: Moments, w: cp.Variable) -> cp.Expression:
    values, vectors = np.linalg.eigh(fit.curvature)
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    return cp.sum_squares(root @ w) / 2 - cp.sum(cp.multiply(fit.correlation, w))


def _mean_loss(fit: Samples, w: cp.Variable, b: cp.Variable) -> cp.Expression:
    z = fit.spikes.dense() @ w + np.ones((fit.rows, 1)) @ b
    return _stated(fit.loss, z, fit.targets, fit.share[:, 0])


def _stated(loss: Loss, z: cp.Expression, targets: Array, shares: Array) -> cp.Expression:
    if isinstance(loss, Heads):
        return sum(_stated(of, z[:, at], targets[:, at], shares) for of, at in loss.heads)
    share = np.broadcast_to(shares[:, None], targets.shape)
    losses = {
        "squared": lambda: cp.sum_squares(cp.multiply(np.sqrt(share), z - targets)) / 2,
        "logistic": lambda: cp.sum(cp.multiply(share, cp.logistic(z) - cp.multiply(targets, z))),
        "multinomial": lambda: share[:, 0] @ (cp.log_sum_exp(z, axis=1) - cp.sum(cp.multiply(targets, z), axis=1)),
    }
    return losses[loss.name]()

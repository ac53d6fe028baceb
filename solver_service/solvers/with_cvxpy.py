"""The whole problem as cvxpy states it, solved by Clarabel's interior point: the tests' oracle, and a backend.

min over (W, b):  (1/N) sum_i loss(D_i W + b, y_i)  +  beta sum_g ||W_g||_2
"""

import cvxpy as cp
import numpy as np

from solver_service.fit import Samples
from solver_service.penalties import Penalty
from solver_service.solvers.base import Point


def solve(fit: Samples, penalty: Penalty, beta: float) -> Point:
    """(W, b) to Clarabel's tolerance. Meant for small problems: a minute and gigabytes at N * C of some 10,000."""
    w, b = cp.Variable((fit.columns, fit.outputs)), cp.Variable((1, fit.outputs))
    z = fit.spikes @ w + np.ones((fit.rows, 1)) @ b
    loss = {
        "squared": lambda: cp.sum_squares(z - fit.targets) / 2,
        "logistic": lambda: cp.sum(cp.logistic(z) - cp.multiply(fit.targets, z)),
        "multinomial": lambda: cp.sum(cp.log_sum_exp(z, axis=1)) - cp.sum(cp.multiply(fit.targets, z)),
    }[fit.loss.name]()
    norms = cp.norm(w, 2, axis=1) if penalty.name == "group" else cp.abs(w)
    problem = cp.Problem(cp.Minimize(loss / fit.rows + beta * cp.sum(norms)))
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return Point(np.asarray(w.value), np.asarray(b.value)[0])

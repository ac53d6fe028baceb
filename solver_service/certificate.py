"""The certificate: a truly feasible dual point and the gap it proves (design, section 2.4; solver study, "dual point").

    primal(W, b) = F(W, b) + beta penalty(W)
    dual(s)      = -(1/N) sum_i conjugate(s g_i, y_i),   g the loss gradient at (W, b(W))
    feasible     : sum_i g_i = 0 (b(W) is the best intercept) and s ||D_j'g||/N <= beta for every column j
    relative gap = (primal - dual) / max(1, |primal|)

Weak duality makes dual(s) a lower bound of every primal value, so the gap bounds the distance to the optimum.
"""

from typing import NamedTuple

import numpy as np

from solver_service.fit import DualRay, Fit
from solver_service.losses import Array
from solver_service.penalties import Penalty, dual_norms, value

# beta_max below this is round-off: no column says anything about the target, and W = 0 is optimal for every beta
SMALLEST_BETA_MAX = 1e-12


class Certificate(NamedTuple):
    primal: float
    dual: float

    @property
    def gap(self) -> float:
        return self.primal - self.dual

    @property
    def relative_gap(self) -> float:
        return self.gap / max(1.0, abs(self.primal))


def beta_max(fit: Fit, penalty: Penalty) -> float:
    """The smallest beta whose readout has no coefficients, or SMALLEST_BETA_MAX where that is round-off."""
    correlation = fit.dual_ray(np.zeros((fit.columns, fit.outputs))).correlation
    return max(SMALLEST_BETA_MAX, float(dual_norms(penalty, correlation).max(initial=0.0)))


def dual_value(ray: DualRay, penalty: Penalty, beta: float) -> float:
    """The best dual value on the feasible part of the ray."""
    largest = float(dual_norms(penalty, ray.correlation).max(initial=0.0))
    feasible = beta / largest if largest > 0 else np.inf
    return ray.value(max(0.0, min(feasible, ray.best_scale)))


def certify(fit: Fit, penalty: Penalty, beta: float, w: Array, b: Array) -> Certificate:
    """Certificate of (W, b); b need not be the best intercept."""
    primal = fit.value(w, b) + beta * value(penalty, w)
    return Certificate(primal, dual_value(fit.dual_ray(w, b), penalty, beta))

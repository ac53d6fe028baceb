"""The certificate: a truly feasible dual point and the gap it proves (design, section 2.4; solver study, "dual point").

    primal(W, b) = F(W, b) + beta penalty(W)
    dual(s)      = -(1/N) sum_i conjugate(s g_i, y_i) - penalty's conjugate(s C),   C = -D'g/N
    feasible     : sum_i g_i = 0 (b(W) is the best intercept) and s C inside the penalty's dual ball,
                   g the loss gradient at (W, b(W)); sums of norms: s ||C_j|| <= beta for every column j
    relative gap = (primal - dual) / max(1, |primal|)

Weak duality makes dual(s) a lower bound of every primal value, so the gap bounds the distance to the optimum.
"""

from typing import NamedTuple

import numpy as np

from solver_service.fit import DualRay, Fit
from solver_service.losses import Array
from solver_service.penalties import Penalty, SumOfNorms

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
    """The scale of beta, or SMALLEST_BETA_MAX where that is round-off.

    Sums of norms: the smallest beta whose readout has no coefficients. Ridge and none: the loss's curvature times the
    largest variance of a column, where a column on its own keeps half of its coefficient.
    """
    if isinstance(penalty, SumOfNorms):
        correlation = fit.dual_ray(np.zeros((fit.columns, fit.outputs))).correlation
        return max(SMALLEST_BETA_MAX, float(penalty.dual_norms(correlation).max(initial=0.0)))
    variance = fit.frequency * (1 - fit.frequency)
    return max(SMALLEST_BETA_MAX, fit.loss.curvature * float(variance.max(initial=0.0)))


def dual_value(ray: DualRay, penalty: Penalty, beta: float) -> float:
    """The best dual value at three points of the feasible part of the ray; s = 1 is the optimum's."""
    feasible = penalty.largest_scale(ray.correlation, beta)
    scales = {max(0.0, min(feasible, s)) for s in (0.0, 1.0, ray.best_scale)}
    return max(ray.value(s) - penalty.conjugate(s * ray.correlation, beta) for s in scales)


def certify(fit: Fit, penalty: Penalty, beta: float, w: Array, b: Array) -> Certificate:
    """Certificate of (W, b); b need not be the best intercept."""
    primal = fit.value(w, b) + beta * penalty.value(w)
    return Certificate(primal, dual_value(fit.dual_ray(w, b), penalty, beta))

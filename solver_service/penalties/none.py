"""None: penalty(W) = 0 in the ball ||W|| <= RADIUS and infinite outside,  conjugate(C) = RADIUS ||C||.

Without a bound the dual point would have to solve D'g = 0 exactly, which no floating-point residual does, and with
separable data there is no optimum at all. In the ball every dual point is feasible and there is always an optimum.
"""

import numpy as np

from solver_service.losses.base import Array

RADIUS = 1e4  # D'g has a round-off of about 1e-16 sqrt(P), so it costs the gap some 1e-11


class NoPenalty:
    name = "none"

    def value(self, w: Array) -> float:
        return 0.0 if float(np.linalg.norm(w)) <= RADIUS else np.inf

    def prox(self, w: Array, step: Array | float) -> Array:
        return w * min(1.0, RADIUS / max(float(np.linalg.norm(w)), RADIUS))

    def largest_scale(self, c: Array, beta: float) -> float:
        return np.inf

    def conjugate(self, c: Array, beta: float) -> float:
        return RADIUS * float(np.linalg.norm(c))

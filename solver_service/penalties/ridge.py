"""Ridge: penalty(W) = ||W||^2 / 2,  conjugate(C) = ||C||^2 / (2 beta). Every dual point is feasible; W is dense."""

import numpy as np

from solver_service.losses.base import Array


class Ridge:
    name = "ridge"

    def value(self, w: Array) -> float:
        return float(np.square(w).sum()) / 2

    def prox(self, w: Array, step: Array | float) -> Array:
        return np.asarray(w / (1.0 + step))

    def largest_scale(self, c: Array, beta: float) -> float:
        return np.inf

    def conjugate(self, c: Array, beta: float) -> float:
        return float(np.square(c).sum()) / (2 * beta)

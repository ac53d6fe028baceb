"""What a loss is to a solver. Convex in the scores; the objective averages it over samples (design, section 2.4).

    primal:   (1/N) sum_i loss(z_i, y_i),        z_i = D_i W + b
    dual:    -(1/N) sum_i conjugate(q_i, y_i),   q_i = gradient(z_i, y_i) at the optimum

Scores z, targets y and dual points q are float64 [N, C]. Targets are one-hot rows for classes (one 0/1 column for the
logistic loss) and the values themselves for a regression.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Loss(Protocol):
    name: str
    curvature: float
    """Upper bound of the Hessian's eigenvalues at any sample."""

    def value(self, scores: Array, targets: Array) -> Array:
        """Loss of each sample [N]."""

    def gradient(self, scores: Array, targets: Array) -> Array:
        """Derivative by the scores [N, C]."""

    def hessian_product(self, scores: Array, direction: Array) -> Array:
        """The Hessian at `scores`, sample by sample, times `direction` [N, C]."""

    def hessian_diagonal(self, scores: Array) -> Array:
        """Diagonal of the Hessian [N, C]."""

    def conjugate(self, dual: Array, targets: Array) -> Array:
        """sup over z of <dual, z> - value(z) for each sample [N]; finite on the segment from 0 to any gradient."""

    def dual_scale(self, gradient: Array, targets: Array) -> float:
        """The s > 0 at which the dual objective of s * `gradient` is taken to be largest, constraints aside."""

    def intercept(self, offsets: Array, targets: Array, start: Array) -> Array:
        """The b [C] that minimises the mean loss at offsets + b, to round-off."""

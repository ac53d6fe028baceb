"""What a loss is to a solver. Convex in the scores; the objective is its weighted mean (design, section 2.4).

    primal:   sum_i s_i loss(z_i, y_i),        z_i = D_i W + b
    dual:    -sum_i s_i conjugate(q_i, y_i),   q_i = gradient(z_i, y_i) at the optimum

Scores z, targets y and dual points q are float64 [N, C]; the shares s [N, 1] of the samples add up to 1. Targets are
one-hot rows for classes (one 0/1 column for the logistic loss) and the values themselves for a regression.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[Any]  # float32 or float64


class Loss(Protocol):
    name: str
    curvature: float
    """Upper bound of the Hessian's eigenvalues at any sample."""

    def value(self, scores: Array, targets: Array) -> Array:
        """Loss of each sample [N]."""

    def gradient(self, scores: Array, targets: Array) -> Array:
        """Derivative by the scores [N, C]."""

    def hessian(self, scores: Floats) -> Callable[[Floats], Floats]:
        """The Hessian at `scores`, sample by sample, as its product with a direction [N, C]; in their precision."""

    def hessian_diagonal(self, scores: Array) -> Array:
        """Diagonal of the Hessian [N, C]."""

    def centred(self, values: Floats) -> Floats:
        """Coefficients or steps [k, C] less what changes no sample's loss: a shift of all scores where that is free."""

    def conjugate(self, dual: Array, targets: Array) -> Array:
        """sup over z of <dual, z> - value(z) for each sample [N]; finite on the segment from 0 to any gradient."""

    def dual_scale(self, gradient: Array, targets: Array, share: Array) -> float:
        """The s > 0 at which the dual objective of s * `gradient` is taken to be largest, constraints aside."""

    def intercept(self, offsets: Array, targets: Array, share: Array, start: Array) -> Array:
        """The b [C] that minimises the weighted mean loss at offsets + b, to round-off."""

"""Group: a row of coefficients is one group, sum_j ||W_j||_2, so a witness is used by all outputs or by none."""

import numpy as np

from solver_service.losses.base import Array
from solver_service.penalties.base import SumOfNorms


class Group(SumOfNorms):
    name = "group"

    def inner(self, u: Array, v: Array) -> Array:
        return np.einsum("jc,jc->j", u, v)[:, None]

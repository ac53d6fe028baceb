"""L1: every coefficient is its own group, sum_jc |W_jc|. With one output it equals the group penalty."""

from solver_service.losses.base import Array
from solver_service.penalties.base import SumOfNorms


class L1(SumOfNorms):
    name = "l1"

    def inner(self, u: Array, v: Array) -> Array:
        return u * v

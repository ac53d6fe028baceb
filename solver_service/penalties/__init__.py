"""Penalties by name. A new penalty is a new file and one line here."""

from solver_service.penalties.base import Penalty, dual_norms, prox, sizes, value
from solver_service.penalties.group import Group
from solver_service.penalties.l1 import L1

PENALTIES: dict[str, Penalty] = {penalty.name: penalty for penalty in (L1(), Group())}

__all__ = ["PENALTIES", "Penalty", "dual_norms", "prox", "sizes", "value"]

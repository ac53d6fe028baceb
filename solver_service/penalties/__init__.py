"""Penalties by name. A new penalty is a new file and one line here."""

from typing import Literal

from solver_service.penalties.base import Penalty, SumOfNorms
from solver_service.penalties.group import Group
from solver_service.penalties.l1 import L1
from solver_service.penalties.none import NoPenalty
from solver_service.penalties.ridge import Ridge

PenaltyName = Literal["l1", "group", "ridge", "none"]
PENALTIES: dict[str, Penalty] = {penalty.name: penalty for penalty in (L1(), Group(), Ridge(), NoPenalty())}
NORMS: dict[str, SumOfNorms] = {name: penalty for name, penalty in PENALTIES.items() if isinstance(penalty, SumOfNorms)}

__all__ = ["NORMS", "PENALTIES", "Penalty", "PenaltyName", "SumOfNorms"]

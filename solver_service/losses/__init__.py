"""Losses by name. A new loss is a new file and one line here."""

from solver_service.losses.base import Array, Floats, Loss
from solver_service.losses.heads import Heads
from solver_service.losses.logistic import Logistic
from solver_service.losses.multinomial import Multinomial
from solver_service.losses.squared import Squared

LOSSES: dict[str, Loss] = {loss.name: loss for loss in (Squared(), Logistic(), Multinomial())}

__all__ = ["LOSSES", "Array", "Floats", "Heads", "Loss"]

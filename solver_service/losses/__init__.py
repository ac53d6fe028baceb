"""Losses by name. A new loss is a new file and one line here."""

from snn.model import ReadoutSpec
from solver_service.losses.base import Array, Floats, Loss
from solver_service.losses.heads import Heads
from solver_service.losses.logistic import Logistic
from solver_service.losses.multinomial import Multinomial
from solver_service.losses.squared import Squared

LOSSES: dict[str, Loss] = {loss.name: loss for loss in (Squared(), Logistic(), Multinomial())}


def loss_of(readout: ReadoutSpec) -> Loss:
    """The loss of a model's readout, of all its heads together."""
    if readout.loss != "heads":
        return LOSSES[readout.loss]
    return Heads([(LOSSES[head.loss], head.outputs) for head in readout.all_heads])


__all__ = ["LOSSES", "Array", "Floats", "Heads", "Loss", "loss_of"]

"""What surrogate-gradient training minimises, over one vector theta of all that is trained:

    L(theta) = (1/N) sum_i sum_heads loss(D_i W + c, y_i)  +  (weight_decay / 2) ||theta without c||^2

D_i are the final spikes of the witnesses for sequence i, or those of every timestep, which are rows of their own; rows
whose target is NaN do not count. theta holds, layer by layer, weights, bias and, where there are, recurrent weights,
then the readout's W [n, C] and c [C]; leaks and thresholds are structure and stay. Losses are those of the convex
readout (`solver_service/losses`).

Gradient regularisation (Barrett & Dherin 2021) minimises L + (gamma / 4) ||grad L||^2: its gradient is
grad L + (gamma / 2) H grad L.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from snn.model import ModelSpec, ReadoutSpec
from snn.network import Network
from snn.readout import Numbers, encode_targets, known
from snn.training.surrogate import Surrogate, roll_out

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": lambda scores, targets: 0.5 * (scores - targets).square().sum(-1),
    "logistic": lambda scores, targets: (softplus(scores) - targets * scores).sum(-1),
    "multinomial": lambda scores, targets: -(targets * scores.log_softmax(-1)).sum(-1),
}


class Head(NamedTuple):
    """One question asked of the dictionary: its loss and its columns of the scores."""

    loss: str
    outputs: slice


class Objective(NamedTuple):
    """template: the network whose shapes, leaks and thresholds are kept, and where training starts."""

    template: Network
    outputs: int
    heads: tuple[Head, ...]
    surrogate: Surrogate
    weight_decay: float = 0.0

    def initial(self, readout: Tensor | None = None, intercept: Tensor | None = None) -> Tensor:
        """theta [d] with the template's weights, and the readout given, [n, C] and [C], or zeros: then the readout
        moves in the first step and the witnesses from the second on."""
        columns = len(self.template[-1].bias)
        w = torch.zeros(columns, self.outputs) if readout is None else readout
        c = torch.zeros(self.outputs) if intercept is None else intercept
        return torch.cat([part.detach().reshape(-1) for part in [*_trained(self.template), w, c]]).float()

    def network(self, theta: Tensor) -> Network:
        """The witnesses in theta."""
        return self._split(theta)[0]

    def readout(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """W [n, C] and c [C] in theta."""
        return self._split(theta)[1:]

    def scores(self, theta: Tensor, inputs: Tensor, every_step: bool = False) -> Tensor:
        """[B, C] for inputs [B, T, m], or [B, T, C] at every timestep."""
        network, w, c = self._split(theta)
        return roll_out(inputs, network, self.surrogate, every_step) @ w + c

    def loss(self, theta: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """L, a scalar, for targets of sequences [B, C] or of timesteps [B, T, C], as `targets_of` gives them."""
        scores, known = self.scores(theta, inputs, targets.dim() == 3), ~targets.isnan().any(-1)
        scores, targets = scores[known], targets[known]
        rows = [LOSSES[head.loss](scores[:, head.outputs], targets[:, head.outputs]) for head in self.heads]
        value = torch.stack([of_head.mean() for of_head in rows]).sum()
        if self.weight_decay:
            value = value + self.weight_decay / 2 * theta[: -self.outputs].square().sum()
        return value

    def gradient(
        self, theta: Tensor, inputs: Tensor, targets: Tensor, regularisation: float = 0.0
    ) -> tuple[float, Tensor]:
        """L and the gradient [d] of L + (regularisation / 4) ||grad L||^2."""
        theta = theta.detach().requires_grad_()
        loss = self.loss(theta, inputs, targets)
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=regularisation > 0)
        if regularisation > 0:
            (curved,) = torch.autograd.grad(regularisation / 4 * gradient.square().sum(), theta)
            gradient = gradient.detach() + curved
        return float(loss.detach()), gradient

    def _split(self, theta: Tensor) -> tuple[Network, Tensor, Tensor]:
        layers, start = [], 0
        for layer in self.template:
            named = {}
            for name in ("weights", "bias", "recurrent"):
                part = getattr(layer, name)
                if part is not None:
                    named[name] = theta[start : start + part.numel()].view(part.shape)
                    start += part.numel()
            layers.append(layer._replace(**named))
        w = theta[start : -self.outputs].view(-1, self.outputs)
        return tuple(layers), w, theta[-self.outputs :]


def of_model(model: ModelSpec) -> Objective:
    """The objective of a registered model with `training`: all its witnesses, from where its law puts them."""
    training, readout = model.training, model.readout
    if training is None:
        raise ValueError(f"model {model.model}: expected training, got none; say in the model how it is trained")
    heads, begin = [], 0
    for loss, outputs in [(head.loss, head.outputs) for head in readout.all_heads] or [("squared", readout.outputs)]:
        heads.append(Head(loss, slice(begin, begin + outputs)))
        begin += outputs
    return Objective(
        model.network(range(model.witnesses.count)),
        readout.outputs,
        tuple(heads),
        Surrogate(training.surrogate, training.slope),
        training.weight_decay,
    )


def targets_of(numbers: Numbers, readout: ReadoutSpec) -> Tensor:
    """Targets [B, C], or [B, T, C] where every timestep has one, of numbers [B, S, H or C]: classes, -1 for none, or
    values, NaN for none."""
    there = known(numbers)
    rows = np.full((*there.shape, readout.outputs), np.nan, np.float32)
    rows[there] = encode_targets(numbers[there], readout)
    return torch.from_numpy(rows if readout.every_step else rows[:, 0])


def _trained(network: Network) -> list[Tensor]:
    return [part for layer in network for part in (layer.weights, layer.bias, layer.recurrent) if part is not None]

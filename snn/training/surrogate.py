"""A roll-out with the spikes of `snn.lif`, bit for bit, and a derivative that stands in for that of the step function.

Forward it is the definition in `snn.lif`. Backward, with u a membrane minus its threshold and k the slope:

    fast_sigmoid   ds/du = 1 / (1 + k |u|)^2               Zenke & Ganguli 2018; snnTorch, k = 25
    arctangent     ds/du = (k / 2) / (1 + (pi k u / 2)^2)  Fang et al. 2021; SpikingJelly and snnTorch, k = 2
    sigmoid        ds/du = k sigma(k u) (1 - sigma(k u))   Neftci et al. 2019; SpikingJelly, k = 4; snnTorch, k = 25
    triangle       ds/du = k max(0, 1 - k |u|)             Esser et al. 2016, Bellec et al. 2018; k = 1

k has the unit 1 / membrane. Each can be differentiated again, for penalties on the gradient and for curvature.

The reset carries no gradient: in `- theta * s[t-1]` the spike is a constant, as in snnTorch (SpikingJelly lets it pass
unless `detach_reset` is set). A spike that resets its neuron would else tell it not to fire, and that through a
derivative which is none (Zenke & Vogels 2021). Recurrent weights do carry it: s[t-1] @ V.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snn.lif import disjoint
from snn.network import Layer, Network
from snn.training.spec import SurrogateName

DERIVATIVES: dict[SurrogateName, Callable[[Tensor, float], Tensor]] = {
    "fast_sigmoid": lambda u, k: (1 + k * u.abs()) ** -2,
    "arctangent": lambda u, k: k / 2 / (1 + (math.pi / 2 * k * u) ** 2),
    "sigmoid": lambda u, k: k * torch.sigmoid(k * u) * torch.sigmoid(-k * u),
    "triangle": lambda u, k: k * (1 - k * u.abs()).clamp(min=0),
}


class Surrogate(NamedTuple):
    """A derivative by name, and its slope k."""

    name: SurrogateName
    slope: float


def roll_out(inputs: Tensor, network: Network, surrogate: Surrogate, every_step: bool = False) -> Tensor:
    """Spikes, as numbers, of the last layer for `inputs` [B, T, m] from rest: [B, n] at the last timestep, or [B, T, n]
    at every one. Differentiable with respect to weights, biases and recurrent weights; trusts its caller's shapes."""
    spikes = inputs.transpose(0, 1)
    for layer in network:
        product = spikes @ layer.weights if layer.weights.dim() == 2 else disjoint(spikes, layer.weights)
        spikes = _scan(product + layer.bias, layer, surrogate)
    return spikes.transpose(0, 1) if every_step else spikes[-1]


def _scan(currents: Tensor, layer: Layer, surrogate: Surrogate) -> Tensor:
    """Spikes [T, B, n] for currents [T, B, n] from below: `snn.lif`'s operations, in its order."""
    u = (-layer.threshold).expand_as(currents[0])
    spikes, fired = (u >= 0).float(), []
    for current in currents:
        if layer.recurrent is not None:
            current = current + disjoint(spikes, layer.recurrent)
        u = ((layer.leak * u) + current) - layer.threshold * spikes.detach()
        spikes = _Spike.apply(u, surrogate)
        fired.append(spikes)
    return torch.stack(fired)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: Surrogate) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return (u >= 0).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (u,) = ctx.saved_tensors
        name, slope = ctx.surrogate
        return gradient * DERIVATIVES[name](u, slope), None

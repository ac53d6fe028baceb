"""Leaky integrate-and-fire dynamics with threshold-centred membranes (design, section 2.1).

For each layer, with u[0] = -theta, s[0] = 0 and t = 1..T:

    u[t] = ((lambda * u[t-1]) + I[t]) - theta * s[t-1]        I[t] = s_below[t] @ W + bias
    s[t] = 1 if u[t] >= 0 else 0

in float32, in this order of operations, without fused multiply-add. A spike is a function of its membrane, so the
membranes alone are the state. Inputs and weights lie on dyadic grids within the exactness bound that
`snn.model.ModelSpec` enforces: the spikes are the same bits on every device and in every batch or chunking.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from snn.network import Network

State = tuple[Tensor, ...]


class RollOut(NamedTuple):
    """spikes: [B, P] of the last layer at the last timestep, bool. state: membranes after it.
    active: per layer, the neurons that fired at each timestep, summed over the batch, [k] int64."""

    spikes: Tensor
    state: State
    active: tuple[Tensor, ...]


def initial_state(network: Network, batch: int) -> State:
    """Membranes before the first timestep: per layer [B, n], at -theta."""
    return tuple((-layer.threshold).expand(batch, -1).clone() for layer in network)


def roll_out(inputs: Tensor, state: State, network: Network) -> RollOut:
    """Step `network` through `inputs` [B, k, m], k >= 1, from `state`, which is left as it was."""
    spikes = inputs.transpose(0, 1)  # [k, B, m]: a timestep is contiguous
    membranes, waves = [], []
    for depth, (layer, u) in enumerate(zip(network, state, strict=True)):
        current = spikes @ layer.weights if depth == 0 else _disjoint(spikes, layer.weights)
        spikes, u = _scan(current + layer.bias, u.clone(), layer.leak, layer.threshold)
        membranes.append(u)
        waves.append(spikes.sum(dim=(1, 2), dtype=torch.int64))
    return RollOut(spikes[-1].bool(), tuple(membranes), tuple(waves))


def _disjoint(spikes: Tensor, weights: Tensor) -> Tensor:
    """Block-diagonal product: [k, B, P * below] with [P, below, width] gives [k, B, P * width]."""
    subnetworks, below, width = weights.shape
    grouped = spikes.view(*spikes.shape[:-1], subnetworks, below)
    if width == 1:
        return (grouped * weights[:, :, 0]).sum(-1)
    return torch.einsum("kbpi,pio->kbpo", grouped, weights).flatten(-2)


def _scan(current: Tensor, u: Tensor, leak: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes [k, B, n] and the last membrane for currents [k, B, n], which are overwritten by the spikes."""
    reset = torch.where(u >= 0, threshold, 0)
    for drive in current:
        u.mul_(leak).add_(drive).sub_(reset)
        drive.copy_(u >= 0)
        torch.mul(threshold, drive, out=reset)
    return current, u

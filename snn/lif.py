"""Leaky integrate-and-fire dynamics with threshold-centred membranes (design, section 2.1): the definition.

For each layer, with u[0] = -theta, s[0] = 0 and t = 1..T:

    I[t] = (s_below[t] @ W + bias) + s[t-1] @ V           V: within a subnetwork, where the layer is recurrent
    u[t] = ((lambda * u[t-1]) + I[t]) - theta * s[t-1]
    s[t] = 1 if u[t] >= 0 else 0

in float32, in this order of operations, without fused multiply-add. A spike is a function of its membrane, so the
membranes alone are the state. Inputs and weights lie on dyadic grids within the exactness bound that
`snn.model.ModelSpec` enforces: the spikes are the same bits on every device and in every batch or chunking.

This module is for readers and tests; `snn.fused` and `snn.fused_gpu` give its bits, fast.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from snn import network as networks
from snn.network import Layer, Network

State = tuple[Tensor, ...]


class RollOut(NamedTuple):
    """spikes: of the last layer, [B, n] at the last timestep or [B, k, n] at every one, bool. state: membranes
    after it. active: per layer, the neurons that fired at each timestep, summed over the batch, [k] int64."""

    spikes: Tensor
    state: State
    active: tuple[Tensor, ...]


def initial_state(network: Network, batch: int) -> State:
    """Membranes before the first timestep: per layer [B, n], at -theta."""
    return tuple((-layer.threshold).expand(batch, -1).clone() for layer in network)


def roll_out(inputs: Tensor, state: State, network: Network, every_step: bool = False) -> RollOut:
    """Step `network` through `inputs` [B, k, m], k >= 1, from `state`, which is left as it was.

    Raises ValueError where a shape or dtype disagrees or a number is not finite.
    """
    networks.validate(network)
    validate(inputs, state, network)
    spikes = inputs.transpose(0, 1)  # [k, B, m]: a timestep is contiguous
    membranes, waves = [], []
    for layer, u in zip(network, state, strict=True):
        product = spikes @ layer.weights if layer.weights.dim() == 2 else _disjoint(spikes, layer.weights)
        spikes, u = _scan(product + layer.bias, u, layer)
        membranes.append(u)
        waves.append(spikes.sum(dim=(1, 2), dtype=torch.int64))
    fired = spikes.bool()
    return RollOut(fired.transpose(0, 1) if every_step else fired[-1], tuple(membranes), tuple(waves))


def validate(inputs: Tensor, state: State, network: Network) -> None:
    """What every backend checks of a call before it computes; raises ValueError."""
    features = len(network[0].weights)
    if inputs.dim() != 3 or inputs.shape[1] < 1 or inputs.shape[2] != features:
        raise ValueError(f"inputs: expected shape [B, k >= 1, {features}], got {list(inputs.shape)}")
    if len(state) != len(network):
        raise ValueError(f"state: expected membranes of {len(network)} layers, got {len(state)}")
    named = {"inputs": inputs} | {f"state of layer {number}": u for number, u in enumerate(state, start=1)}
    for (name, part), layer in zip(named.items(), (None, *network), strict=True):
        if layer is not None and part.shape != (len(inputs), len(layer.bias)):
            raise ValueError(f"{name}: expected shape {[len(inputs), len(layer.bias)]}, got {list(part.shape)}")
        if part.dtype != torch.float32:
            raise ValueError(f"{name}: expected torch.float32, got {part.dtype}")
        if not networks.finite(part):
            raise ValueError(f"{name}: expected finite numbers")


def _disjoint(spikes: Tensor, weights: Tensor) -> Tensor:
    """Block-diagonal product: [..., P * below] with [P, below, width] gives [..., P * width]."""
    subnetworks, below, _ = weights.shape
    grouped = spikes.reshape(*spikes.shape[:-1], subnetworks, below)
    return torch.einsum("...pi,pio->...po", grouped, weights).flatten(-2)


def _scan(currents: Tensor, u: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
    """Spikes [k, B, n] as numbers, and the last membranes, for currents [k, B, n] from below."""
    spikes, fired = (u >= 0).float(), []
    for current in currents:
        if layer.recurrent is not None:
            current = current + _disjoint(spikes, layer.recurrent)
        u = ((layer.leak * u) + current) - layer.threshold * spikes
        spikes = (u >= 0).float()
        fired.append(spikes)
    return torch.stack(fired), u

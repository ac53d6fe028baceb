"""Trained weights on the dyadic grid of the exactness promise (design, section 2.1).

A neuron's current is exact in float32 if, with inputs of magnitude up to x on a grid of 2^-bits (spikes: x = 1,
bits = 0) and weights on 2^-weight_bits,

    x sum|w| + |bias| + sum|V|  <  2^(24 - bits - weight_bits).

A neuron may be scaled: with all that comes in, its threshold and its membrane multiplied by a power of two, its spikes
are the same bits. So each neuron is first brought as close below half the bound as a power of two takes it, up or
down, and then rounded: no weight is clipped, small ones keep as many digits as the grid has, and rounding is all that
changes.
"""

import torch
from torch import Tensor

from snn.model import InputSpec
from snn.network import Layer, Network

FURTHEST = 24  # doublings at most, so that a neuron that hears next to nothing keeps a finite threshold
HEADROOM = 0.5  # of the bound: rounding less than doubles a number, since half a step goes to 0 (ties to even)


def on_grid(network: Network, grid: InputSpec, weight_bits: int) -> Network:
    """The network with every weight, bias and recurrent weight a multiple of 2^-weight_bits within the bound."""
    layers = []
    for layer, largest, bits in _readings(network, grid):
        bound = HEADROOM * 2.0 ** (24 - bits - weight_bits)
        room = torch.log2(bound / drive(layer, largest).clamp(min=bound * 2**-FURTHEST))
        scale = torch.exp2(torch.floor(room)).float()

        def scaled(part: Tensor, scale: Tensor = scale) -> Tensor:
            own = scale if part.dim() < 3 else scale.view(len(part), 1, -1)
            return torch.round((part * own).double() * 2**weight_bits).float() / 2**weight_bits

        recurrent = None if layer.recurrent is None else scaled(layer.recurrent)
        layers.append(Layer(scaled(layer.weights), scaled(layer.bias), layer.leak, layer.threshold * scale, recurrent))
    return tuple(layers)


def is_exact(network: Network, grid: InputSpec, weight_bits: int) -> bool:
    """Whether the network's weights lie on the grid, and its currents within the bound."""
    for layer, largest, bits in _readings(network, grid):
        parts = [part for part in (layer.weights, layer.bias, layer.recurrent) if part is not None]
        if any((part * 2**weight_bits != torch.round(part * 2**weight_bits)).any() for part in parts):
            return False
        if (drive(layer, largest) >= 2.0 ** (24 - bits - weight_bits)).any():
            return False
    return True


def drive(layer: Layer, largest: float) -> Tensor:
    """[n] the largest current that inputs up to `largest` and its own layer's spikes can give each neuron."""
    reach = largest * layer.weights.double().abs().sum(-2).reshape(-1) + layer.bias.abs()
    return reach if layer.recurrent is None else reach + layer.recurrent.double().abs().sum(-2).reshape(-1)


def _readings(network: Network, grid: InputSpec) -> list[tuple[Layer, float, int]]:
    """Each layer with the largest magnitude and the grid's bits of what it reads."""
    largest = max(abs(grid.low), abs(grid.high), float(grid.end_pulse))
    return [
        (layer, largest if depth == 0 else 1.0, grid.bits if depth == 0 else 0) for depth, layer in enumerate(network)
    ]

"""What a network is made of. torch is imported for its types alone: a specification need not pay for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Layer(NamedTuple):
    """One layer of a network: of its trunk, which all witnesses share, or of P disjoint subnetworks, `width` neurons in
    each; n = P * width, subnetworks side by side.

    weights: [below, n] where every neuron reads all that lies below: the first layer, and those that follow it without
    a break. The last of these is the first layer of the subnetworks, those before it are the trunk. [P, width_below,
    width] for the layers above. bias, leak, threshold: [n]. recurrent: [P, width, width], what a neuron's last spike
    sends (row) to the neurons (column) of its own subnetwork and layer at the next timestep; in the trunk [G, n / G,
    n / G], for G groups of neurons side by side.
    """

    weights: Tensor
    bias: Tensor
    leak: Tensor
    threshold: Tensor
    recurrent: Tensor | None = None


Network = tuple[Layer, ...]


def stages(network: Network) -> list[Network]:
    """Networks without a trunk that feed one another and together are `network`: each layer of the trunk by itself,
    with its neurons or their groups for subnetworks, and at last the subnetworks."""
    above = (number for number, layer in enumerate(network) if layer.weights.dim() != 2)
    trunk = max(0, next(above, len(network)) - 1)
    return [(layer,) for layer in network[:trunk]] + [network[trunk:]]


def subnetworks(network: Network) -> int:
    """P, the number of disjoint subnetworks; the neurons of a single layer without recurrence are one each."""
    own = stages(network)[-1]
    disjoint = [layer.weights for layer in own[1:]] + [layer.recurrent for layer in own if layer.recurrent is not None]
    return len(disjoint[0]) if disjoint else len(own[0].bias)


def validate(network: Network) -> None:
    """Raises ValueError where shapes disagree, a number is not finite, or a number is not float32."""
    if not network:
        raise ValueError("network: expected at least one layer, got none")
    number, below = 0, len(network[0].weights)
    for stage in stages(network):
        count = subnetworks(stage)
        for depth, layer in enumerate(stage):
            number += 1
            below = _validate(f"layer {number}", layer, count, below, depth == 0)
        below = len(stage[-1].bias)


def _validate(name: str, layer: Layer, count: int, below: int, reads_all: bool) -> int:
    """Of a layer of `count` subnetworks that reads `below` neurons; gives its neurons in a subnetwork."""
    n = len(layer.bias)
    width, rest = divmod(n, max(count, 1))
    if rest:
        raise ValueError(f"{name}: expected a multiple of {count} neurons, one subnetwork each, got {n}")
    expected = {
        "weights": (below, n) if reads_all else (count, below, width),
        "bias": (n,),
        "leak": (n,),
        "threshold": (n,),
        "recurrent": (count, width, width),
    }
    for part_name, part in layer._asdict().items():
        if part is None:
            continue
        if count and tuple(part.shape) != expected[part_name]:  # of no subnetworks, no width is known
            raise ValueError(f"{name}, {part_name}: expected shape {list(expected[part_name])}, got {list(part.shape)}")
        if not part.is_floating_point() or part.element_size() != 4:
            raise ValueError(f"{name}, {part_name}: expected float32, got {part.dtype}")
        if not finite(part):
            raise ValueError(f"{name}, {part_name}: expected finite numbers")
    return width


def finite(part: Tensor) -> bool:
    """Whether no number is NaN or infinite, in one pass: a twentieth of the time of isfinite().all()."""
    if not part.numel():
        return True
    low, high = part.aminmax()
    return -math.inf < low.item() and high.item() < math.inf

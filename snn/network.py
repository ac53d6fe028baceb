"""What a network is made of. torch is imported for its types alone: a specification need not pay for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Layer(NamedTuple):
    """One layer of P disjoint subnetworks, `width` neurons in each; n = P * width, subnetworks side by side.

    weights: [m, n] for the first layer, which every subnetwork reads; [P, width_below, width] for those above.
    bias, leak, threshold: [n].
    """

    weights: Tensor
    bias: Tensor
    leak: Tensor
    threshold: Tensor


Network = tuple[Layer, ...]

"""Small models and networks that tests of several rooms use."""

from collections.abc import Callable

import numpy.typing as npt
import torch

from snn.exact import Hidden
from snn.model import ModelSpec, parse_model
from snn.network import Layer, Network

Draw = Callable[[tuple[int, ...]], npt.ArrayLike]  # numbers of a shape


def small_model(**changes: object) -> ModelSpec:
    """8 timesteps of 8 features, two shards; `changes` replace top-level parts."""
    data: dict[str, object] = {
        "model": "small",
        "input": {"timesteps": 8, "features": 8, "bits": 4, "end_pulse": True},
        "witnesses": {
            "law": {"name": "local_integrators", "field_min": 2, "field_max": 5},
            "seed": 7,
            "count": 64,
            "shards": 2,
        },
        "readout": {"outputs": 10},
        "lanes": 4,
    }
    return parse_model(data | changes)


def drawn_network(count: int, layers: list[Hidden], features: int, weights: Draw, thresholds: Draw) -> Network:
    """`count` subnetworks of these layers; their biases are drawn as their weights are."""

    def drawn(draw: Draw, *shape: int) -> torch.Tensor:
        return torch.tensor(draw(shape), dtype=torch.float32)

    network, below = [], features
    for number, layer in enumerate(layers):
        n, width = count * layer.width, layer.width
        network.append(
            Layer(
                drawn(weights, below, n) if number == 0 else drawn(weights, count, below, width),
                drawn(weights, n) if layer.bias else torch.zeros(n),
                torch.full((n,), layer.leak),
                drawn(thresholds, n),
                drawn(weights, count, width, width) if layer.recurrent else None,
            )
        )
        below = width
    return tuple(network)

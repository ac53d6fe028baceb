"""The paper's law: W ~ N(0, scale^2 / fan-in) on every input, common leak and threshold, no bias.

A witness is one neuron, or a subnetwork of hidden layers of `widths` neurons below one output neuron; in every layer
a neuron may hear the last spikes of its own layer with V ~ N(0, recurrent^2 / width). Its stream gives the weights
layer by layer, W before V, row by row.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from snn.laws.base import Floats, Reach, WitnessLaw, normals, tensor, uniforms
from snn.network import Layer, Network

Width = Annotated[int, Field(ge=1, le=64)]


class Gaussian(WitnessLaw):
    name: Literal["gaussian"] = "gaussian"
    scale: float = Field(default=1.0, gt=0)
    leak: float = Field(default=0.9, ge=0, le=1)
    threshold: float = Field(default=1.0, gt=0)
    widths: tuple[Width, ...] = Field(default=(), max_length=9, description="neurons of each hidden layer")
    recurrent: float = Field(default=0.0, ge=0, description="scale of V; 0 leaves the layers feed-forward")

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Models without hidden layers keep the digest they had before there were any."""
        fields = serialise(self)
        for name in ("widths", "recurrent"):
            if getattr(self, name) == type(self).model_fields[name].default:
                del fields[name]
        return fields

    def reach(self, timesteps: int, features: int) -> list[Reach]:
        return [
            Reach(
                fan_in,
                self._largest(self.scale, fan_in),
                0,
                feedback=width if self.recurrent else 0,
                max_feedback=self._largest(self.recurrent, width),
            )
            for fan_in, width in self._shapes(features)
        ]

    def sample(self, seed: int, ids: Sequence[int], timesteps: int, features: int) -> Network:
        sizes = [
            size
            for fan_in, width in self._shapes(features)
            for size in (fan_in * width, width * width if self.recurrent else 0)
        ]
        draws = normals(uniforms(seed, ids, sum(sizes)))
        parts = iter(np.split(draws, np.cumsum(sizes)[:-1], axis=1))
        return tuple(self._layer(number, *shape, parts) for number, shape in enumerate(self._shapes(features)))

    def _layer(self, number: int, fan_in: int, width: int, parts: Iterator[Floats]) -> Layer:
        own, fed_back = next(parts), next(parts)
        count = len(own)
        weights = self.on_grid(own * (self.scale / fan_in**0.5)).reshape(count, fan_in, width)
        if number == 0:
            weights = weights.transpose(1, 0, 2).reshape(fan_in, count * width)
        recurrent = self.on_grid(fed_back * (self.recurrent / width**0.5)) if self.recurrent else None
        one = np.ones(count * width)
        return Layer(
            tensor(weights),
            tensor(0 * one),
            tensor(self.leak * one),
            tensor(self.threshold * one),
            None if recurrent is None else tensor(recurrent.reshape(count, width, width)),
        )

    def _shapes(self, features: int) -> list[tuple[int, int]]:
        """(fan-in, width) of each layer."""
        sizes = [features, *self.widths, 1]
        return list(pairwise(sizes))

    def _largest(self, scale: float, fan_in: int) -> float:
        return 4 * scale / fan_in**0.5 + 2.0**-self.weight_bits

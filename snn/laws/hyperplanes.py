"""Hyperplanes through random points of the input cube, without memory:

    leak 0, W ~ N(0, 1), bias = -W.p, p ~ U([low, high]^m), threshold 2^-8 and V_jj = 2^-8, which cancels the reset:

    s[t] = [W.x[t] >= W.p]

So addition whose carry is an input, a table of 2 b^2 entries, is linear in enough of them, at every length.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from snn.laws.base import Reach, WitnessLaw, normals, tensor, uniforms
from snn.network import Layer, Network

THRESHOLD = 2.0**-8


class Hyperplanes(WitnessLaw):
    name: Literal["hyperplanes"] = "hyperplanes"
    weight_bits: int = Field(default=8, ge=8, le=16)
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _cube(self) -> "Hyperplanes":
        if not self.low < self.high:
            raise ValueError(f"expected low < high, got low={self.low}, high={self.high}")
        return self

    def reach(self, timesteps: int, features: int) -> list[Reach]:
        largest = 4 + 2.0**-self.weight_bits
        bias = features * largest * max(abs(self.low), abs(self.high)) + 2.0**-self.weight_bits
        return [Reach(features, largest, bias, feedback=1, max_feedback=THRESHOLD)]

    def sample(self, seed: int, ids: Sequence[int], timesteps: int, features: int) -> Network:
        draws = uniforms(seed, ids, 2 * features)
        weights = self.on_grid(normals(draws[:, :features]))
        point = self.low + (self.high - self.low) * draws[:, features:]
        bias = self.on_grid(-(weights * point).sum(axis=1))
        every = np.full(len(ids), THRESHOLD)
        return (Layer(tensor(weights.T), tensor(bias), tensor(0 * every), tensor(every), tensor(every[:, None, None])),)

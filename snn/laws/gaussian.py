"""The paper's law: one layer, W ~ N(0, scale^2 / m) on every input, common leak and threshold, no bias."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from snn.laws.base import Reach, WitnessLaw, normals, tensor, uniforms
from snn.network import Layer, Network


class Gaussian(WitnessLaw):
    name: Literal["gaussian"] = "gaussian"
    scale: float = Field(default=1.0, gt=0)
    leak: float = Field(default=0.9, ge=0, le=1)
    threshold: float = Field(default=1.0, gt=0)

    def reach(self, timesteps: int, features: int) -> list[Reach]:
        return [Reach(features, 4 * self.scale / features**0.5 + 2.0**-self.weight_bits, 0)]

    def sample(self, seed: int, ids: Sequence[int], timesteps: int, features: int) -> Network:
        draws = normals(uniforms(seed, ids, features))
        weights = self.on_grid(draws * (self.scale / features**0.5))
        one = np.ones(len(ids))
        return (Layer(tensor(weights.T), tensor(0 * one), tensor(self.leak * one), tensor(self.threshold * one)),)

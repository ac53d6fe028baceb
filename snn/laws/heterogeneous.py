"""The paper's neuron, each with a leak and a threshold of its own:

    W ~ N(0, scale^2 / fan-in)   on every input, or on a contiguous field of `fields` of them
    1 - leak                     log-uniform over `decay`
    threshold                    log-uniform over `threshold`
    bias ~ U(-bias, bias)

so that some of the witnesses forget within a timestep and others hold the whole sequence, and few are silent.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from snn.laws.base import LEAK_GRID, Floats, Reach, WitnessLaw, log_uniform, normals, tensor, uniforms
from snn.network import Layer, Network

Share = Annotated[float, Field(ge=LEAK_GRID, le=1)]
Threshold = Annotated[float, Field(ge=LEAK_GRID, le=2**10)]
Width = Annotated[int, Field(ge=1)]


class Heterogeneous(WitnessLaw):
    name: Literal["heterogeneous"] = "heterogeneous"
    scale: float = Field(default=1.0, gt=0)
    decay: tuple[Share, Share] = (0.01, 0.5)
    threshold: tuple[Threshold, Threshold] = (0.03, 3.0)
    bias: float = Field(default=0.0, ge=0)
    fields: tuple[Width, Width] | None = Field(
        default=None, description="least and most inputs; all of them by default"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("decay", "threshold", "fields"):
            pair = getattr(self, name)
            if pair is not None and pair[0] > pair[1]:
                raise ValueError(f"{name}: expected the smaller number first, got {list(pair)}")
        return self

    def reach(self, timesteps: int, features: int) -> list[Reach]:
        least, most = self._widths(features)
        if most > features:
            raise ValueError(f"law {self.name}: expected fields of at most {features} inputs, got {most}")
        return [Reach(most, 4 * self.scale / least**0.5 + 2.0**-self.weight_bits, self.bias + 2.0**-self.weight_bits)]

    def sample(self, seed: int, ids: Sequence[int], timesteps: int, features: int) -> Network:
        draws = uniforms(seed, ids, 5 + features)
        weights = self.on_grid(self._weights(draws[:, 3:5], normals(draws[:, 5:])))
        bias = self.on_grid(self.bias * (2 * draws[:, 2] - 1) + self._centre(weights))
        leak = 1 - np.round(log_uniform(draws[:, 0], self.decay) / LEAK_GRID) * LEAK_GRID
        threshold = np.round(log_uniform(draws[:, 1], self.threshold) / LEAK_GRID) * LEAK_GRID
        return (Layer(tensor(weights.T), tensor(bias), tensor(leak), tensor(threshold)),)

    def _weights(self, field: Floats, normal: Floats) -> Floats:
        """[P, m], zero outside the field."""
        features = normal.shape[1]
        least, most = self._widths(features)
        width = least + np.floor(field[:, :1] * (most - least + 1))
        place = np.floor(field[:, 1:] * (features - width + 1))
        at = np.arange(features)
        return np.where((at >= place) & (at < place + width), normal * self.scale / np.sqrt(width), 0)

    def _centre(self, weights: Floats) -> Floats:
        """[P] what the bias takes off the drive."""
        return np.zeros(len(weights))

    def _widths(self, features: int) -> tuple[int, int]:
        return (features, features) if self.fields is None else self.fields

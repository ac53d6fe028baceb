"""Local short-memory units feeding an integrator that decides once, at the end of the sequence.

A witness is a subnetwork of two layers that reads the end pulse (the last input feature, `input.end_pulse`):

    units 1..k   w ~ N(0, 1/width) on a contiguous field of features, bias -U(0, bias), leak U(0, .95), threshold 2^-7
    relay        passes the end pulse on
    integrator   leak L = exp(-1/tau), tau log-uniform over [T/7, 2T]; weights v ~ N(0, 1) on the units

The threshold H / L^T is out of reach of the units, so the integrator stays silent and never resets until the pulse,
with weight H - v.c, lifts it: it fires at T exactly if  sum_t L^(T-t) v.s(t) >= v.c  (up to float32 rounding, which is
the same everywhere). c is uniform in the box of discounted spike counts that units firing at up to `box` of the time
reach, so the hyperplane passes through a point that data may visit and no statistics of the data are needed.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from snn.laws.base import LEAK_GRID, Floats, Reach, WitnessLaw, normals, tensor, uniforms
from snn.network import Layer, Network

UNIT_THRESHOLD = 2.0**-7  # small against a typical drive of 2^-2: a unit fires when its field is seen


class LocalIntegrators(WitnessLaw):
    name: Literal["local_integrators"] = "local_integrators"
    units: int = Field(default=2, ge=1, le=64)
    field_min: int = Field(default=3, ge=1)
    field_max: int = Field(default=8, ge=1)
    bias: float = Field(default=0.25, ge=0, le=4)
    box: float = Field(default=0.25, gt=0, le=1)

    @model_validator(mode="after")
    def _fields(self) -> "LocalIntegrators":
        if self.field_min > self.field_max:
            raise ValueError(f"expected field_min <= field_max, got {self.field_min} > {self.field_max}")
        return self

    def _largest_height(self, timesteps: int) -> float:
        slowest = 1 - np.exp(-1 / (2 * timesteps)) - LEAK_GRID
        count = min(timesteps, 1 / slowest) if slowest > 0 else timesteps
        return 16 * self.units * count + 1  # of 2 * (sum|v| * count + |v.c|) + 1, with |v| <= 4

    def reach(self, timesteps: int, features: int) -> list[Reach]:
        if features - 1 < self.field_max:
            raise ValueError(
                f"law local_integrators: expected field_max <= input.features = {features - 1}, got {self.field_max}"
            )
        return [
            Reach(self.field_max, 4 / self.field_min**0.5 + 1, max(self.bias, 0.5) + 1),
            Reach(self.units + 1, 1.5 * self._largest_height(timesteps), 0),
        ]

    def sample(self, seed: int, ids: Sequence[int], timesteps: int, features: int) -> Network:
        count, k, pixels = len(ids), self.units, features - 1
        draws = uniforms(seed, ids, k * (6 + self.field_max) + 1)
        per_unit, field_draws = np.split(draws[:, 1:], [6 * k], axis=1)
        width_u, place_u, bias_u, leak_u, v_u, c_u = np.split(per_unit, 6, axis=1)

        width = self.field_min + np.floor(width_u * (self.field_max - self.field_min + 1)).astype(np.int64)
        place = np.floor(place_u * (pixels - width + 1)).astype(np.int64)
        w = self.on_grid(normals(field_draws).reshape(count, k, self.field_max) / np.sqrt(width)[:, :, None])
        first = np.zeros((count, k + 1, features))
        at = place[:, :, None] + np.arange(self.field_max)
        inside = np.arange(self.field_max) < width[:, :, None]
        witness, unit, _ = np.nonzero(inside)
        first[witness, unit, at[inside]] = w[inside]
        first[:, k, -1] = 1
        bias = np.full((count, k + 1), -0.5)
        bias[:, :k] = self.on_grid(-self.bias * bias_u)
        leak = np.zeros((count, k + 1))
        leak[:, :k] = 0.95 * leak_u
        units = Layer(
            tensor(first.reshape(-1, features).T),
            tensor(bias.ravel()),
            tensor(np.round(leak.ravel() / LEAK_GRID) * LEAK_GRID),
            tensor(np.full(count * (k + 1), UNIT_THRESHOLD)),
        )

        tau = timesteps / 7 * np.exp(draws[:, 0] * np.log(14))
        slow = np.round(np.exp(-1 / tau) / LEAK_GRID) * LEAK_GRID
        most, decay = _discounted(slow, timesteps)
        v = self.on_grid(normals(v_u))
        centre = (v * c_u).sum(axis=1) * self.box * most
        threshold = (2 * np.abs(v).sum(axis=1) * most + 2 * np.abs(centre) + 1) / decay
        pulse = self.on_grid(threshold * decay - centre)
        integrator = Layer(
            tensor(np.concatenate([v, pulse[:, None]], axis=1)[:, :, None]),
            tensor(np.zeros(count)),
            tensor(slow),
            tensor(threshold),
        )
        return (units, integrator)


def _discounted(leak: Floats, timesteps: int) -> tuple[Floats, Floats]:
    """sum of leak^t over t < T, and leak^T, by plain products: the same bits on every machine."""
    total, power = np.zeros_like(leak), np.ones_like(leak)
    for _ in range(timesteps):
        total, power = total + power, power * leak
    return total, power

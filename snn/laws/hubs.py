"""Neurons that hold a bit by hearing themselves, and units that read the input beside that bit.

A witness is a hub h and a unit j, both of leak 0 and with `weight` w on every input, below a relay of the unit:

    s_h[t] = [w sum_i x_i[t] + s_h[t-1] >= C_h]        s_j[t] = [w sum_i x_i[t] + s_h[t-1] >= C_j]        C ~ U(0, top)

(threshold 2^-8, V_hh = 1 + 2^-8, V_hj = 1, V_jj = 2^-8: V cancels the reset.) With inputs a / (b-1) and c / (b-1),
w = b-1 and C_h in (b-1, b] the hub is the carry of an addition in base b, and the units compare a + c + carry with
their C_j: digit and carry are linear in them, at every length. One hub in `top` is such a one.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from snn.laws.base import Reach, WitnessLaw, tensor, uniforms
from snn.network import Layer, Network

THRESHOLD = 2.0**-8


class Hubs(WitnessLaw):
    name: Literal["hubs"] = "hubs"
    weight_bits: int = Field(default=8, ge=8, le=16)
    weight: int = Field(default=1, ge=1, le=2**10)
    top: float = Field(default=4.0, gt=0, le=2**12)

    def reach(self, timesteps: int, features: int) -> list[Reach]:
        return [
            Reach(features, self.weight, self.top + 2.0**-self.weight_bits, feedback=2, max_feedback=1 + THRESHOLD),
            Reach(1, 1, 0.5),
        ]

    def sample(self, seed: int, ids: Sequence[int], timesteps: int, features: int) -> Network:
        count = len(ids)
        level = self.on_grid(self.top * uniforms(seed, ids, 2))
        pair = np.tile([[1 + THRESHOLD, 1], [0, THRESHOLD]], (count, 1, 1))
        neurons, one = np.ones(2 * count), np.ones(count)
        pairs = Layer(
            tensor(np.full((features, 2 * count), self.weight)),
            tensor(-level.ravel()),
            tensor(0 * neurons),
            tensor(THRESHOLD * neurons),
            tensor(pair),
        )
        relay = Layer(
            tensor(np.tile([[0.0], [1.0]], (count, 1, 1))), tensor(-0.5 * one), tensor(0 * one), tensor(THRESHOLD * one)
        )
        return pairs, relay

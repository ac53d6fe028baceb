"""Counters modulo k of one input's spikes.

A witness draws an input i, a modulus k of 2 .. most and a level q of 1 .. k-1, and has three neurons:

    relay        leak 0, weight 1 on input i, bias -1/2, threshold 1 and V = 1, which cancels the reset: [x_i[t] >= 1/2]
    counter      leak 1, weight 1 on input i, threshold k: with spikes for inputs, it fires at every k-th of them
    integrator   leak 1, weights 1 on the relay and -k on the counter, threshold q and V = q, which cancels the reset:
                 u[t] = (spikes so far mod k) - q

so it fires at t iff the count of input i is at least q modulo k. With k = 2 that is the running parity, at every
length.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from snn.laws.base import Reach, WitnessLaw, tensor, uniforms
from snn.network import Layer, Network

BITS = 1  # the grid of all weights is 1/2


class Counters(WitnessLaw):
    name: Literal["counters"] = "counters"
    most: int = Field(default=4, ge=2, le=64, description="the largest modulus")

    def reach(self, timesteps: int, features: int) -> list[Reach]:
        return [
            Reach(1, 1, 0.5, feedback=1, max_feedback=1, bits=BITS),
            Reach(2, self.most, 0, feedback=1, max_feedback=self.most - 1, bits=BITS),
        ]

    def sample(self, seed: int, ids: Sequence[int], timesteps: int, features: int) -> Network:
        count = len(ids)
        draws = uniforms(seed, ids, 3)
        chosen = np.floor(draws[:, 0] * features).astype(np.int64)
        modulus = 2 + np.floor(draws[:, 1] * (self.most - 1))
        level = 1 + np.floor(draws[:, 2] * (modulus - 1))
        one, zero = np.ones(count), np.zeros(count)
        weights = np.zeros((features, count, 2))
        weights[chosen, np.arange(count)] = 1
        cancel = np.zeros((count, 2, 2))
        cancel[:, 0, 0] = 1
        counters = Layer(
            tensor(weights.reshape(features, -1)),
            tensor(np.tile([-0.5, 0], count)),
            tensor(np.tile([0, 1], count)),
            tensor(np.stack([one, modulus], axis=1).ravel()),
            tensor(cancel),
        )
        integrator = Layer(
            tensor(np.stack([one, -modulus], axis=1)[:, :, None]),
            tensor(zero),
            tensor(one),
            tensor(level),
            tensor(level[:, None, None]),
        )
        return counters, integrator

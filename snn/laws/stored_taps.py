"""Thresholds on a few bits of the stored sequence (`snn.laws.store`).

A witness is an integrator with weights +1 or -1 on `taps` gates drawn at random:

    it fires at T iff  sum over its taps of +-z_tap >= b,   b a random one of the half-integers between the sums

With two taps these are "and", "or", "and not" and "or not" of two bits however far apart they are: the first-last XOR
is the difference of two of them, at every T. The law asks for pairs by chance: T * m bits have (T * m)^2 / 2.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from snn.laws import store
from snn.laws.base import Reach, WitnessLaw, uniforms
from snn.network import Network


class StoredTaps(WitnessLaw):
    name: Literal["stored_taps"] = "stored_taps"
    taps: int = Field(default=2, ge=1, le=64)

    def reach(self, timesteps: int, features: int) -> list[Reach]:
        integrator = Reach(self.taps, self.taps, 0, max_pulse=2 * self.taps + 1, bits=store.BITS)
        return [*store.reach(timesteps, features), integrator]

    def sample(self, seed: int, ids: Sequence[int], timesteps: int, features: int) -> Network:
        gates = timesteps * features
        draws = uniforms(seed, ids, 2 * self.taps + 1)
        tap = np.floor(draws[:, : self.taps] * gates).astype(np.int64)
        sign = np.where(draws[:, self.taps : -1] < 0.5, -1.0, 1.0)
        v = np.zeros((len(ids), gates))
        np.add.at(v, (np.arange(len(ids))[:, None], tap), sign)
        lowest = np.minimum(sign, 0).sum(axis=1)
        b = lowest + 0.5 + np.floor(draws[:, -1] * self.taps)
        return (*store.trunk(timesteps, features), store.integrators(v, b))

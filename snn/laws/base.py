"""What every witness law offers, and the random numbers it draws from.

A witness is a pure function of (seed, id): its numbers come from its own Philox4x64 stream (Salmon et al. 2011),
keyed by the two, and are turned into weights by arithmetic on a grid, so that any machine makes the same witness.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import ndtri

from snn.network import Network

if TYPE_CHECKING:
    from torch import Tensor

LEAK_GRID = 2.0**-12  # of leaks: hides the last bit of exp, in which C libraries differ

Floats = npt.NDArray[np.float64]


class Reach(NamedTuple):
    """What bounds a layer's current: `fan_in` inputs times `max_weight`, plus one more input, a pulse, times
    `max_pulse`, plus `max_bias`, plus, where the layer is recurrent, `feedback` spikes of its own times `max_feedback`.
    Its weights are multiples of 2^-bits; where that is None, of the law's 2^-weight_bits."""

    fan_in: int
    max_weight: float
    max_bias: float
    feedback: int = 0
    max_feedback: float = 0
    max_pulse: float = 0
    bits: int | None = None

    def current(self, largest: float) -> float:
        """The bound, for inputs up to `largest`."""
        of_inputs = largest * (self.fan_in * self.max_weight + self.max_pulse)
        return of_inputs + self.max_bias + self.feedback * self.max_feedback


class WitnessLaw(BaseModel, ABC):
    """A law may hold statistics from a first pass over data (`calibrated`): they are fields like any other, so that a
    witness remains a function of the model and its id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight_bits: int = Field(default=8, ge=0, le=16)

    @abstractmethod
    def reach(self, timesteps: int, features: int) -> list[Reach]:
        """The bounds of each layer for this input; raises ValueError where the law cannot read such an input."""

    @abstractmethod
    def sample(self, seed: int, ids: Sequence[int], timesteps: int, features: int) -> Network:
        """The network of the witnesses `ids`, one column each, in their order."""

    def calibrated(self, inputs: npt.NDArray[np.floating]) -> Self:
        """The law with statistics of the sequences inputs [N, T, m], where it takes any; raises ValueError if not."""
        raise ValueError(f"law {self.name}: takes no statistics of data, so it needs no calibration")  # type: ignore[attr-defined]

    def on_grid(self, values: Floats) -> Floats:
        """Nearest multiples of 2^-weight_bits."""
        return np.round(values * 2**self.weight_bits) / 2**self.weight_bits


def uniforms(seed: int, ids: Sequence[int], count: int) -> Floats:
    """[len(ids), count] numbers in (0, 1), row i from the stream of witness ids[i] alone."""
    streams = (np.random.Philox(key=np.array([seed, witness], np.uint64)) for witness in ids)
    raw = np.array([stream.random_raw(count) for stream in streams], np.uint64).reshape(len(ids), count)
    return ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normals(uniform: Floats) -> Floats:
    """Standard normal numbers by inversion, cut at 4 so that a bound on the weights can be stated."""
    return np.clip(ndtri(uniform), -4, 4)


def log_uniform(uniform: Floats, ends: tuple[float, float]) -> Floats:
    """Numbers between two positive ones, uniform in their logarithm."""
    return np.asarray(ends[0] * np.exp(uniform * np.log(ends[1] / ends[0])))


def tensor(values: npt.ArrayLike) -> Tensor:
    """float32, from values that float32 holds exactly."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(values, np.float32))

"""Heterogeneous neurons (`snn.laws.heterogeneous`) that know the scale of each input:

    w_j ~ N(0, scale^2 / fan-in) / max(spread_j, 1/8)        bias = -w.mean + U(-bias, bias)

so that the drive has mean near zero and spread near `scale` whatever the units of the inputs. mean and spread, over
sequences and timesteps, are statistics of the data (`calibrated`), which belong to the law.
"""

from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import FiniteFloat

from snn.laws.base import Floats, Reach
from snn.laws.heterogeneous import Heterogeneous

LEAST_SPREAD = 0.125  # an input that varies less says little, and its weights would need a wide grid
GRID = 2.0**-12  # of the statistics: short numbers in a model's file


class Calibrated(Heterogeneous):
    name: Literal["calibrated"] = "calibrated"  # type: ignore[assignment]
    mean: tuple[FiniteFloat, ...] | None = None
    spread: tuple[FiniteFloat, ...] | None = None

    def calibrated(self, inputs: npt.NDArray[np.floating]) -> Self:
        every = inputs.reshape(-1, inputs.shape[-1]).astype(np.float64)
        mean, spread = (np.round(part / GRID) * GRID for part in (every.mean(axis=0), every.std(axis=0)))
        return self.model_copy(update={"mean": tuple(mean.tolist()), "spread": tuple(spread.tolist())})

    def reach(self, timesteps: int, features: int) -> list[Reach]:
        for name, statistic in (("mean", self.mean), ("spread", self.spread)):
            if statistic is None:
                raise ValueError(f"law calibrated: expected {name}; `spikeloom calibrate` takes it from data")
            if len(statistic) != features:
                raise ValueError(f"law calibrated: expected {name} of {features} inputs, got {len(statistic)}")
        (plain,) = super().reach(timesteps, features)
        largest = plain.max_weight / self._spread.min()
        centre = plain.fan_in * largest * np.abs(self._mean).max()
        return [plain._replace(max_weight=largest, max_bias=plain.max_bias + centre)]

    def _weights(self, field: Floats, normal: Floats) -> Floats:
        return super()._weights(field, normal) / self._spread

    def _centre(self, weights: Floats) -> Floats:
        return -(weights * self._mean).sum(axis=1)

    @property
    def _mean(self) -> Floats:
        return np.array(self.mean, np.float64)

    @property
    def _spread(self) -> Floats:
        return np.maximum(np.array(self.spread, np.float64), LEAST_SPREAD)

"""Time to accuracy (seed 000):  T(Es; p) = inf { t : P(A_t >= p) >= p },  the probability over seeds.

A_t is a run's accuracy after t of whatever the clock counts: updates, samples or seconds. Between measurements, and
behind the last one, it is that of the last measurement; before the first one it is 0. An accuracy that is lost again
does not count: at T so many runs have it at the same time.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Run(NamedTuple):
    """One seed's measurements: clock [K], not falling, and accuracy [K] in [0, 1]."""

    clock: npt.NDArray[np.floating] | npt.NDArray[np.integer]
    accuracy: npt.NDArray[np.float64]


def time_to_accuracy(runs: Sequence[Run], p: float) -> float:
    """T in the unit of the runs' clocks; infinity where too few runs ever have the accuracy p in (0, 1] at once."""
    if not runs or not 0 < p <= 1:
        raise ValueError(f"expected at least one run and p in (0, 1], got {len(runs)} runs and p = {p}")
    for run in runs:
        if run.clock.shape != run.accuracy.shape or run.clock.ndim != 1 or (np.diff(run.clock) < 0).any():
            raise ValueError(
                "expected a clock [K] that does not fall and an accuracy [K] for each run, got shapes "
                f"{list(run.clock.shape)} and {list(run.accuracy.shape)}"
            )
    times = np.unique(np.concatenate([run.clock for run in runs]))
    reached = np.zeros(len(times), np.int64)
    for run in runs:
        last = np.searchsorted(run.clock, times, side="right")  # measurements up to each time
        reached += np.concatenate([[False], run.accuracy >= p])[last]
    enough = np.flatnonzero(reached >= math.ceil(p * len(runs) - 1e-9))
    return float(times[enough[0]]) if len(enough) else math.inf

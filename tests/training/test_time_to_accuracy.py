"""T(Es; p) by hand and beside a plain loop over times."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn.training.time_to_accuracy import Run, time_to_accuracy


def test_by_hand() -> None:
    runs = [
        Run(np.array([0, 10, 20, 30]), np.array([0.5, 0.9, 0.7, 0.95])),  # has .9 at 10, loses it, has it from 30 on
        Run(np.array([5, 25]), np.array([0.2, 0.95])),  # from 25 on
    ]
    assert time_to_accuracy(runs, 0.9) == 30
    assert time_to_accuracy(runs, 0.5) == 0  # one of two runs is enough for p = .5
    assert time_to_accuracy(runs, 0.96) == math.inf
    assert time_to_accuracy(runs[:1], 0.9) == 10  # of a deterministic run, the first time


@settings(deadline=None)
@given(st.data())
def test_beside_a_plain_loop(data: st.DataObject) -> None:
    runs = []
    for _ in range(data.draw(st.integers(1, 5))):
        clock = np.sort(data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=6, unique=True)))
        accuracy = data.draw(st.lists(st.sampled_from([0, 0.25, 0.5, 1]), min_size=len(clock), max_size=len(clock)))
        runs.append(Run(clock, np.array(accuracy)))
    p = data.draw(st.sampled_from([0.25, 0.5, 0.9, 1]))

    def at(run: Run, time: int) -> float:
        return max(((t, a) for t, a in zip(run.clock, run.accuracy, strict=True) if t <= time), default=(0, 0))[1]

    enough = (time for time in range(21) if np.mean([at(run, time) >= p for run in runs]) >= p)
    assert time_to_accuracy(runs, p) == next(enough, math.inf)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        time_to_accuracy([], 0.9)
    with pytest.raises(ValueError, match="p in"):
        time_to_accuracy([Run(np.array([0]), np.array([1.0]))], 0)
    with pytest.raises(ValueError, match="does not fall"):
        time_to_accuracy([Run(np.array([2, 1]), np.array([0.0, 1.0]))], 0.5)

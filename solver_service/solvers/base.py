"""What a solver is: from the mean loss, a penalty and beta to (W, b), as near to the optimum as `stop` asks.

min over (W, b):  F(W, b) + beta penalty(W)
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from solver_service.losses import Array

ROUND_OFF = 1e-14  # of an objective; a change below it is no ascent
LARGEST_STALL = 10  # steps that better neither objective nor gap, after which round-off is all that is left


class Overdue(Exception):
    """The deadline passed in the middle of a step."""


Progress = Callable[[float], None]  # is told the relative gap, again and again


class Stop(NamedTuple):
    """A solver returns its best point once the relative gap is at `relative_gap`, or at the deadline."""

    relative_gap: float
    deadline: float  # of time.monotonic()
    progress: Progress = lambda gap: None

    def reached(self, gap: float) -> bool:
        """Whether a point of this relative gap is the last one."""
        self.progress(gap)
        return gap <= self.relative_gap or self.overdue

    @property
    def overdue(self) -> bool:
        return time.monotonic() >= self.deadline

    def check(self) -> None:
        """Raises Overdue after the deadline."""
        if self.overdue:
            raise Overdue


class Stall:
    """Counts the steps since objective or gap became better."""

    def __init__(self) -> None:
        self._steps, self._lowest, self._gap = 0, np.inf, np.inf

    def ended(self, objective: float, gap: float) -> bool:
        """Whether a solver that is at this point should give up."""
        better = gap < 0.9 * self._gap or objective < self._lowest - slack(objective)
        self._steps = 0 if better else self._steps + 1
        self._lowest, self._gap = min(self._lowest, objective), min(self._gap, gap)
        return self._steps == LARGEST_STALL


def slack(objective: float) -> float:
    """Round-off of an objective."""
    return ROUND_OFF * max(1.0, abs(objective))


class Point(NamedTuple):
    w: Array  # [P, C]
    b: Array  # [C]


def worst_violators(norms: Array, beta: float, outside: npt.NDArray[np.bool_], limit: int) -> npt.NDArray[np.intp]:
    """Up to `limit` indices where `outside` holds and the dual norm passes beta, worst first."""
    candidates = np.flatnonzero(outside & (norms > beta))
    return candidates[np.argsort(norms[candidates])[::-1][:limit]]

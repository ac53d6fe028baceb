"""A dictionary that grows by price: solve, price candidates on all rows, take in the best, drop what is not used.

    solve over the kept columns -> price `candidates` new witnesses for each column that may enter -> shortlist the best
    on their own -> choose those that gain most beside the kept ones (`pricing`) -> drop columns that had no coefficient
    in `patience` solves -> again, until there are `columns` of them, fresh rows say that none is worth it, or the pool
    of candidates * columns witnesses is used up

Witnesses are numbers here, their columns what a function of the numbers gives: how they are rolled out, and where, is
the caller's part. `growing_trainer` takes the same steps on the stream.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snn import fingerprint
from snn.bits import BitMatrix
from snn.sums import Sums, of_rows
from solver_service import pricing
from solver_service.fit import Samples
from solver_service.losses import Array, Loss
from solver_service.penalties import NORMS
from solver_service.pricing import Indices
from solver_service.solvers import Point, Solution, solve

Witnesses = npt.NDArray[np.int64]
LEAST_ADDED, SHARE_ADDED = (
    100,
    8,
)  # columns a round: an eighth of the kept ones, and not so few that solves take longest
TOLERANCE = 1e-4  # of solves that only price


class Rows(NamedTuple):
    """What the columns of witnesses are over some rows, and the rows' targets [N, C] as the loss takes them."""

    columns: Callable[[Witnesses], BitMatrix]
    targets: Array


class Rules(NamedTuple):
    """columns: how many there may be. start: how many of them are blind. candidates: priced for each that enters.
    listed: of these, how many are compared with the kept ones. patience: solves without a coefficient. slack: of the
    price on fresh rows, over beta."""

    columns: int
    start: int = 250
    candidates: int = 16
    listed: int = 4
    patience: int = 3
    slack: float = 0.0
    relative_beta: float = 1e-3

    def room(self, kept: int, tried: int) -> int:
        """How many may enter beside so many kept ones; none where the pool is used up."""
        room = min(max(LEAST_ADDED, kept // SHARE_ADDED), self.columns - kept)
        return min(room, self.columns - tried // self.candidates)


class Grown(NamedTuple):
    """The dictionary after a solve. tried: witnesses so far. best: the largest price, on fresh rows, of a candidate
    that entered after it, 0 where none did."""

    witnesses: Witnesses
    solution: Solution
    tried: int
    best: float


def grow(train: Rows, fresh: Rows, loss: Loss, rules: Rules) -> Iterator[Grown]:
    """The dictionary as it grows, from witnesses 0, 1, 2, ..., each of which is tried once. `fresh` are rows that are
    not trained on."""
    tried = rules.start
    witnesses = np.arange(tried, dtype=np.int64)
    first = train.columns(witnesses)
    distinct = different(_sums(first, np.zeros((first.rows, 1))))
    witnesses, columns = witnesses[distinct], first.select(distinct)
    start: Point | None = None
    idle = np.zeros(len(witnesses), np.int64)
    while True:
        solution = solve(Samples(loss, columns, train.targets), "group", rules.relative_beta, TOLERANCE, start)
        idle = np.where(solution.coefficients.any(axis=1), 0, idle + 1)
        kept = np.flatnonzero(idle < rules.patience)
        room = rules.room(len(kept), tried)
        if room <= 0:
            yield Grown(witnesses, solution, tried, 0.0)
            return
        candidates = np.arange(tried, tried + rules.candidates * room, dtype=np.int64)
        spikes = train.columns(candidates)
        scores = columns.times(solution.coefficients) + solution.intercept
        entering = _entering(columns.select(kept), spikes, pricing.residuals(loss, scores, train.targets), room, rules)
        best = _fresh_prices(fresh, witnesses, solution, candidates[entering], loss)
        yield Grown(witnesses, solution, tried, float(best.max(initial=0.0)))
        if pricing.enough(best, solution.beta, rules.slack):
            return
        tried += len(candidates)
        witnesses = np.concatenate([witnesses[kept], candidates[entering]])
        columns = beside(columns.select(kept), spikes.select(entering))
        idle = np.concatenate([idle[kept], np.zeros(len(entering), np.int64)])
        w = np.concatenate([solution.coefficients[kept], np.zeros((len(entering), train.targets.shape[1]))])
        start = Point(w, solution.intercept)


def different(sums: Sums) -> Indices:
    """The first of equal columns, from sums of any targets; none that is constant."""
    frequency = sums.counts / sums.weight
    distinct, _ = fingerprint.distinct(sums.fingerprints)
    return distinct[(frequency[distinct] > 0) & (frequency[distinct] < 1)]


def beside(left: BitMatrix, right: BitMatrix) -> BitMatrix:
    """[L R]."""
    words = np.concatenate([left.by_column, right.by_column], axis=1)
    return BitMatrix(left.rows, left.columns + right.columns, by_column=words)


def _entering(kept: BitMatrix, spikes: BitMatrix, residuals: Array, room: int, rules: Rules) -> Indices:
    """Which of the candidates enter."""
    sums = _sums(spikes, residuals)
    listed = pricing.shortlist(sums, rules.listed * room)
    return listed[gaining(kept, spikes.select(listed), pricing.correlations(sums)[listed], room)]


def gaining(kept: BitMatrix, listed: BitMatrix, c: Array, count: int) -> Indices:
    """Up to `count` of the columns `listed`, with correlations c [S, C], that gain most beside the kept ones."""
    both = beside(kept, listed)
    moments = both.gram() / both.rows
    frequency = moments.diagonal()
    return pricing.choose(moments - np.outer(frequency, frequency), c, count)


def _fresh_prices(fresh: Rows, witnesses: Witnesses, solution: Solution, entering: Witnesses, loss: Loss) -> Array:
    support = solution.support
    scores = fresh.columns(witnesses[support]).times(solution.coefficients[support]) + solution.intercept
    sums = _sums(fresh.columns(entering), pricing.residuals(loss, scores, fresh.targets))
    return pricing.prices(sums, NORMS["group"])


def _sums(spikes: BitMatrix, residuals: Array) -> Sums:
    return of_rows(spikes, np.arange(spikes.rows, dtype=np.uint64), residuals)

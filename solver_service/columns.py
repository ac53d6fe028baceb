"""The dictionary's columns: sums over rows, kept up to date from the rows that came and left (design, section 2.3).

For all P columns: counts, D'Y and fingerprints. For the distinct ones also D'D: columns that have been equal so far
share a row of it and get their own when they part, because until then their inner products were the same. All sums
are integers (values as targets apart), so neither order nor batching can change them. They are all that the squared
loss needs, in O(P^2) memory whatever N is: an endless stream is held in them, and in snapshots of them.

With a half-life h every row that is counted multiplies what came before it by 2^(-1/h), fingerprints apart: those sums
are float64 then, so that another batching changes their last digits.
"""

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from snn import fingerprint
from snn.bits import BitMatrix
from snn.readout import Rows
from snn.sums import Sums, of_rows
from solver_service.fit import Moments, Samples
from solver_service.losses import Array, Loss
from solver_service.snapshot import Arrays
from solver_service.weights import by_age
from wire.codec import Tile

SUMS = ("counts", "cross", "total", "energy", "fingerprints", "everything", "gram")
COUNTED = 2**16  # rows in one go: it bounds the copies, and 2^32 times it is exact in float64
INT32_ROWS = 2**31 - 1  # more need wider inner products


class Columns:
    device: str | None = None  # where inner products are counted (`BitMatrix.on`)

    def __init__(self, witnesses: int, outputs: int, half_life: int | None = None) -> None:
        self.half_life = half_life
        self.rows = 0
        self.weight = 0.0  # of the rows, each 1 where nothing is forgotten
        self.counts: Array = np.zeros(witnesses)
        self.cross: Array = np.zeros((witnesses, outputs))  # D'Y
        self.total: Array = np.zeros(outputs)
        self.energy: Array = np.zeros(outputs)
        self.fingerprints: fingerprint.Words = np.zeros((witnesses, 2), np.uint64)
        self.everything: fingerprint.Words = np.zeros((1, 2), np.uint64)  # the fingerprint of a column of ones
        self.distinct: npt.NDArray[np.int64] = np.zeros(1, np.int64)  # the lowest witness of each class
        self._class: npt.NDArray[np.int64] = np.zeros(witnesses, np.int64)
        self.gram: npt.NDArray[Any] = np.zeros((1, 1), np.float64 if half_life else np.int32)  # D'D over `distinct`

    @property
    def bytes(self) -> int:
        return sum(getattr(self, name).nbytes for name in SUMS)

    @property
    def candidates(self) -> npt.NDArray[np.int64]:
        """Distinct columns that are not constant; the intercept spans the constant ones."""
        marks = self.fingerprints[self.distinct]
        return self.distinct[marks.any(axis=1) & (marks != self.everything).any(axis=1)]

    def update(self, added: Rows, removed: Rows) -> None:
        """Count rows that came, the oldest first, and those that left."""
        for rows, sign in ((added, 1), (removed, -1)):
            for top in range(0, len(rows.ids), COUNTED):
                self._count(rows.part(slice(top, top + COUNTED)), sign)

    def _count(self, rows: Rows, sign: int) -> None:
        spikes, weights = BitMatrix.from_rows(rows.bits).on(self.device), by_age(len(rows.ids), self.half_life)
        decay = self._decay(len(rows.ids))
        self._add(of_rows(spikes, rows.ids, rows.targets, weights), sign, decay)
        self._part()
        if self.half_life is not None:
            self.gram *= decay
            self.gram += sign * spikes.select(self.distinct).weighted_gram(weights)
        else:
            self._widen(len(rows.ids))
            spikes.select(self.distinct).accumulate_gram(self.gram, sign)
        self.rows += sign * len(rows.ids)

    def merge(self, rows: int, sums: Sums, tiles: Iterable[Tile]) -> None:
        """Add sums over rows that were counted elsewhere, none of which forgets; `tiles` make up the lower half."""
        self._add(sums, 1, 1.0)
        self._part()
        self._widen(rows)
        for top, left, products in tiles:
            above, beside = self._among_distinct(top), self._among_distinct(left)
            chosen = products[np.ix_(self.distinct[above] - top.start, self.distinct[beside] - left.start)]
            self.gram[above, beside] += chosen
            if top != left:
                self.gram[beside, above] += chosen.T
        self.rows += rows

    def _among_distinct(self, witnesses: range) -> slice:
        """Where in `distinct` these witnesses are."""
        first, end = np.searchsorted(self.distinct, [witnesses.start, witnesses.stop])
        return slice(int(first), int(end))

    def _add(self, sums: Sums, sign: int, decay: float) -> None:
        """All sums but D'D."""
        for name in ("weight", "counts", "cross", "total", "energy"):
            setattr(self, name, decay * getattr(self, name) + sign * getattr(sums, name))
        combine = fingerprint.add if sign > 0 else fingerprint.subtract
        self.fingerprints = combine(self.fingerprints, sums.fingerprints)
        self.everything = combine(self.everything, sums.everything)

    def _part(self) -> None:
        """Columns that are no longer equal get rows of D'D of their own."""
        distinct, classes = fingerprint.distinct(self.fingerprints)
        if not np.array_equal(distinct, self.distinct):
            parents = self._class[distinct]
            self.gram = self.gram[np.ix_(parents, parents)]
        self.distinct, self._class = distinct, classes

    def _widen(self, rows: int) -> None:
        """Make room for so many more rows."""
        if self.rows + rows > INT32_ROWS:
            self.gram = self.gram.astype(np.int64, copy=False)

    def _decay(self, rows: int) -> float:
        """What is left of a row's weight after so many newer ones."""
        return 1.0 if self.half_life is None else float(2 ** (-rows / self.half_life))

    def arrays(self) -> Arrays:
        """A copy of all of the state."""
        scalars = {"rows": np.array(self.rows), "weight": np.array(self.weight)}
        return {**scalars, **{name: getattr(self, name).copy() for name in SUMS}}

    @classmethod
    def from_arrays(cls, arrays: Arrays, half_life: int | None = None) -> Self:
        """The state that `arrays` gave."""
        witnesses, outputs = arrays["cross"].shape
        self = cls(witnesses, outputs, half_life)
        self.rows, self.weight = int(arrays["rows"]), float(arrays["weight"])
        for name in SUMS:
            setattr(self, name, arrays[name])
        self.distinct, self._class = fingerprint.distinct(self.fingerprints)
        return self

    def moments(self) -> Moments:
        """The squared loss over the candidates."""
        chosen = self.candidates
        at = np.searchsorted(self.distinct, chosen)
        gram = self.gram if len(at) == len(self.distinct) else self.gram[np.ix_(at, at)]
        sums = self.counts[chosen], self.cross[chosen], self.total, self.energy
        return Moments(self.rows, gram, *sums, self.weight)

    def samples(self, rows: Rows, loss: Loss, weights: Array | None = None) -> Samples:
        """Any loss over the candidates; `rows` are those that were counted."""
        return Samples(loss, BitMatrix.from_rows(rows.bits).select(self.candidates), rows.targets, weights)

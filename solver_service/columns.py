"""The dictionary's columns: sums over rows, kept up to date from the rows that came and left (design, section 2.3).

For all P columns: counts, D'Y and fingerprints. For the distinct ones also D'D: columns that have been equal so far
share a row of it and get their own when they part, because until then their inner products were the same. All sums
are integers (values as targets apart), so neither order nor batching can change them. They are all that the squared
loss needs, in O(P^2) memory whatever N is: an endless stream is held in them, and in snapshots of them.

With a half-life h every row that is counted multiplies what came before it by 2^(-1/h), fingerprints apart: those sums
are float64 then, so that another batching changes their last digits.
"""

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from solver_service import fingerprint
from solver_service.bits import BitMatrix
from solver_service.dictionary import Rows
from solver_service.fit import Moments, Samples
from solver_service.losses import Array, Loss
from solver_service.snapshot import Arrays
from solver_service.weights import by_age

SUMS = ("counts", "cross", "total", "energy", "fingerprints", "everything", "gram")
COUNTED = 2**16  # rows in one go: it bounds the copies, and 2^32 times it is exact in float64
INT32_ROWS = 2**31 - 1  # more need wider inner products


class Columns:
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
        spikes, weights = BitMatrix.from_rows(rows.bits), by_age(len(rows.ids), self.half_life)
        self._sum(rows, spikes, weights[:, None], sign)
        distinct, classes = fingerprint.distinct(self.fingerprints)
        if not np.array_equal(distinct, self.distinct):
            parents = self._class[distinct]
            self.gram = self.gram[np.ix_(parents, parents)]
        self.distinct, self._class = distinct, classes
        if self.half_life is not None:
            self.gram *= self._decay(len(rows.ids))
            self.gram += sign * spikes.select(distinct).weighted_gram(weights)
        else:
            if self.rows + len(rows.ids) > INT32_ROWS:
                self.gram = self.gram.astype(np.int64, copy=False)
            spikes.select(distinct).accumulate_gram(self.gram, sign)
        self.rows += sign * len(rows.ids)

    def _sum(self, rows: Rows, spikes: BitMatrix, weights: Array, sign: int) -> None:
        outputs, words, decay = rows.targets.shape[1], fingerprint.words(rows.ids), self._decay(len(rows.ids))
        sums = spikes.transpose_times(np.concatenate([weights, weights * rows.targets, words], axis=1))
        self.weight = decay * self.weight + sign * float(weights.sum())
        self.counts = decay * self.counts + sign * sums[:, 0]
        self.cross = decay * self.cross + sign * sums[:, 1 : 1 + outputs]
        self.total = decay * self.total + sign * (weights * rows.targets).sum(axis=0)
        self.energy = decay * self.energy + sign * (weights * np.square(rows.targets)).sum(axis=0)
        combine = fingerprint.add if sign > 0 else fingerprint.subtract
        limbs = sums[:, 1 + outputs :].astype(np.uint64)
        self.fingerprints = combine(self.fingerprints, fingerprint.from_limbs(limbs))
        self.everything = combine(self.everything, fingerprint.from_limbs(words.sum(axis=0, keepdims=True)))

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

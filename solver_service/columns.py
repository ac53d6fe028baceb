"""The dictionary's columns: sums over rows, kept up to date from the rows that came and left (design, section 2.3).

For all P columns: counts, D'Y and fingerprints. For the distinct ones also D'D: columns that have been equal so far
share a row of it and get their own when they part, because until then their inner products were the same. All sums
are integers (values as targets apart), so neither order nor batching can change them.
"""

import numpy as np
import numpy.typing as npt

from solver_service import fingerprint
from solver_service.bits import accumulate_gram, column_sums, unpack
from solver_service.dictionary import Rows
from solver_service.fit import Moments, Samples
from solver_service.losses import Array, Loss


class Columns:
    def __init__(self, witnesses: int, outputs: int) -> None:
        self.rows = 0
        self.counts: Array = np.zeros(witnesses)
        self.cross: Array = np.zeros((witnesses, outputs))  # D'Y
        self.total: Array = np.zeros(outputs)
        self.energy: Array = np.zeros(outputs)
        self.fingerprints: fingerprint.Words = np.zeros((witnesses, 2), np.uint64)
        self.distinct: npt.NDArray[np.int64] = np.zeros(1, np.int64)  # the lowest witness of each class
        self._class: npt.NDArray[np.int64] = np.zeros(witnesses, np.int64)
        self.gram: npt.NDArray[np.int32] = np.zeros((1, 1), np.int32)  # D'D over `distinct`; N < 2^31

    @property
    def bytes(self) -> int:
        return self.gram.nbytes + self.cross.nbytes + self.fingerprints.nbytes + self.counts.nbytes

    @property
    def candidates(self) -> npt.NDArray[np.int64]:
        """Distinct columns that are not constant; the intercept spans the constant ones."""
        counts = self.counts[self.distinct]
        return self.distinct[(counts > 0) & (counts < self.rows)]

    def update(self, added: Rows, removed: Rows) -> None:
        self._sum(added, 1)
        self._sum(removed, -1)
        distinct, classes = fingerprint.distinct(self.fingerprints)
        if not np.array_equal(distinct, self.distinct):
            parents = self._class[distinct]
            self.gram = self.gram[np.ix_(parents, parents)]
        self.distinct, self._class = distinct, classes
        accumulate_gram(self.gram, added.bits, distinct, 1)
        accumulate_gram(self.gram, removed.bits, distinct, -1)

    def _sum(self, rows: Rows, sign: int) -> None:
        weights = np.concatenate([np.ones((len(rows.ids), 1)), rows.targets, fingerprint.words(rows.ids)], axis=1)
        sums = column_sums(rows.bits, weights)
        outputs = rows.targets.shape[1]
        self.rows += sign * len(rows.ids)
        self.counts += sign * sums[0]
        self.cross += sign * sums[1 : 1 + outputs].T
        self.total += sign * rows.targets.sum(axis=0)
        self.energy += sign * np.square(rows.targets).sum(axis=0)
        words = fingerprint.from_limbs(sums[1 + outputs :].T.astype(np.uint64))
        combine = fingerprint.add if sign > 0 else fingerprint.subtract
        self.fingerprints = combine(self.fingerprints, words)

    def moments(self) -> Moments:
        """The squared loss over the candidates."""
        chosen = self.candidates
        at = np.searchsorted(self.distinct, chosen)
        gram = self.gram if len(at) == len(self.distinct) else self.gram[np.ix_(at, at)]
        return Moments(self.rows, gram, self.counts[chosen], self.cross[chosen], self.total, self.energy)

    def samples(self, rows: Rows, loss: Loss) -> Samples:
        """Any loss over the candidates; `rows` are those that were counted."""
        return Samples(loss, unpack(rows.bits)[:, self.candidates], rows.targets)

"""A set of unsigned 64-bit sequence ids kept as spans, so that ids counted up by a client cost two numbers in all.

Spans are sorted, disjoint and not adjacent; `first` and `last` are both included.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.uint64]


class IdSet:
    def __init__(self, spans: Iterable[tuple[int, int]] = (), step: int = 1) -> None:
        """`step` is the distance of neighbours: a lane sees every `lanes`-th id of a counting client."""
        pairs = sorted(spans)
        self.step = step
        self._first = np.array([first for first, _ in pairs], np.uint64)
        self._last = np.array([last for _, last in pairs], np.uint64)

    def spans(self) -> list[tuple[int, int]]:
        return list(zip(self._first.tolist(), self._last.tolist(), strict=True))

    def within(self, low: int, high: int) -> list[tuple[int, int]]:
        """Spans of the ids from `low` to `high`, both included."""
        begin = int(np.searchsorted(self._last, np.uint64(low)))
        end = int(np.searchsorted(self._first, np.uint64(high), side="right"))
        spans = list(zip(self._first[begin:end].tolist(), self._last[begin:end].tolist(), strict=True))
        clipped = [
            (
                first + max(0, -(-(low - first) // self.step)) * self.step,
                last - max(0, -(-(last - high) // self.step)) * self.step,
            )
            for first, last in spans
        ]
        return [(first, last) for first, last in clipped if first <= last]

    @property
    def bytes(self) -> int:
        return self._first.nbytes + self._last.nbytes

    def __len__(self) -> int:
        """Number of ids (not of spans)."""
        return sum((last - first) // self.step + 1 for first, last in self.spans())

    def __contains__(self, sequence: int) -> bool:
        span = int(self._first.searchsorted(np.uint64(sequence), side="right")) - 1
        if span < 0 or sequence > int(self._last[span]):
            return False
        return (sequence - int(self._first[span])) % self.step == 0

    def contains(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of `ids` [B] are in the set."""
        if not len(self._first):
            return np.zeros(len(ids), bool)
        if len(ids) == 1:  # records of one sequence are common, and numpy takes its time to begin
            return np.array([int(ids[0]) in self])
        at = np.searchsorted(self._first, ids, side="right")
        at_or_first = np.maximum(at, 1) - 1
        inside = (at > 0) & (ids <= self._last[at_or_first])
        if self.step > 1:
            inside &= (ids - self._first[at_or_first]) % np.uint64(self.step) == 0
        return inside

    def add(self, ids: Ids) -> None:
        """Add `ids` [B]; those already present change nothing. All must be congruent modulo `step`."""
        if len(ids) == 1 and len(self._last) and ids[0] == self._last[-1] + np.uint64(self.step):
            self._last[-1] = ids[0]  # a client that counts up
            return
        new = np.unique(ids[~self.contains(ids)])
        if not len(new):
            return
        first = np.concatenate([self._first, new])
        last = np.concatenate([self._last, new])
        order = np.argsort(first)
        first, last = first[order], last[order]
        apart = first[1:] - last[:-1] != np.uint64(self.step)
        self._first = first[np.concatenate([[True], apart])]
        self._last = last[np.concatenate([apart, [True]])]

"""The dictionary's rows: every sample once, as packed spikes of all shards and its target (design, section 2.3).

A row is one sample id. It is complete when the piece of every shard has arrived; a piece seen twice changes nothing.
Rows age in the order of their pieces of shard 0, which one Kafka partition carries, so the rows that a window keeps,
the newest complete ones, do not depend on how other partitions interleave. Targets are those of shard 0.
"""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from snn.model import ReadoutSpec
from solver_service.bits import Bits
from solver_service.losses import Array
from wire.idset import Ids, IdSet

Slots = npt.NDArray[np.intp]


class Piece(NamedTuple):
    """Spikes of one shard: `bits` [N, P of the shard / 8] for the samples `ids` [N]; targets [N] or [N, C]."""

    shard: int
    ids: Ids
    bits: Bits
    targets: npt.NDArray[np.int32] | npt.NDArray[np.float32]


class Rows(NamedTuple):
    """Complete rows: ids [N], bits [N, P/8], targets [N, C] as the loss takes them."""

    ids: Ids
    bits: Bits
    targets: Array


class Dictionary:
    def __init__(self, witnesses: int, shards: int, readout: ReadoutSpec) -> None:
        self.witnesses, self.shards, self.readout = witnesses, shards, readout
        self._slot: dict[int, int] = {}
        self._next_age = 0
        self._gone = IdSet()  # left the window: their late or repeated pieces are dropped
        self._allocate(0)
        self._clear_removed()

    def _allocate(self, capacity: int) -> None:
        values = self.readout.target == "values"
        self._ids: Ids = np.zeros(capacity, np.uint64)
        self._bits: Bits = np.zeros((capacity, self.witnesses // 8), np.uint8)
        self._arrived = np.zeros((capacity, self.shards), bool)
        self._age = np.zeros(capacity, np.int64)
        self._targets: npt.NDArray[np.int32] | npt.NDArray[np.float32] = (
            np.zeros((capacity, self.readout.outputs), np.float32) if values else np.zeros(capacity, np.int32)
        )
        self._counted = np.zeros(capacity, bool)  # handed out by take_changes
        self._free = list(range(capacity - 1, -1, -1))
        self._complete = np.zeros(capacity, bool)
        self.rows = 0
        self.fresh = 0  # complete rows that take_changes has not handed out

    @property
    def pending(self) -> int:
        """Rows that wait for a shard."""
        return len(self._slot) - self.rows

    @property
    def bytes(self) -> int:
        arrays = (self._ids, self._bits, self._arrived, self._age, self._targets, self._counted, self._complete)
        return sum(array.nbytes for array in arrays) + 100 * len(self._slot)  # an entry of the hash table

    def add(self, piece: Piece) -> int:
        """Store the samples of a piece that are new; the number that were not."""
        first = np.sort(np.unique(piece.ids, return_index=True)[1])  # once each, in the order of arrival
        first = first[~self._gone.contains(piece.ids[first])]
        slots = self._slots(piece.ids[first])
        new = ~self._arrived[slots, piece.shard]
        first, slots = first[new], slots[new]
        width = self.witnesses // self.shards // 8
        self._bits[slots, piece.shard * width : (piece.shard + 1) * width] = piece.bits[first]
        self._arrived[slots, piece.shard] = True
        if piece.shard == 0:
            self._targets[slots] = piece.targets[first]
            self._age[slots] = self._next_age + np.arange(len(slots))
            self._next_age += len(slots)
        complete = slots[self._arrived[slots].all(axis=1)]
        self._complete[complete] = True
        self.rows += len(complete)
        self.fresh += len(complete)
        self._shrink_to_window()
        return len(piece.ids) - len(first)

    def _slots(self, ids: Ids) -> Slots:
        """The slot of each id [N]; new ids get a free one."""
        if len(ids) > len(self._free):
            self._grow(len(ids))
        slots = np.empty(len(ids), np.intp)
        for at, sample in enumerate(ids.tolist()):
            slot = self._slot.get(sample)
            if slot is None:
                slot = self._slot[sample] = self._free.pop()
                self._ids[slot] = sample
            slots[at] = slot
        return slots

    def _grow(self, needed: int) -> None:
        old = len(self._ids)
        added = max(old, needed, 1024)
        for name in ("_ids", "_bits", "_arrived", "_age", "_targets", "_counted", "_complete"):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros((added, *array.shape[1:]), array.dtype)]))
        self._free[:0] = range(old + added - 1, old - 1, -1)

    def _shrink_to_window(self) -> None:
        window = self.readout.window
        if window is None or self.rows <= window:
            return
        complete = np.flatnonzero(self._complete)
        leaving = complete[np.argsort(self._age[complete])[: self.rows - window]]
        counted = self._counted[leaving]
        self.fresh -= int((~counted).sum())
        self._remember_removed(leaving[counted])
        self._gone.add(self._ids[leaving])
        for slot in leaving.tolist():
            del self._slot[int(self._ids[slot])]
        self._free.extend(leaving.tolist())
        self._arrived[leaving] = False
        self._complete[leaving] = self._counted[leaving] = False
        self.rows = window

    def take_changes(self) -> tuple[Rows, Rows]:
        """Complete rows that came, and counted rows that left, since the last call."""
        slots = np.flatnonzero(self._complete & ~self._counted)
        self._counted[slots] = True
        self.fresh = 0
        removed = Rows(*(np.concatenate(parts) for parts in zip(*self._removed, strict=True)))
        self._clear_removed()
        return self._copy(slots), removed

    def all_rows(self) -> Rows:
        """Every complete row that take_changes has handed out."""
        return self._copy(np.flatnonzero(self._counted))

    def counted_ids(self) -> Ids:
        """The ids of all_rows, without their bits."""
        return self._ids[self._counted]

    def _copy(self, slots: Slots) -> Rows:
        return Rows(self._ids[slots], self._bits[slots], encode_targets(self._targets[slots], self.readout))

    def _remember_removed(self, slots: Slots) -> None:
        if len(slots):
            self._removed.append(self._copy(slots))

    def _clear_removed(self) -> None:
        self._removed = [self._copy(np.zeros(0, np.intp))]

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """All of the state, complete rows and waiting pieces, in the order of age; equal states give equal arrays."""
        used = np.fromiter(self._slot.values(), np.intp, len(self._slot))
        used = used[np.lexsort((self._ids[used], np.where(self._arrived[used, 0], self._age[used], self._next_age)))]
        return {
            "ids": self._ids[used],
            "bits": self._bits[used],
            "arrived": self._arrived[used],
            "age": np.where(self._arrived[used, 0], self._age[used], 0),
            "targets": self._targets[used],
            "gone": np.array(self._gone.spans(), np.uint64).reshape(-1, 2),
            "next_age": np.array([self._next_age]),
        }

    @classmethod
    def from_arrays(
        cls, arrays: dict[str, npt.NDArray[np.generic]], witnesses: int, shards: int, readout: ReadoutSpec
    ) -> Self:
        """The state that `arrays` gave; nothing counts as handed out."""
        self = cls(witnesses, shards, readout)
        count = len(arrays["ids"])
        self._grow(count)
        for name in ("ids", "bits", "arrived", "age", "targets"):
            getattr(self, f"_{name}")[:count] = arrays[name]
        self._slot = {int(sample): slot for slot, sample in enumerate(arrays["ids"].tolist())}
        self._free = [slot for slot in self._free if slot >= count]
        self._complete[:count] = self._arrived[:count].all(axis=1)
        self.rows = self.fresh = int(self._complete.sum())
        self._gone = IdSet([(int(a), int(b)) for a, b in arrays["gone"].tolist()])
        self._next_age = int(arrays["next_age"][0])
        return self


def encode_targets(targets: npt.NDArray[np.int32] | npt.NDArray[np.float32], readout: ReadoutSpec) -> Array:
    """Targets [N, C] as the loss takes them: values, one-hot rows, or one 0/1 column for the logistic loss."""
    if readout.target == "values":
        return targets.astype(np.float64)
    if readout.loss == "logistic":
        return targets[:, None].astype(np.float64)
    return np.asarray(targets[:, None] == np.arange(readout.outputs), np.float64)

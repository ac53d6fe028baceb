"""The dictionary's rows: every sample once, as packed spikes of all shards and its target (design, section 2.3).

A row is one sample id. It is complete when the piece of every shard has arrived; a piece seen twice changes nothing.
Rows age in the order of their pieces of shard 0, which one Kafka partition carries, so the rows that a window keeps,
the newest complete ones, do not depend on how other partitions interleave. Targets are those of shard 0.

The squared loss without a window needs sums over the rows alone: there a row's bits go when it has been counted, and
what is left of an endless stream are the ids that came, as spans, and the rows that wait. All other models keep rows,
as many as fit into a budget: the newest with a window or a half-life, else a uniform sample of all that came, those
whose ids have the k lowest hashes (bottom-k sampling: Cohen and Kaplan, "Summarizing data using bottom-k sketches",
PODC 2007). Which ids these are is a function of the ids that came, whatever their order, repetitions and restarts.
"""

import math
from copy import deepcopy
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from snn import fingerprint
from snn.bits import Bits
from snn.model import ModelSpec, ReadoutSpec
from snn.readout import Numbers, Rows, rows_of
from solver_service.snapshot import Arrays
from solver_service.weights import HALVINGS, lifetime
from wire.idset import Ids, IdSet
from wire.reasons import Reason, WireError

Slots = npt.NDArray[np.intp]

BUDGET = 2**30  # bytes of rows
COUNT_ROWS = 2**15  # so many wait to be counted at most: 8 MB of bits at P = 2,000, and a count stays short
ENTRY_BYTES = 100  # of the hash table from ids to slots
SLACK = 8  # an eighth more rows than will be kept gather before the surplus leaves at once: constant work a row
NO_CEILING = 2**62
RANK_KEY = np.uint64(0xA24BAED4963EE407)  # fixed, and none of the fingerprints' keys
PER_ROW = ("_ids", "_bits", "_arrived", "_age", "_targets", "_counted", "_complete")


class Piece(NamedTuple):
    """Spikes of one shard for the samples `ids` [N]: bits [N, S, P of the shard / 8], targets [N, S, H or C]."""

    shard: int
    ids: Ids
    bits: Bits
    targets: Numbers


class Shape(NamedTuple):
    """What a sample holds: spikes of `witnesses` in so many `shards`, at `steps` timesteps (S)."""

    witnesses: int
    shards: int
    steps: int

    @classmethod
    def of(cls, model: ModelSpec) -> "Shape":
        return cls(model.witnesses.count, model.witnesses.shards, model.target_steps)


class Dictionary:
    def __init__(self, shape: Shape, readout: ReadoutSpec, budget: int = BUDGET) -> None:
        """`budget`: bytes for rows. Raises WireError for a window or half-life that needs more."""
        self.shape, self.readout = shape, readout
        self.sums_only = readout.loss == "squared" and readout.window is None and readout.class_weight is None
        self.seen = 0  # complete rows that came so far
        self.fresh = 0  # complete rows that take_changes has not handed out
        self._seen = IdSet()  # of these rows, but for some of the fresh ones: their late or repeated pieces are dropped
        self._slot: dict[int, int] = {}
        self._held = 0  # complete rows that have a slot
        self._added: Slots = np.zeros(0, np.intp)  # handed out by the last take_changes
        self._next_age = 0
        self._ceiling = NO_CEILING  # the lowest rank that a row had that left for its rank
        self._allocate(0)
        self._clear_removed()
        self.keep = self._most_rows(budget)

    def _most_rows(self, budget: int) -> int:
        """Complete rows that may stay: for good, or until they are counted."""
        fit = max(1, int(budget / (self._row_bytes * (1 + 1 / SLACK))))
        if self.sums_only:
            return min(COUNT_ROWS, fit)
        if self.newest is not None and self.newest > fit:
            name = "window" if self.readout.window else f"half_life ({HALVINGS} times its rows are kept)"
            raise WireError(
                Reason.TOO_LARGE,
                f"readout.{name}: expected at most {fit:,} samples of {self.shape.witnesses:,} witnesses, which is "
                f"what {budget / 2**20:g} MiB hold, got {self.newest:,}. Shorten it, use fewer witnesses, or give the "
                "solver service more memory: SPIKELOOM_SOLVER_ROWS_MIB",
            )
        return self.newest or fit

    @property
    def newest(self) -> int | None:
        """Rows that it keeps where these are the newest ones."""
        return lifetime(self.readout.half_life) if self.readout.half_life else self.readout.window

    def _allocate(self, capacity: int) -> None:
        kind = np.float32 if self.readout.target == "values" else np.int32
        witnesses, shards, steps = self.shape
        self._ids: Ids = np.zeros(capacity, np.uint64)
        self._bits: Bits = np.zeros((capacity, steps, witnesses // 8), np.uint8)
        self._arrived = np.zeros((capacity, shards), bool)
        self._age = np.zeros(capacity, np.int64)
        self._targets: Numbers = np.zeros((capacity, steps, self.readout.target_width), kind)
        self._counted = np.zeros(capacity, bool)  # handed out by take_changes
        self._free = list(range(capacity - 1, -1, -1))
        self._complete = np.zeros(capacity, bool)

    @property
    def rows(self) -> int:
        """Complete rows that a readout of now would be trained on."""
        if self.sums_only:
            return self.seen
        return min(self._held, self.keep)

    @property
    def pending(self) -> int:
        """Rows that wait for a shard."""
        return len(self._slot) - self._held

    @property
    def full(self) -> bool:
        """As many rows wait to be counted as may."""
        return self.sums_only and self.fresh >= self.keep

    @property
    def bytes(self) -> int:
        removed = sum(array.nbytes for rows in self._removed for array in rows)
        return self._row_bytes * len(self._ids) + removed + self._seen.bytes

    @property
    def _row_bytes(self) -> int:
        arrays = [getattr(self, name) for name in PER_ROW]
        return ENTRY_BYTES + sum(array.itemsize * math.prod(array.shape[1:]) for array in arrays)

    def add(self, piece: Piece) -> int:
        """Store the samples of a piece that are new; the number that were not."""
        first = np.sort(np.unique(piece.ids, return_index=True)[1])  # once each, in the order of arrival
        first = first[~self._seen.contains(piece.ids[first])]
        slots = self._slots(piece.ids[first])
        new = ~self._arrived[slots, piece.shard]
        first, slots = first[new], slots[new]
        width = self.shape.witnesses // self.shape.shards // 8
        self._bits[slots, :, piece.shard * width : (piece.shard + 1) * width] = piece.bits[first]
        self._arrived[slots, piece.shard] = True
        if piece.shard == 0:
            self._targets[slots] = piece.targets[first]
            self._age[slots] = self._next_age + np.arange(len(slots))
            self._next_age += len(slots)
        complete = slots[self._arrived[slots].all(axis=1)]
        self._complete[complete] = True
        self._held += len(complete)
        self.fresh += len(complete)
        self.seen += len(complete)
        if not self.sums_only and self._held > self.keep + self.keep // SLACK:
            self._settle()
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
        old, most = len(self._ids), self.keep + self.keep // SLACK
        added = max(needed, 1024, min(old, most - old) if old < most else old // SLACK)
        for name in PER_ROW:
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros((added, *array.shape[1:]), array.dtype)]))
        self._free[:0] = range(old + added - 1, old - 1, -1)

    def _settle(self) -> None:
        """Note the ids of fresh rows; let go of all but the `keep` rows of lowest rank."""
        self._seen.add(self._ids[self._complete & ~self._counted])
        if self.sums_only:
            return
        complete = np.flatnonzero(self._complete)
        rank = self._rank(complete)
        if len(rank) > self.keep:
            self._ceiling = min(self._ceiling, int(np.partition(rank, self.keep)[self.keep]))
        leaving = complete[rank >= self._ceiling]
        counted = self._counted[leaving]
        self.fresh -= int((~counted).sum())
        self._remember_removed(leaving[counted])
        self._drop(leaving)

    def _rank(self, slots: Slots) -> npt.NDArray[np.int64]:
        """Numbers below NO_CEILING, the newest rows' lowest, or those of ids that hash lowest."""
        if self.newest is not None:
            return -self._age[slots]
        return (fingerprint.mix(self._ids[slots] ^ RANK_KEY) >> np.uint64(2)).astype(np.int64)

    def _drop(self, slots: Slots) -> None:
        for sample in self._ids[slots].tolist():
            del self._slot[sample]
        self._free.extend(slots.tolist())
        self._bits[slots] = self._targets[slots] = 0
        self._arrived[slots] = False
        self._complete[slots] = self._counted[slots] = False
        self._held -= len(slots)

    def take_changes(self) -> tuple[Rows, Rows]:
        """Complete rows that came, the oldest first, and counted rows that left, since the last call."""
        self._settle()
        slots = np.flatnonzero(self._complete & ~self._counted)
        added = self._copy_by_age(slots)
        if self.sums_only:
            self._drop(slots)
        else:
            self._counted[slots] = True
        self._added = slots
        self.fresh = 0
        removed = Rows(*(np.concatenate(parts) for parts in zip(*self._removed, strict=True)))
        self._clear_removed()
        return added, removed

    def forget_earlier(self) -> None:
        """Let go of all rows that were handed out before the last take_changes."""
        earlier = np.setdiff1d(np.flatnonzero(self._counted), self._added)
        self._remember_removed(earlier)
        self._drop(earlier)

    def trained_on(self) -> IdSet:
        """The ids that a readout of now would be trained on, or a sample of them; right after take_changes."""
        if self.sums_only or self.newest is None:
            return deepcopy(self._seen)
        ids = IdSet()
        ids.add(self._ids[self._counted])
        return ids

    def all_rows(self) -> Rows:
        """Every row that take_changes has handed out and that has not left, the oldest first."""
        return self._copy_by_age(np.flatnonzero(self._counted))

    def _copy_by_age(self, slots: Slots) -> Rows:
        return self._copy(slots[np.argsort(self._age[slots])])

    def _copy(self, slots: Slots) -> Rows:
        return rows_of(self._ids[slots], self._bits[slots], self._targets[slots], self.readout)

    def _remember_removed(self, slots: Slots) -> None:
        if len(slots):
            self._removed.append(self._copy(slots))

    def _clear_removed(self) -> None:
        self._removed = [self._copy(np.zeros(0, np.intp))]

    def arrays(self) -> Arrays:
        """All of the state, complete rows and waiting pieces, in the order of age; equal states give equal arrays."""
        self._settle()
        used = np.fromiter(self._slot.values(), np.intp, len(self._slot))
        used = used[np.lexsort((self._ids[used], np.where(self._arrived[used, 0], self._age[used], self._next_age)))]
        return {
            "ids": self._ids[used],
            "bits": self._bits[used],
            "arrived": self._arrived[used],
            "age": np.where(self._arrived[used, 0], self._age[used], 0),
            "targets": self._targets[used],
            "seen": np.array(self._seen.spans(), np.uint64).reshape(-1, 2),
            "next_age": np.array([self._next_age]),
            "ceiling": np.array([self._ceiling]),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, shape: Shape, readout: ReadoutSpec, budget: int = BUDGET) -> Self:
        """The state that `arrays` gave; no row in it counts as handed out."""
        self = cls(shape, readout, budget)
        count = len(arrays["ids"])
        self._grow(count)
        for name in ("ids", "bits", "arrived", "age", "targets"):
            getattr(self, f"_{name}")[:count] = arrays[name]
        self._slot = {int(sample): slot for slot, sample in enumerate(arrays["ids"].tolist())}
        self._free = [slot for slot in self._free if slot >= count]
        self._complete[:count] = self._arrived[:count].all(axis=1)
        self._held = self.fresh = int(self._complete.sum())
        self._seen = IdSet([(int(a), int(b)) for a, b in arrays["seen"].tolist()])
        self.seen = len(self._seen)
        self._next_age, self._ceiling = int(arrays["next_age"][0]), int(arrays["ceiling"][0])
        return self

"""Where the pieces of a sample meet: spike columns of a group of samples wait here for those of all other shards.

The roll-out emits each shard of a sample by itself, in records of its own cut. A sample is whole when the piece of
every shard has come; then it is taken, once, with whatever other samples are whole, and its id is kept, so that a
roll-out job that was started from the beginning adds nothing.

State is the records as they came (docs/architecture.md): a record goes in when it brings something new and out when
all its samples were taken. Of these the ids remain, as spans. Memory is a cache of that, never ahead of it.
"""

from functools import reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from operators.lane import CHUNK_BITS, Store
from snn.model import ModelSpec
from wire.codec import MOST_SUMMED, Columns, decode_columns
from wire.idset import Ids, IdSet
from wire.targets import Targets


class Whole(NamedTuple):
    """Samples of which every shard has come: ids [N], rising; bits [N, S, P/8]; targets."""

    ids: Ids
    bits: npt.NDArray[np.uint8]
    targets: Targets


class Piece(NamedTuple):
    """What has not been taken of a record, which is stored under `key`."""

    key: str
    columns: Columns


class Meeting:
    def __init__(self, model: ModelSpec, groups: int, store: Store) -> None:
        """A group as `store` has it: samples whose ids are congruent modulo `groups`."""
        self._model, self._store = model, store
        self._taken = IdSet(step=groups)
        self._pieces: list[list[Piece]] = [[] for _ in range(model.witnesses.shards)]
        self._waiting = [0] * model.witnesses.shards  # samples of each shard
        self._enough = MOST_SUMMED
        self._number = 0
        self._load()

    @property
    def waiting(self) -> int:
        """Samples that wait: those of the shard that has most of them."""
        return max(self._waiting)

    @property
    def full(self) -> bool:
        """Whether as many samples wait as one `take` may return, all of them whole unless shards lag behind."""
        return min(self._waiting) >= self._enough

    def offer(self, columns: Columns, record: bytes) -> int:
        """Take what is new in `record`, decoded as `columns`; how many samples were taken before."""
        new = ~self._taken.contains(columns.ids)
        if new.any():
            self._number += 1
            key = f"r{self._number:x}"
            self._store.put(key, record)
            self._keep(key, _part(columns, new))
        return len(new) - int(new.sum())

    def take(self) -> Whole | None:
        """Whole samples, up to MOST_SUMMED, which are gone from here then; None where there are none."""
        if not all(self._pieces):
            return None
        ids = [np.concatenate([piece.columns.ids for piece in pieces]) for pieces in self._pieces]
        whole = reduce(np.intersect1d, ids)[:MOST_SUMMED]
        if not len(whole):
            self._enough = min(self._waiting) + MOST_SUMMED
            return None
        rows = [_first_rows(of_shard, whole) for of_shard in ids]
        bits = [
            np.concatenate([piece.columns.bits for piece in pieces])[at]
            for pieces, at in zip(self._pieces, rows, strict=True)
        ]
        targets = _joined([piece.columns.targets for piece in self._pieces[0]]).take(rows[0])
        self._remember(whole)
        self._release()
        # Where whole samples ran out, shards lag behind each other: no use in looking again at every record.
        self._enough = MOST_SUMMED + (min(self._waiting) if len(whole) < MOST_SUMMED else 0)
        return Whole(whole, np.concatenate(bits, axis=2), targets)

    def _keep(self, key: str, columns: Columns) -> None:
        self._pieces[columns.shard].append(Piece(key, columns))
        self._waiting[columns.shard] += len(columns.ids)

    def _remember(self, ids: Ids) -> None:
        """That these were taken."""
        self._taken.add(ids)
        for chunk in np.unique(ids >> np.uint64(CHUNK_BITS)).tolist():
            first = chunk << CHUNK_BITS
            spans = self._taken.within(first, first + (1 << CHUNK_BITS) - 1)
            self._store.put(f"t{chunk:x}", np.array(spans, "<u8").tobytes())

    def _release(self) -> None:
        """Let go of samples that were taken."""
        held, self._pieces = self._pieces, [[] for _ in self._pieces]
        self._waiting = [0] * len(held)
        for piece in (piece for pieces in held for piece in pieces):
            left = ~self._taken.contains(piece.columns.ids)
            if left.any():
                self._keep(piece.key, piece.columns if left.all() else _part(piece.columns, left))
            else:
                self._store.remove(piece.key)

    def _load(self) -> None:
        stored = dict(self._store.items())
        chunks = [np.frombuffer(stored[key], "<u8").reshape(-1, 2).tolist() for key in stored if key[0] == "t"]
        self._taken = IdSet([(first, last) for spans in chunks for first, last in spans], step=self._taken.step)
        records = sorted((key for key in stored if key[0] == "r"), key=_number)
        self._number = _number(records[-1]) if records else 0
        for key in records:
            columns = decode_columns(stored[key], self._model)
            self._keep(key, _part(columns, ~self._taken.contains(columns.ids)))


def _first_rows(ids: Ids, wanted: Ids) -> npt.NDArray[np.intp]:
    """Where each of `wanted` is first among `ids`."""
    distinct, first = np.unique(ids, return_index=True)
    return first[np.searchsorted(distinct, wanted)]


def _part(columns: Columns, rows: npt.NDArray[np.bool_]) -> Columns:
    return columns._replace(ids=columns.ids[rows], bits=columns.bits[rows], targets=columns.targets.take(rows))


def _joined(targets: list[Targets]) -> Targets:
    return Targets(np.concatenate([one.numbers for one in targets]))  # type: ignore[misc]


def _number(key: str) -> int:
    return int(key[1:], 16)

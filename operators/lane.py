"""What a lane knows of its sequences: which are under way, what has come of them, which are done.

The same rules serve the roll-out and the prediction operator: slices are taken in order of time whatever order they
come in, a timestep is taken once, a finished sequence is not taken again, an abandoned one expires.

Sequences that have taken the same timesteps form a cohort and are handled as one: a block of thousands costs what a
single sequence costs. A record that touches a part of a cohort splits it.

A lane is a function of the records that made it. So Flink state holds the records of unfinished sequences as they
came, and a lane that is asked for the first time after a restart takes them again. Where the records have grown
longer than the membranes they lead to, a snapshot replaces them. Memory is a cache of state, never ahead of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from operators import state_pb2 as pb
from snn.model import ModelSpec
from wire import targets as targets_of
from wire.codec import Codes, Slice, decode_slice
from wire.idset import Ids, IdSet
from wire.targets import Targets

REMEMBER_MS = 24 * 3600 * 1000  # finished ids are known for one to two days, Kafka's usual span of re-sends
CHUNK_BITS = 16  # finished ids are stored in chunks of this many bits: a client that counts up rewrites one

Membranes = npt.NDArray[np.float32]


class Store(Protocol):
    """The part of Flink's MapState[str, bytes] that a lane uses."""

    def put(self, key: str, value: bytes) -> None: ...
    def remove(self, key: str) -> None: ...
    def items(self) -> Iterable[tuple[str, bytes]]: ...


class Answered(NamedTuple):
    """What has been answered at every step: the first `steps` timesteps, which led to `membranes` [B, n] in the network
    of the readout `version`. It is not stored: the records tell it again."""

    version: int
    steps: int
    membranes: Membranes

    def take(self, rows: npt.NDArray[np.intp]) -> "Answered":
        return self._replace(membranes=self.membranes[rows])


@dataclass(slots=True, eq=False)
class Cohort:
    """Sequences that have taken the same timesteps, and are known to be of the same length.

    ids: [B]. next: timesteps taken without a hole, of which the first `stepped` are in `membranes` [B, n] (None: at
    rest) and the others in `waiting` [B, k, m]. early: (start, [B, k, m]) behind a hole, by start. sent_us: of the
    newest record. entries: keys of the stored records and snapshots that tell all this; logged: bytes of codes a
    sequence in them since the last snapshot. length: timesteps of the sequences, the model's unless they end early.
    """

    ids: Ids
    targets: Targets
    length: int
    next: int = 0
    stepped: int = 0
    membranes: Membranes | None = None
    waiting: list[Codes] = field(default_factory=list)
    early: list[tuple[int, Codes]] = field(default_factory=list)
    touched_ms: int = 0
    sent_us: int = 0
    entries: list[str] = field(default_factory=list)
    logged: int = 0
    answered: Answered | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def complete(self) -> bool:
        """Whether they have all their timesteps."""
        return self.next >= self.length

    @property
    def codes(self) -> Codes:
        """[B, next - stepped, m] the timesteps that wait to be stepped."""
        return self.waiting[0] if len(self.waiting) == 1 else np.concatenate(self.waiting, axis=1)

    def take(self, rows: npt.NDArray[np.intp]) -> "Cohort":
        """The sequences `rows` as a cohort of their own."""
        return Cohort(
            self.ids[rows],
            self.targets.take(rows),
            self.length,
            self.next,
            self.stepped,
            None if self.membranes is None else self.membranes[rows],
            [codes[rows] for codes in self.waiting],
            [(start, codes[rows]) for start, codes in self.early],
            self.touched_ms,
            self.sent_us,
            list(self.entries),
            self.logged,
            None if self.answered is None else self.answered.take(rows),
        )


class Expired(NamedTuple):
    """An abandoned sequence and the timesteps it had taken without a hole."""

    id: int
    steps: int


class Lane:
    def __init__(self, model: ModelSpec, store: Store, now_ms: int, finished_every_ms: int = 0) -> None:
        """A lane as `store` has it. Ids that finish are stored by every `save`, or where all sequences are finished by
        one in `finished_every_ms`: a crash may then forget some, which will do where an answer may be given twice."""
        self._model, self._store = model, store
        self._finished_every_ms, self._finished_stored_ms = finished_every_ms, now_ms
        self._timesteps, self._every_step = model.input.timesteps, model.readout.every_step
        self._cohort_of: dict[int, Cohort] = {}
        self._pending: dict[Cohort, None] = {}  # those with codes that wait
        self._complete: dict[Cohort, None] = {}  # those with all timesteps
        self._references: dict[str, int] = {}  # how many cohorts need a stored entry
        self._unsaved: dict[str, bytes] = {}  # new entries, until `save`
        self._number = 0
        self._finished: dict[int, IdSet] = {}  # by period of REMEMBER_MS
        self._dirty: set[tuple[int, int]] = set()  # (period, chunk) of finished ids to be stored
        self._load(now_ms)

    @property
    def live(self) -> int:
        """Sequences under way."""
        return len(self._cohort_of)

    @property
    def ready_steps(self) -> int:
        """Timesteps of complete sequences that wait to be stepped, summed over sequences."""
        return sum(len(cohort) * (cohort.next - cohort.stepped) for cohort in self._complete)

    def complete(self) -> list[Cohort]:
        """Cohorts that have taken all timesteps."""
        return list(self._complete)

    def pending(self) -> list[Cohort]:
        """Cohorts with timesteps that wait to be stepped."""
        return list(self._pending)

    # -- what comes and goes ---------------------------------------------------------------------------------------

    def offer(self, piece: Slice, record: bytes, now_ms: int) -> int:
        """Take what is new in `record`, decoded as `piece`; how many timesteps were duplicates."""
        key = self._next_key("r")
        duplicates = self._take(piece, key, now_ms)
        if key in self._references:
            self._unsaved[key] = record
        return duplicates

    def pass_on(self, piece: Slice, now_ms: int) -> Cohort | None:
        """Whole sequences of which nothing is known yet, as a cohort that is finished already; None: `offer` them."""
        whole = piece.start == 0 and (piece.ends or piece.codes.shape[1] == self._timesteps)
        if not whole or not self._cohort_of.keys().isdisjoint(piece.ids.tolist()):
            return None
        if any(period.contains(piece.ids).any() for period in self._finished.values()):
            return None
        self._remember(piece.ids, now_ms)
        length = piece.codes.shape[1]
        return Cohort(piece.ids, piece.targets, length, length, waiting=[piece.codes], sent_us=piece.sent_us)

    def stepped(self, cohort: Cohort, membranes: Membranes) -> None:
        """All that waited is in `membranes` [B, n] now."""
        cohort.membranes, cohort.stepped = membranes, cohort.next
        cohort.waiting.clear()
        self._pending.pop(cohort, None)
        if cohort.logged > membranes.itemsize * membranes.shape[1]:
            self._snapshot(cohort)

    def finish(self, cohorts: Iterable[Cohort], now_ms: int) -> None:
        """Forget complete sequences and drop what else may come of them."""
        for cohort in cohorts:
            self._remember(cohort.ids, now_ms)
            self._drop(cohort)

    def _remember(self, ids: Ids, now_ms: int) -> None:
        """That these are finished."""
        period = now_ms // REMEMBER_MS
        if period not in self._finished:
            self._forget_finished_before(period - 1)
            self._finished[period] = IdSet(step=self._model.lanes)
        self._finished[period].add(ids)
        self._dirty.update({(period, sequence >> CHUNK_BITS) for sequence in ids.tolist()})

    def expire(self, older_than_ms: int) -> list[Expired]:
        """Drop sequences untouched since `older_than_ms`."""
        gone = [cohort for cohort in self._cohorts() if cohort.touched_ms < older_than_ms]
        shared = {key for cohort in gone for key in cohort.entries}
        for cohort in gone:
            self._drop(cohort)
        for cohort in self._cohorts():  # an entry that others need would bring the dropped ones back
            if shared.intersection(cohort.entries):
                self._snapshot(cohort)
        return [Expired(sequence, cohort.next) for cohort in gone for sequence in cohort.ids.tolist()]

    def save(self, now_ms: int) -> None:
        """Bring the store up to date; before the operator returns."""
        for key, value in self._unsaved.items():
            self._store.put(key, value)
        self._unsaved.clear()
        # A stored record that others still need would bring finished sequences back, if it were not said at once.
        if not self._references and now_ms < self._finished_stored_ms + self._finished_every_ms:
            return
        for period, chunk in self._dirty:
            first = chunk << CHUNK_BITS
            spans = self._finished[period].within(first, first + (1 << CHUNK_BITS) - 1)
            self._store.put(_finished_key(period, chunk), np.array(spans, "<u8").tobytes())
        self._dirty.clear()
        self._finished_stored_ms = now_ms

    # -- taking a record -------------------------------------------------------------------------------------------

    def _take(self, piece: Slice, key: str, now_ms: int) -> int:
        steps = piece.codes.shape[1]
        done = np.zeros(len(piece.ids), bool)
        for period in self._finished.values():
            done |= period.contains(piece.ids)
        duplicates = int(done.sum()) * steps
        for cohort, rows in self._touched(piece.ids, done):
            codes = piece.codes if rows is None else piece.codes[rows]
            targets = piece.targets if rows is None else piece.targets.take(rows)
            before = cohort.logged
            duplicates += self._place(cohort, piece.start, codes)
            ended = self._end(cohort, piece)
            news = cohort.targets.merge(targets, piece.start if self._every_step else 0)
            if cohort.logged > before or news is not cohort.targets or ended:
                cohort.targets = news
                cohort.entries.append(key)
                self._references[key] = self._references.get(key, 0) + 1
            cohort.touched_ms = now_ms
            cohort.sent_us = max(cohort.sent_us, piece.sent_us)
        return duplicates

    def _touched(self, ids: Ids, done: npt.NDArray[np.bool_]) -> Iterator[tuple[Cohort, npt.NDArray[np.intp] | None]]:
        """Cohorts that make up the unfinished `ids`, and the rows of the record in each one's order; None: as is."""
        numbers = ids.tolist()
        first = self._cohort_of.get(numbers[0])
        if first is not None and np.array_equal(first.ids, ids):
            yield first, None
            return
        if not done.any() and self._cohort_of.keys().isdisjoint(numbers):
            yield self._new(ids), None
            return
        rows_of: dict[Cohort | None, list[int]] = defaultdict(list)
        for row in np.flatnonzero(~done).tolist():
            rows_of[self._cohort_of.get(numbers[row])].append(row)
        for found, listed in rows_of.items():
            rows = np.array(listed)
            if found is None:
                yield self._new(ids[rows]), rows
                continue
            order = {sequence: row for row, sequence in zip(listed, ids[rows].tolist(), strict=True)}
            at = [row for row, sequence in enumerate(found.ids.tolist()) if sequence in order]
            cohort = found if len(at) == len(found) else self._split(found, np.array(at))
            yield cohort, np.array([order[sequence] for sequence in cohort.ids.tolist()])

    def _new(self, ids: Ids) -> Cohort:
        cohort = Cohort(ids, Targets.none(len(ids), self._model), self._timesteps)
        self._cohort_of.update(dict.fromkeys(ids.tolist(), cohort))
        return cohort

    def _split(self, cohort: Cohort, rows: npt.NDArray[np.intp]) -> Cohort:
        """Take `rows` out of `cohort`, which keeps the others."""
        part = cohort.take(rows)
        rest = cohort.take(np.setdiff1d(np.arange(len(cohort)), rows))
        for name in ("ids", "targets", "membranes", "waiting", "early", "answered"):
            setattr(cohort, name, getattr(rest, name))
        self._cohort_of.update(dict.fromkeys(part.ids.tolist(), part))
        for key in part.entries:
            self._references[key] += 1
        self._note(part)
        return part

    def _place(self, cohort: Cohort, start: int, codes: Codes) -> int:
        """Put the timesteps of a slice that were not seen yet in their place; how many were, over all sequences."""
        steps = codes.shape[1]
        if start == cohort.next and not cohort.early:
            new = steps
            cohort.waiting.append(codes)
            cohort.next += steps
        else:
            taken = {start + t for start, held in cohort.early for t in range(held.shape[1])}
            missing = [t for t in range(max(0, cohort.next - start), steps) if start + t not in taken]
            new = len(missing)
            for run in np.split(missing, np.flatnonzero(np.diff(missing) != 1) + 1) if missing else []:
                cohort.early.append((start + int(run[0]), codes[:, run[0] : run[-1] + 1]))
            cohort.early.sort(key=lambda held: held[0])
            while cohort.early and cohort.early[0][0] == cohort.next:
                _, held = cohort.early.pop(0)
                cohort.waiting.append(held)
                cohort.next += held.shape[1]
        cohort.logged += new * codes.shape[2] * codes.itemsize
        self._note(cohort)
        return (steps - new) * len(cohort)

    def _end(self, cohort: Cohort, piece: Slice) -> bool:
        """Whether it is news that these sequences are over with `piece`."""
        end = max(cohort.next, piece.start + piece.codes.shape[1])
        if not piece.ends or end >= cohort.length:
            return False
        cohort.length = end
        self._note(cohort)
        return True

    def _note(self, cohort: Cohort) -> None:
        if cohort.waiting:
            self._pending[cohort] = None
        if cohort.complete:
            self._complete[cohort] = None

    # -- what is stored --------------------------------------------------------------------------------------------

    def _cohorts(self) -> list[Cohort]:
        return list(dict.fromkeys(self._cohort_of.values()))

    def _drop(self, cohort: Cohort) -> None:
        for sequence in cohort.ids.tolist():
            del self._cohort_of[sequence]
        self._pending.pop(cohort, None)
        self._complete.pop(cohort, None)
        self._release(cohort)

    def _next_key(self, kind: str) -> str:
        self._number += 1
        return f"{kind}{self._number:x}"

    def _release(self, cohort: Cohort) -> None:
        """The cohort no longer needs its entries."""
        for key in cohort.entries:
            self._references[key] -= 1
            if not self._references[key]:
                del self._references[key]
                if self._unsaved.pop(key, None) is None:
                    self._store.remove(key)
        cohort.entries = []

    def _snapshot(self, cohort: Cohort) -> None:
        """Store the cohort itself instead of the records that led to it."""
        self._release(cohort)
        pieces, start = [], cohort.stepped
        for codes in cohort.waiting:
            pieces.append((start, codes))
            start += codes.shape[1]
        message = pb.Snapshot(
            ids=cohort.ids.tolist(),
            stepped=cohort.stepped,
            membranes=b"" if cohort.membranes is None else cohort.membranes.tobytes(),
            pieces=[
                pb.Piece(start=start, steps=codes.shape[1], codes=np.ascontiguousarray(codes, np.int32).tobytes())
                for start, codes in pieces + cohort.early
            ],
            sent_us=cohort.sent_us,
            length=cohort.length,
            **cohort.targets.to_bytes(),
        )
        key = self._next_key("s")
        self._unsaved[key], self._references[key] = message.SerializeToString(), 1
        cohort.entries, cohort.logged = [key], 0

    def _forget_finished_before(self, period: int) -> None:
        for old in [known for known in self._finished if known < period]:
            for first, last in self._finished.pop(old).spans():
                for chunk in range(first >> CHUNK_BITS, (last >> CHUNK_BITS) + 1):
                    self._store.remove(_finished_key(old, chunk))
            for cohort in self._cohorts():  # their entries may hold sequences that were just forgotten
                self._snapshot(cohort)

    def _load(self, now_ms: int) -> None:
        stored = dict(self._store.items())
        self._number = max((_number(key) for key in stored if key[0] in "rs"), default=0)
        spans: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for key in [key for key in stored if key[0] == "f"]:
            pairs = np.frombuffer(stored.pop(key), "<u8").reshape(-1, 2).tolist()
            spans[_period(key)] += [(first, last) for first, last in pairs]
        self._finished = {period: IdSet(pairs, step=self._model.lanes) for period, pairs in spans.items()}
        newest_first = sorted((key for key in stored if key[0] == "s"), key=_number, reverse=True)
        for key in newest_first:
            self._restore(key, pb.Snapshot.FromString(stored[key]), now_ms)
        for key in sorted((key for key in stored if key[0] == "r"), key=_number):
            piece = decode_slice(stored[key], self._model)
            assert piece is not None  # it was taken once
            self._take(piece, key, now_ms)
        for key in stored.keys() - self._references.keys():
            self._store.remove(key)

    def _restore(self, key: str, snapshot: pb.Snapshot, now_ms: int) -> None:
        """Take the sequences of a snapshot that are neither finished nor known from a newer one."""
        ids = np.array(snapshot.ids, np.uint64)
        known = np.array([sequence in self._cohort_of for sequence in snapshot.ids])
        for period in self._finished.values():
            known |= period.contains(ids)
        if known.all():
            return
        batch, features = len(ids), self._model.input.features
        readout, steps = self._model.readout, self._model.target_steps
        targets = targets_of.of_bytes(batch, steps, readout, snapshot.classes, snapshot.values)
        whole = Cohort(ids, targets, snapshot.length)
        whole.next = whole.stepped = snapshot.stepped
        if snapshot.membranes:
            whole.membranes = np.frombuffer(snapshot.membranes, np.float32).reshape(batch, -1)
        for piece in snapshot.pieces:
            codes = np.frombuffer(piece.codes, np.int32).reshape(batch, piece.steps, features)
            if piece.start == whole.next:
                whole.waiting.append(codes)
                whole.next += piece.steps
            else:
                whole.early.append((piece.start, codes))
        cohort = whole.take(np.flatnonzero(~known)) if known.any() else whole
        cohort.touched_ms, cohort.sent_us, cohort.entries = now_ms, snapshot.sent_us, [key]
        self._references[key] = 1
        self._cohort_of.update(dict.fromkeys(cohort.ids.tolist(), cohort))
        self._note(cohort)


def _number(key: str) -> int:
    """Of a record "r<number>" or a snapshot "s<number>"."""
    return int(key[1:], 16)


def _finished_key(period: int, chunk: int) -> str:
    return f"f{period:x}/{chunk:x}"


def _period(key: str) -> int:
    """Of a chunk of finished ids."""
    return int(key[1:].split("/")[0], 16)

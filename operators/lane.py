"""What a lane remembers between records: sequences under way, slices that came early, ids that are done.

The same rules serve the roll-out and the prediction operator: slices are taken in order of time whatever order they
come in, a timestep is taken once, a finished sequence is not taken again, an abandoned one expires.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from operators import state_pb2 as pb
from wire.codec import Codes, Slice, Targets
from wire.idset import IdSet

REMEMBER_MS = 24 * 3600 * 1000  # finished ids are known for one to two days, Kafka's usual span of re-sends


class Ready(NamedTuple):
    """Timesteps start .. start+k-1 of the sequences `ids` [B], next in line for each: codes [B, k, m]."""

    ids: list[int]
    start: int
    codes: npt.NDArray[np.int32]


class Lane:
    def __init__(self, stored: bytes | None, lanes: int, now_ms: int) -> None:
        message = pb.Lane() if stored is None else pb.Lane.FromString(stored)
        self._live = {sequence.id: sequence for sequence in message.live}
        self._finished = IdSet(((span.first, span.last) for span in message.finished), step=lanes)
        self._before = IdSet(((span.first, span.last) for span in message.finished_before), step=lanes)
        self._rotated_ms = message.rotated_ms or now_ms
        self._lanes = lanes

    def to_bytes(self) -> bytes:
        return pb.Lane(
            live=self._live.values(),
            finished=[pb.Span(first=first, last=last) for first, last in self._finished.spans()],
            finished_before=[pb.Span(first=first, last=last) for first, last in self._before.spans()],
            rotated_ms=self._rotated_ms,
        ).SerializeToString()

    @property
    def live(self) -> int:
        """Sequences under way."""
        return len(self._live)

    def accept(self, piece: Slice, now_ms: int) -> tuple[list[Ready], int]:
        """What `piece` makes ready to step, batched by timesteps, and how many of its timesteps were duplicates."""
        _, steps, features = piece.codes.shape
        done = self._finished.contains(piece.ids) | self._before.contains(piece.ids)
        duplicates = int(done.sum()) * steps
        ready: dict[tuple[int, int], tuple[list[int], list[Codes]]] = defaultdict(lambda: ([], []))
        for row in np.flatnonzero(~done).tolist():
            sequence = self._sequence(int(piece.ids[row]))
            _note(sequence, piece, row, now_ms)
            start = sequence.next
            duplicates += _put_early(sequence, piece.start, piece.codes[row])
            run = _take_run(sequence, features)
            if len(run):
                ids, codes = ready[start, len(run)]
                ids.append(sequence.id)
                codes.append(run)
        return [Ready(ids, start, np.stack(codes)) for (start, _), (ids, codes) in ready.items()], duplicates

    def carry(self, ids: list[int], dtype: npt.DTypeLike, otherwise: Callable[[], npt.NDArray]) -> npt.NDArray:
        """[B, ...] what was carried for each sequence, `otherwise()` for the ones at their start."""
        rows = [self._live[sequence_id].carry for sequence_id in ids]
        return np.stack([np.frombuffer(row, dtype) if row else otherwise() for row in rows])

    def keep(self, ids: list[int], carry: npt.NDArray) -> None:
        """Carry row b of `carry` for sequence ids[b] until its next slice."""
        for sequence_id, row in zip(ids, carry, strict=True):
            self._live[sequence_id].carry = row.tobytes()

    def append(self, ids: list[int], codes: npt.NDArray[np.int32]) -> None:
        """Carry codes [B, k, m] behind those already carried."""
        for sequence_id, rows in zip(ids, codes, strict=True):
            self._live[sequence_id].carry += rows.tobytes()

    def targets(self, ids: list[int], outputs: int) -> Targets:
        """Targets of live sequences, whichever slice brought them."""
        sequences = [self._live[sequence_id] for sequence_id in ids]
        if any(sequence.values for sequence in sequences):
            none = np.full(outputs, np.nan, np.float32).tobytes()
            rows = [np.frombuffer(sequence.values or none, np.float32) for sequence in sequences]
            return Targets(values=np.stack(rows))
        classes = [getattr(sequence, "class") if sequence.HasField("class") else -1 for sequence in sequences]
        return Targets(classes=np.array(classes, np.int32))

    def sent_us(self, ids: list[int]) -> list[int]:
        """When the newest record of each sequence was sent."""
        return [self._live[sequence_id].sent_us for sequence_id in ids]

    def at(self, timesteps: int) -> list[int]:
        """Live sequences that have taken `timesteps` timesteps."""
        return [sequence.id for sequence in self._live.values() if sequence.next == timesteps]

    def finish(self, ids: list[int]) -> None:
        """Forget the sequences and drop what else may come of them."""
        for sequence_id in ids:
            del self._live[sequence_id]
        self._finished.add(np.array(ids, np.uint64))

    def expire(self, older_than_ms: int, now_ms: int) -> list[tuple[int, int]]:
        """Drop sequences untouched since `older_than_ms`; their ids and the timesteps they had taken."""
        gone = [(s.id, s.next) for s in self._live.values() if s.touched_ms < older_than_ms]
        for sequence_id, _ in gone:
            del self._live[sequence_id]
        if now_ms - self._rotated_ms > REMEMBER_MS:
            self._before, self._finished = self._finished, IdSet(step=self._lanes)
            self._rotated_ms = now_ms
        return gone

    def _sequence(self, sequence_id: int) -> pb.Sequence:
        if sequence_id not in self._live:
            self._live[sequence_id] = pb.Sequence(id=sequence_id)
        return self._live[sequence_id]


def _note(sequence: pb.Sequence, piece: Slice, row: int, now_ms: int) -> None:
    sequence.touched_ms = now_ms
    sequence.sent_us = max(sequence.sent_us, piece.sent_us)
    classes, values = piece.targets
    if classes is not None and classes[row] >= 0 and not sequence.HasField("class"):
        setattr(sequence, "class", int(classes[row]))
    if values is not None and not sequence.values and not np.isnan(values[row]).any():
        sequence.values = values[row].tobytes()


def _put_early(sequence: pb.Sequence, start: int, codes: Codes) -> int:
    """Keep the timesteps of a slice that were not seen yet; how many were."""
    taken = {start + t for start, steps in _held(sequence) for t in range(steps)}
    new = [t for t in range(len(codes)) if start + t not in taken]
    for run in np.split(new, np.flatnonzero(np.diff(new) != 1) + 1) if new else []:
        part = np.ascontiguousarray(codes[run[0] : run[-1] + 1], np.int32)
        sequence.early.add(start=start + int(run[0]), steps=len(run), codes=part.tobytes())
    return len(codes) - len(new)


def _held(sequence: pb.Sequence) -> list[tuple[int, int]]:
    return [(0, sequence.next), *((piece.start, piece.steps) for piece in sequence.early)]


def _take_run(sequence: pb.Sequence, features: int) -> npt.NDArray[np.int32]:
    """[k, m] the timesteps that continue the sequence without a hole, k = 0 where there are none."""
    early = sorted(sequence.early, key=lambda piece: piece.start)
    run = []
    for piece in early:
        if piece.start != sequence.next:
            break
        run.append(np.frombuffer(piece.codes, np.int32).reshape(-1, features))
        sequence.next += piece.steps
    del sequence.early[:]
    sequence.early.extend(early[len(run) :])
    return np.concatenate(run) if run else np.empty((0, features), np.int32)

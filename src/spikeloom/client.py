"""Pushing sequences from Python.

client = Client("127.0.0.1:9092")
client.register(load_model(Path("digits.yaml")))
client.push("digits", X, y)             # arrays [N, T, m] and [N]
client.push("digits", endless_source)   # or an iterator of sequences, or of (sequence, target)
"""

import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from kafka import KafkaProducer
from kafka.cluster import ClusterMetadata
from kafka.partitioner import Partitioner

from snn.encoding import to_codes
from snn.model import ModelSpec
from spikeloom.errors import SpikeloomError
from wire.codec import Slice, encode_slice, now_us
from wire.connection import KafkaConnection
from wire.idset import Ids
from wire.registry import RegistryError, find_model, register_model
from wire.targets import Targets

BLOCK_BYTES = 256 * 1024  # of inputs in a record: large enough for compression and for stepping in batches
CHUNK_SEQUENCES = 4096  # taken from an iterator at a time, so that lanes fill blocks
LINGER_MS = 20  # records of different lanes leave together
SEND_TIMEOUT_S = 120


class PushError(SpikeloomError):
    """Data that cannot be pushed; the text says what was expected, what came and how to mend it."""


class Pushed(NamedTuple):
    """ids: [N] of the sequences, in their order; records and bytes before compression."""

    ids: Ids
    records: int
    bytes: int


class LanePartitioner(Partitioner):
    """Lane n to partition n mod their number. By Kafka's hash four partitions get 1, 3, 5 and 7 of sixteen lanes."""

    def partition(
        self,
        topic: str,
        key: bytes,
        serialized_key: bytes,
        value: bytes,
        serialized_value: bytes,
        cluster: ClusterMetadata,
    ) -> int:
        return int(serialized_key) % len(cluster.partitions_for_topic(topic))


class Client:
    def __init__(self, connection: KafkaConnection | str | None = None) -> None:
        """`connection` is a bootstrap address, or settings with TLS and SASL; without one, SPIKELOOM_KAFKA_* count."""
        if isinstance(connection, str):
            connection = KafkaConnection(bootstrap=connection)
        self.connection = connection or KafkaConnection()
        self._producer: KafkaProducer | None = None
        self._unacknowledged: list = []
        self._first_id = secrets.randbits(31) << 32  # this client's own range of ids, counted up
        self._counter = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def register(self, model: ModelSpec) -> bool:
        """Publish a model; False where it is registered already, an error where its name means another one."""
        try:
            return register_model(self.connection, model)
        except RegistryError as error:
            raise PushError(str(error)) from None

    def push(
        self,
        model: ModelSpec | str,
        sequences: npt.ArrayLike | Iterable[object],
        targets: npt.ArrayLike | None = None,
        *,
        ids: npt.ArrayLike | None = None,
        start: int | None = None,
        ends: bool = False,
        steps: int | None = None,
        block: int | None = None,
        quantise: bool = False,
        on_progress: Callable[[int], None] = lambda sequences: None,
    ) -> Pushed:
        """Send sequences and return when Kafka has acknowledged every one.

        sequences: array [N, T, m], or an iterator of [T, m] arrays or of ([T, m], target) pairs.
        targets: [N] classes (-1 for none) or [N, C] values (NaN for none), as the model's readout says; [N, H] classes
        of several heads; [N, T], [N, T, H] or [N, T, C] where the model learns at every step.
        ids: [N] distinct unsigned 64-bit ids, by which a sequence pushed twice is told; counted up if left out.
        start: the arrays are some of the timesteps, from this one on: sequences [N, k, m], with ids unless all of them.
        ends: the sequences are over with these timesteps, though they are fewer than the model's.
        steps: timesteps a record, T if left out. block: sequences a record, as many as fit 256 KiB if left out.
        quantise: round inputs to the model's grid and clip them to its range, where off-grid values are else an error.
        """
        try:
            spec = find_model(self.connection, model) if isinstance(model, str) else model
        except RegistryError as error:
            raise PushError(str(error)) from None
        timesteps = spec.input.timesteps
        if steps is not None and not 1 <= steps <= timesteps:
            raise PushError(f"steps: expected 1 .. {timesteps} timesteps a record, got {steps}")
        steps = steps or timesteps
        block = block or max(1, BLOCK_BYTES // (steps * spec.input.features))
        all_ids, records, size = [], 0, 0
        if start is not None and not 0 <= start < timesteps:
            raise PushError(f"start: expected a timestep 0 .. {timesteps - 1}, got {start}")
        if ids is None and (start or (start is not None and not ends)):
            raise PushError("ids: expected those of the sequences whose timesteps come in parts, got none")
        for part in self._parts(spec, sequences, targets, ids, 0 if start is None and ends else start, quantise):
            for record, lane in _records(spec, part, steps, block, ends):
                self.send(record, lane)
                records, size = records + 1, size + len(record)
            all_ids.append(part.ids)
            on_progress(len(part.ids))
        self.flush()
        return Pushed(np.concatenate(all_ids) if all_ids else np.empty(0, np.uint64), records, size)

    def send(self, record: bytes, lane: int) -> None:
        """Send one encoded record of `lane` to `sequences` without waiting; `flush` waits."""
        if self._producer is None:
            self._producer = KafkaProducer(
                **self.connection.python_client(),
                acks="all",
                enable_idempotence=True,
                compression_type="lz4",
                partitioner=LanePartitioner(),
                linger_ms=LINGER_MS,
                batch_size=BLOCK_BYTES,
                max_request_size=8 * 2**20,
            )
        self._unacknowledged.append(self._producer.send("sequences", key=str(lane).encode(), value=record))
        if len(self._unacknowledged) > 10_000:
            self._unacknowledged = [future for future in self._unacknowledged if not future.succeeded()]

    def flush(self) -> None:
        """Wait until Kafka has acknowledged everything, or raise what went wrong."""
        if self._producer is None:
            return
        self._producer.flush(SEND_TIMEOUT_S)
        for future in self._unacknowledged:
            if future.failed():
                raise PushError(f"Kafka at {self.connection.bootstrap} refused a record: {future.exception}")
        self._unacknowledged.clear()

    def _parts(
        self,
        spec: ModelSpec,
        sequences: npt.ArrayLike | Iterable[object],
        targets: npt.ArrayLike | None,
        ids: npt.ArrayLike | None,
        start: int | None,
        quantise: bool,
    ) -> Iterator["_Part"]:
        if isinstance(sequences, np.ndarray) or not isinstance(sequences, Iterator):
            codes = _codes(sequences, spec, quantise, start)
            count = len(codes)
            checked = _targets(targets, codes.shape[:2], spec)
            numbered = self.new_ids(count) if ids is None else _ids(ids, count)
            for begin in range(0, count, CHUNK_SEQUENCES):
                rows = np.arange(begin, min(begin + CHUNK_SEQUENCES, count))
                yield _Part(codes[rows], checked.take(rows), numbered[rows], start or 0)
            return
        if targets is not None or ids is not None:
            raise PushError("targets, ids: expected none beside an iterator; let it yield (sequence, target) pairs")
        while chunk := list(itertools.islice(sequences, CHUNK_SEQUENCES)):
            paired = isinstance(chunk[0], tuple)
            inputs = [item[0] for item in chunk] if paired else chunk  # type: ignore[index]
            answers = [item[1] for item in chunk] if paired else None  # type: ignore[index]
            codes = _codes(inputs, spec, quantise)
            yield _Part(codes, _targets(answers, codes.shape[:2], spec), self.new_ids(len(codes)), 0)

    def new_ids(self, count: int) -> Ids:
        """Ids [count] that no sequence of this client has had."""
        first = self._first_id + self._counter
        self._counter += count
        return np.arange(first, first + count, dtype=np.uint64)


class _Part(NamedTuple):
    codes: npt.NDArray[np.int32]
    targets: Targets
    ids: Ids
    start: int  # the timestep of codes[:, 0]


def _records(spec: ModelSpec, part: _Part, steps: int, block: int, ends: bool) -> Iterator[tuple[bytes, int]]:
    """The part's blocks lane by lane, a block's slices in order of time."""
    lanes = part.ids % np.uint64(spec.lanes)
    for lane in np.unique(lanes).tolist():
        rows = np.flatnonzero(lanes == lane)
        for begin in range(0, len(rows), block):
            chosen = rows[begin : begin + block]
            targets = part.targets.take(chosen)
            for at in range(0, part.codes.shape[1], steps):
                codes, asked = part.codes[chosen, at : at + steps], targets
                if spec.readout.every_step and targets.numbers is not None:
                    asked = Targets(targets.numbers[:, at : at + steps])
                over = ends and at + steps >= part.codes.shape[1]
                piece = Slice(lane, part.ids[chosen], part.start + at, codes, asked, now_us(), over)
                yield encode_slice(spec, piece), lane


def _codes(inputs: object, spec: ModelSpec, quantise: bool, start: int | None = None) -> npt.NDArray[np.int32]:
    try:
        return to_codes(inputs, spec.input, quantise, start)  # type: ignore[arg-type]
    except ValueError as error:
        raise PushError(str(error)) from None


def _ids(ids: npt.ArrayLike, count: int) -> Ids:
    numbers = np.asarray(ids)
    if numbers.shape != (count,) or not np.issubdtype(numbers.dtype, np.integer) or (numbers < 0).any():
        raise PushError(f"ids: expected [{count}] unsigned integers, got {list(numbers.shape)} of {numbers.dtype}")
    if len(np.unique(numbers)) != count:
        raise PushError("ids: expected distinct ids; the same id twice is taken as a duplicate of one sequence")
    return numbers.astype(np.uint64)


def _targets(targets: npt.ArrayLike | None, shape: tuple[int, ...], spec: ModelSpec) -> Targets:
    """Targets of [N, k] timesteps of sequences."""
    if targets is None:
        return Targets()
    numbers, readout = np.asarray(targets), spec.readout
    rows, width = shape if readout.every_step else shape[:1], readout.target_width
    if numbers.ndim == len(rows) and width == 1:
        numbers = numbers[..., None]
    expected = f"expected shape {[*rows, width]}" + (f" or {list(rows)}" if width == 1 else "")
    if numbers.shape != (*rows, width):
        raise PushError(f"targets: {expected}, got {list(np.shape(targets))}")
    numbers = numbers.reshape(shape[0], -1, width)
    if readout.target == "values":
        if numbers.dtype.kind not in "iuf" or np.isinf(numbers).any():
            raise PushError("targets: expected finite values, or NaN for none")
        return Targets(numbers.astype(np.float32))
    if not np.issubdtype(numbers.dtype, np.integer):
        raise PushError(f"targets: expected integer classes, got {numbers.dtype}")
    limits = np.array([head.classes for head in readout.all_heads])
    if (numbers < -1).any() or (numbers >= limits).any():
        raise PushError(
            f"targets: expected classes below {', '.join(map(str, limits))} (-1 for none), "
            f"got {numbers.min()} .. {numbers.max()}"
        )
    return Targets(numbers.astype(np.int32))

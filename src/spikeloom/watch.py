"""Reading what the jobs and the solver say of one model while it streams: readouts, predictions, brain waves."""

import threading
from collections import defaultdict
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from kafka import KafkaConsumer, TopicPartition

from wire import messages_pb2 as pb
from wire.codec import decode, decode_readout
from wire.connection import KafkaConnection

TOPICS = ("readouts", "predictions", "brain-waves", "dead-letters")


class Answer(NamedTuple):
    """predicted, target: [k * H] classes, of the timesteps from `start` on."""

    id: int
    version: int
    start: int
    predicted: tuple[int, ...]
    target: tuple[int, ...]
    in_training: bool
    sent_us: int
    answered_us: int


class Wave:
    """Active neurons and sequences seen at each timestep of one layer, summed over shards and blocks."""

    def __init__(self) -> None:
        self.neurons: dict[int, int] = {}  # by shard
        self._active: dict[int, int] = defaultdict(int)
        self._sequences: dict[tuple[int, int], int] = defaultdict(int)

    def add(self, shard: int, start: int, layer: pb.BrainWave.Layer) -> None:
        self.neurons[shard] = layer.neurons
        for t, (active, sequences) in enumerate(zip(layer.active, layer.sequences, strict=True), start=start):
            self._active[t] += active
            self._sequences[shard, t] += sequences

    def mean(self) -> npt.NDArray[np.float64]:
        """[T] mean number of active neurons at each timestep of a sequence."""
        first = min(self.neurons)
        return np.array([self._active[t] / max(1, self._sequences[first, t]) for t in range(len(self._active))])


class Watch:
    """Collects in a thread of its own; everything is read under `lock`."""

    def __init__(self, connection: KafkaConnection, model: str) -> None:
        self.lock = threading.Lock()
        self.readouts: list[pb.Readout] = []
        self.answers: list[Answer] = []
        self.waves: dict[int, Wave] = defaultdict(Wave)  # by layer, from 1
        self.rolled_out_us: list[tuple[int, int]] = []  # (when, sequences that took their first timestep) of shard 0
        self.dead_letters: list[pb.DeadLetter] = []
        self._error: Exception | None = None
        self._model = model
        self._consumer = KafkaConsumer(**connection.python_client(), enable_auto_commit=False)
        partitions = [TopicPartition(t, n) for t in TOPICS for n in self._consumer.partitions_for_topic(t) or ()]
        self._consumer.assign(partitions)
        self._consumer.seek_to_beginning()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        self._consumer.close()

    def check(self) -> None:
        """Raise what ended the reading, if anything did."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for partition, records in self._consumer.poll(timeout_ms=100, max_records=2000).items():
                    for record in records:
                        self._take(partition.topic, record.value)
        except Exception as error:  # handed to the thread that waits for results
            self._error = error

    def _take(self, topic: str, record: bytes) -> None:
        if topic == "readouts":
            readout = decode_readout(record)
            if readout.model == self._model:
                with self.lock:
                    self.readouts.append(readout)
        elif topic == "predictions":
            self._answer(decode(pb.Prediction, record))
        elif topic == "brain-waves":
            self._wave(decode(pb.BrainWave, record))
        else:
            with self.lock:
                self.dead_letters.append(decode(pb.DeadLetter, record))

    def _answer(self, message: pb.Prediction) -> None:
        if message.model == self._model:
            answer = Answer(
                message.id,
                message.readout_version,
                message.start,
                tuple(message.predicted_classes),
                tuple(message.target_classes),
                message.in_training,
                message.sent_us,
                message.answered_us,
            )
            with self.lock:
                self.answers.append(answer)

    def _wave(self, message: pb.BrainWave) -> None:
        if message.model == self._model:
            with self.lock:
                for number, layer in enumerate(message.layers, start=1):
                    self.waves[number].add(message.shard, message.start, layer)
                if message.shard == 0 and message.start == 0:
                    self.rolled_out_us.append((message.observed_us, message.layers[0].sequences[0]))


def rate(stamps: list[tuple[int, int]], count: int) -> float:
    """Sequences a second over the first `count` sequences of (microseconds, sequences)."""
    ordered = sorted(stamps)
    taken = np.cumsum([sequences for _, sequences in ordered])
    last = min(int(np.searchsorted(taken, count)), len(ordered) - 1)
    if last < 1:
        return float("nan")
    seconds = (ordered[last][0] - ordered[0][0]) / 1e6
    return float(taken[last] - taken[0]) / seconds if seconds else float("nan")

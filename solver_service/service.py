"""The process around the trainers: Kafka in, Kafka out, snapshots, threads that solve.

The stream's thread reads `models`, `witnesses`, `spike-columns`, `prices` and, where the settings name models whose
sums a Flink job makes, `gram`; it stores rows and sums and starts the other two kinds of work: snapshots, and solves in
threads of their own. A solve keeps one core busy; of the models that are due, those go first whose last solve began
longest ago.
Offsets live in the snapshot and not in a consumer group, so rows and position are saved together or not at all; what is
read twice after a crash is dropped as duplicates.
"""

import logging
import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from prometheus_client import start_http_server

from snn.model import ModelSpec, parse_model
from solver_service import metrics, snapshot
from solver_service.changing_trainer import ChangingTrainer
from solver_service.growing_trainer import GrowingTrainer
from solver_service.linear_algebra import one_thread
from solver_service.settings import SolverSettings
from solver_service.sums_trainer import SumsTrainer
from solver_service.trainer import Trainer
from solver_service.training import Training
from wire.codec import columns_model, decode_model, decode_readout, encode_dead_letter, encode_readout, sums_model
from wire.connection import KafkaConnection
from wire.prices import prices_model
from wire.reasons import Reason, WireError
from wire.weights import witnesses_model, witnesses_of

log = logging.getLogger(__name__)

MODELS, WITNESSES, COLUMNS, GRAM, PRICES = "models", "witnesses", "spike-columns", "gram", "prices"
READOUTS, DEAD_LETTERS = "readouts", "dead-letters"
MODEL_OF = {COLUMNS: columns_model, GRAM: sums_model, PRICES: prices_model}
OFFSETS = {COLUMNS: "offsets", GRAM: "gram_offsets", PRICES: "prices_offsets"}  # as a snapshot names them
JOB = "solver"  # as dead letters name this process
POLL_MS = 200  # how soon a due solve or a stop is noticed on a silent stream
ACK_SECONDS = 120.0  # kafka-python's delivery timeout
LARGEST_MESSAGE = 64 * 2**20  # as topics.yaml allows on `readouts`
TAIL = 500  # readouts looked at in one go when searching for the newest version, from the end backwards


class SolverService:
    def __init__(self, settings: SolverSettings, connection: KafkaConnection) -> None:
        self.settings = settings
        self._budget = settings.rows_mib * 2**20
        self._device = None if settings.device == "cpu" else settings.device
        self.trainers: dict[str, Training | ChangingTrainer] = {}
        self.offsets: dict[str, dict[int, int]] = {topic: {} for topic in OFFSETS}  # the next one of each partition
        self.versions: dict[str, int] = {}  # newest published version of each model
        self._stopping = threading.Event()
        self._connection = connection
        self._solving: dict[str, threading.Thread] = {}
        self._failure: BaseException | None = None
        self._solved_at: dict[str, float] = {}
        self._searched: set[str] = set()  # models whose newest version was looked up on `readouts`

    def stop(self) -> None:
        """Ask `run` to save and return; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Serve until `stop`. Raises SnapshotError, WireError, KafkaError, or whatever ended the solving thread."""
        self.restore()
        start_http_server(self.settings.metrics_port, self.settings.metrics_host)
        self._producer = KafkaProducer(
            **self._connection.python_client(), acks="all", max_request_size=LARGEST_MESSAGE, compression_type="lz4"
        )
        topics = (COLUMNS, PRICES, GRAM) if self.settings.gram_models else (COLUMNS, PRICES)
        models, witnesses, stream = self._consumer(MODELS), self._consumer(WITNESSES), self._consumer(*topics)
        try:
            with one_thread():
                self._serve(models, witnesses, stream)
            self._snapshot()
        finally:
            models.close()
            witnesses.close()
            stream.close()
            self._producer.close(timeout=5)
        log.info("stopped at offsets %s", self.offsets)

    def _serve(self, models: KafkaConsumer, witnesses: KafkaConsumer, stream: KafkaConsumer) -> None:
        log.info("reading from offsets %s", self.offsets)
        saved_at, saved = time.monotonic(), deepcopy(self.offsets)
        self._read_models(models, until_end=True)  # first: they say which topics are to be read
        self._read_witnesses(witnesses, until_end=True)  # a growing dictionary goes on from the newest ones
        while not self._stopping.is_set():
            self._read_models(models)
            self._read_witnesses(witnesses)
            self._pause_rows(stream)
            for partition, records in stream.poll(timeout_ms=POLL_MS).items():
                for record in records:
                    self.ingest(record.value or b"", models, partition.topic)
                    self.offsets[partition.topic][partition.partition] = record.offset + 1
            self._solve_due()
            now = time.monotonic()
            if now - saved_at >= self.settings.snapshot_seconds and saved != self.offsets:
                self._snapshot()
                saved_at, saved = now, deepcopy(self.offsets)
            metrics.LAG.set(_lag(stream))
            if self._failure is not None:
                raise self._failure

    def _pause_rows(self, stream: KafkaConsumer) -> None:
        """Read `spike-columns` only while there is a model to read it for: else its rate would be felt here."""
        rows = [partition for partition in stream.assignment() if partition.topic == COLUMNS]
        if self.trainers and self.trainers.keys() <= self.settings.gram_models:
            stream.pause(*rows)
        else:
            stream.resume(*rows)

    def ingest(self, record: bytes, models: KafkaConsumer | None = None, topic: str = COLUMNS) -> None:
        """Give a record of `spike-columns`, `gram` or `prices` to its trainer, or to `dead-letters`. The rows of a
        model that is trained from sums are passed over."""
        try:
            name = MODEL_OF[topic](record)
            if name not in self.trainers and models is not None:
                self._read_models(models, until_end=True)
            if name not in self.trainers:
                raise WireError(Reason.WRONG_MODEL, f"expected a model of the topic {MODELS}, got {name!r}")
            trainer = self.trainers[name]
            if topic == PRICES:
                if isinstance(trainer, GrowingTrainer):
                    trainer.ingest_prices(record)
            elif (topic == GRAM) == (name in self.settings.gram_models):
                trainer.ingest(record)
        except WireError as error:
            self._dead_letter(topic, error, record)

    def register(self, model: ModelSpec) -> None:
        """Train this model from now on. A changed specification starts from an empty dictionary.

        Raises WireError for a window or half-life that does not fit into the memory that a model may take, and for a
        model of `gram_models` that needs rows.
        """
        known = self.trainers.get(model.model)
        if known is not None and known.model.digest == model.digest:
            return
        self.trainers[model.model] = self._trainer(model)
        log.info("model %s %016x%s", model.model, model.digest, ": changed, its old rows are dropped" if known else "")

    def _trainer(self, model: ModelSpec, arrays: snapshot.Arrays | None = None) -> Training | ChangingTrainer:
        if model.model in self.settings.gram_models:
            return SumsTrainer(model, arrays, self._device)
        if model.growing is not None:
            return GrowingTrainer(model, arrays, self._budget, self._device)
        if model.changing:
            return ChangingTrainer(model, arrays, self._budget, self._device)
        return Trainer(model, arrays, self._budget, self._device)

    def _read_models(self, models: KafkaConsumer, until_end: bool = False) -> None:
        while True:
            batch = models.poll(timeout_ms=POLL_MS if until_end else 0)
            for records in batch.values():
                for record in records:
                    if record.value is not None:  # a tombstone: the model goes on with what it has
                        try:
                            self.register(decode_model(record.value))
                        except WireError as error:
                            self._dead_letter(MODELS, error, record.value)
            if not batch and (not until_end or self._stopping.is_set() or _at_end(models)):
                return

    def _read_witnesses(self, witnesses: KafkaConsumer, until_end: bool = False) -> None:
        """Give new witnesses to the models that they are of, as far as these are known."""
        while True:
            for records in witnesses.poll(timeout_ms=POLL_MS if until_end else 0).values():
                for record in records:
                    self._offer_witnesses(record.value)
            if not until_end or self._stopping.is_set() or _at_end(witnesses):
                return

    def _offer_witnesses(self, record: bytes) -> None:
        try:
            trainer = self.trainers.get(witnesses_model(record))
            if isinstance(trainer, ChangingTrainer) and witnesses_of(record, trainer.model) is not None:
                trainer.offer_witnesses(record)
        except WireError as error:
            self._dead_letter(WITNESSES, error, record)

    def _dead_letter(self, topic: str, error: WireError, record: bytes) -> None:
        log.warning("dead letter from %s: %s", topic, error)
        metrics.DEAD_LETTERS.labels(str(error.reason)).inc()
        self._producer.send(DEAD_LETTERS, encode_dead_letter(JOB, topic, error, record), key=topic.encode())

    def _solve_due(self) -> None:
        """Start the solves that have been due longest, as far as threads are free; before them go dictionaries whose
        candidates have been priced."""
        self._solving = {name: thread for name, thread in self._solving.items() if thread.is_alive()}
        now = time.monotonic()
        free = {name: trainer for name, trainer in self.trainers.items() if name not in self._solving}
        grow = [name for name, trainer in free.items() if isinstance(trainer, GrowingTrainer) and trainer.answered]
        due = [
            name
            for name, trainer in free.items()
            if name not in grow
            and (
                trainer.fresh >= self.settings.every_rows
                or (trainer.fresh and now - self._solved_at.get(name, 0.0) >= self.settings.every_seconds)
            )
        ]
        due.sort(key=lambda name: self._solved_at.get(name, 0.0))
        for name in [*grow, *due][: self.settings.threads - len(self._solving)]:
            if name in due:
                self._solved_at[name] = now
            work = self._grow if name in grow else self._solve
            self._solving[name] = threading.Thread(target=work, args=(name,), name=f"solve-{name}", daemon=True)
            self._solving[name].start()

    def _solve(self, name: str) -> None:
        try:
            version = self._newest_version(name) + 1
            trainer = self.trainers[name]
            readout = trainer.solve(version, self.settings.solve_seconds, self.settings.backend)
            if readout is None or self._stopping.is_set():
                return
            sent = self._producer.send(READOUTS, encode_readout(readout), key=name.encode())
            sent.get(timeout=ACK_SECONDS)
            self.versions[name] = version
            log.info(
                "%s version %d: %d rows of %d, %d columns, support %d, gap %.1e, %.2f s",
                *(name, version, readout.rows, readout.seen, readout.columns, len(readout.support)),
                *(readout.relative_gap, readout.solve_seconds),
            )
            self._send_outgoing(name)
        except BaseException as error:  # the stream's thread raises it
            if not self._stopping.is_set():
                self._failure = error

    def _grow(self, name: str) -> None:
        try:
            trainer = self.trainers[name]
            assert isinstance(trainer, GrowingTrainer)
            trainer.grow()
            self._send_outgoing(name)
        except BaseException as error:  # the stream's thread raises it
            if not self._stopping.is_set():
                self._failure = error

    def _send_outgoing(self, name: str) -> None:
        """What a growing dictionary asks the roll-out, or tells it."""
        trainer = self.trainers[name]
        if isinstance(trainer, GrowingTrainer):
            for topic, record in trainer.take_outgoing():
                self._producer.send(topic, record, key=name.encode()).get(timeout=ACK_SECONDS)

    def _newest_version(self, name: str) -> int:
        """The newest version on the topic or in the snapshot: a readout may be younger than the snapshot."""
        if name not in self._searched:
            consumer = self._consumer(READOUTS)
            try:
                found = next((readout.version for readout in _backwards(consumer) if readout.model == name), 0)
            finally:
                consumer.close()
            self.versions[name] = max(found, self.versions.get(name, 0))
            self._searched.add(name)
        return self.versions[name]

    def restore(self) -> None:
        """Take up the newest snapshot, if there is one.

        Raises SnapshotError where it is damaged or a model in it was trained from what the settings no longer say,
        WireError where a model in it no longer fits into memory.
        """
        loaded = snapshot.load(self.settings.state)
        if loaded is None:
            return
        state, arrays = loaded
        for topic, name in OFFSETS.items():
            self.offsets[topic] = {int(partition): int(offset) for partition, offset in state.get(name, {}).items()}
        self.versions = {name: int(version) for name, version in state["versions"].items()}
        for name, spec in state["models"].items():
            of_rows = any(key.endswith("ids") for key in arrays[name])
            if (name in self.settings.gram_models) == of_rows:
                raise snapshot.SnapshotError(
                    f"{name} was trained from {'rows' if of_rows else 'sums'}; change "
                    "SPIKELOOM_SOLVER_GRAM_MODELS back, or give the service another folder for its state"
                )
            self.trainers[name] = self._trainer(parse_model(spec, f"snapshot of {name}"), arrays[name])

    def save(self) -> None:
        """Write a snapshot of all dictionaries at the current offsets."""
        state: dict[str, Any] = {
            **{
                name: {str(partition): offset for partition, offset in self.offsets[topic].items()}
                for topic, name in OFFSETS.items()
            },
            "versions": dict(self.versions),
            "models": {name: trainer.model.model_dump(mode="json") for name, trainer in self.trainers.items()},
        }
        arrays = {name: trainer.freeze() for name, trainer in self.trainers.items()}
        snapshot.save(self.settings.state, state, arrays)

    def _snapshot(self) -> None:
        self._producer.flush(timeout=ACK_SECONDS)  # dead letters first: their records will not be read again
        begun = time.monotonic()
        self.save()
        log.info("snapshot in %.2f s", time.monotonic() - begun)

    def _consumer(self, *topics: str) -> KafkaConsumer:
        """A consumer of all partitions of some topics, at `offsets` or the beginning, outside any group."""
        consumer = KafkaConsumer(
            **self._connection.python_client(),
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            max_partition_fetch_bytes=8 * 2**20,
        )
        assigned = [partition for topic in topics for partition in self._partitions(consumer, topic)]
        consumer.assign(assigned)
        for partition in assigned:
            at = self.offsets.get(partition.topic, {}).get(partition.partition)
            if at is None:
                consumer.seek_to_beginning(partition)
            else:
                consumer.seek(partition, at)
        return consumer

    def _partitions(self, consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
        """All of a topic's, waiting for there to be some."""
        while not (partitions := consumer.partitions_for_topic(topic)):
            if self._stopping.wait(1.0):
                break
            log.warning("waiting for the topic %s", topic)
        return [TopicPartition(topic, partition) for partition in sorted(partitions or ())]


def _at_end(consumer: KafkaConsumer) -> bool:
    ends = consumer.end_offsets(list(consumer.assignment()))
    return all(consumer.position(partition) >= end for partition, end in ends.items())


def _lag(consumer: KafkaConsumer) -> int:
    """Records between the position and the end as last heard."""
    ends = {partition: consumer.highwater(partition) for partition in consumer.assignment()}
    return sum(max(0, end - consumer.position(partition)) for partition, end in ends.items() if end is not None)


def _backwards(consumer: KafkaConsumer) -> Iterator[Any]:
    """The valid records of `readouts`, newest first, window by window."""
    for partition, end in consumer.end_offsets(list(consumer.assignment())).items():
        first = consumer.beginning_offsets([partition])[partition]
        while end > first:
            start = max(first, end - TAIL)
            consumer.assign([partition])
            consumer.seek(partition, start)
            window = []
            while consumer.position(partition) < end:
                for record in consumer.poll(timeout_ms=POLL_MS).get(partition, []):
                    if record.offset < end and record.value is not None:
                        window.append(record.value)
            for value in reversed(window):
                try:
                    yield decode_readout(value)
                except WireError:
                    continue
            end = start

"""How long an answer takes: from the moment a sequence was due to be sent to the moment its prediction was read.

Measured: p50, p99 and p99.9 of `predict`, at 10%, 50% and 90% of its capacity, which is measured just before, for
- whole sequences, each a record of its own (28 timesteps of 28 features);
- single timesteps, each a record of its own, of many sequences at once; the answer is due after the last timestep.
Two clocks: "read" is when a consumer holds the prediction, "answered" is the stamp that the operator puts in it.
The readout names 500 of 4,096 gaussian witnesses and ten classes; it is published here, no solver runs.

Capacity is the highest of some rates of single records at which answers keep up. Broker, Flink, sender and reader share
the cores, so it is that of all of them together; as many records pushed at once are answered faster ("in bulk").

The load is open: send times are drawn beforehand (a Poisson process) and a latency counts from the time a record was
due, so a stall delays nobody's clock (no coordinated omission). The sender is a process of its own; how late it was
itself is a row, too. Then, at half the capacity for whole sequences, the job's --wait-ms and the producer's linger.

Nothing is compared: at this border there is no peer.
"""

import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from bench import cluster, harness
from bench.cluster import Codes
from bench.harness import BenchError, Report
from snn.model import ModelSpec, parse_model
from spikeloom.client import LanePartitioner
from spikeloom.local import Stack
from wire import messages_pb2 as pb
from wire.codec import Slice, encode_readout, encode_slice
from wire.connection import KafkaConnection
from wire.targets import Targets

SUPPORT = 500
LOADS = (0.1, 0.5, 0.9)
WAITS_MS = (10, 50)
LINGER_MS, OTHER_LINGERS_MS = 5, (0, 20)
RAMP = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the rate in bulk
RAMP_SECONDS, KEPT_UP_MS = 5.0, 1000  # of a rate; the median latency of its second half
MOST_LIVE = 256  # sequences whose timesteps arrive by turns; fewer where the records would not make four rounds
SECONDS, QUICK_SECONDS = 15.0, 3.0
FETCH_WAIT_MS = 10  # of the consumer that reads the answers
SETTLE_S = 2.0  # of answers that are not counted
PATIENCE_S, MOST_S = 30.0, 90.0  # without an answer, and with answers that trickle
NUMBERS = itertools.count(1)  # of streams: a sequence id is never used twice
CAPACITY_RECORDS = {"whole sequences": 12_000, "single timesteps": 40_000}


class Answer(NamedTuple):
    """Microseconds since 1970: when its last record was due, when the operator answered, when it was read here."""

    due: int
    answered: int
    read: int


def run(report: Report) -> None:
    codes = cluster.mnist_rows()
    first, *others = WAITS_MS
    report.say("starting Kafka and Flink")
    with deployed(first) as (stack, spec):
        half = 0.0
        for kind in CAPACITY_RECORDS:
            capacity = sustained(report, stack, spec, codes, kind, first)
            half = half or LOADS[1] * capacity
            for load in LOADS[1:2] if report.quick else LOADS:
                case = f"{load:.0%} load, {first} ms waits"
                measure(report, stack, spec, codes, kind, load * capacity, case, LINGER_MS)
        if not report.quick:
            sweep(report, stack, spec, codes, half, first, OTHER_LINGERS_MS)
    for wait in () if report.quick else others:
        with deployed(wait) as (stack, spec):
            sustained(report, stack, spec, codes, next(iter(CAPACITY_RECORDS)), wait)
            sweep(report, stack, spec, codes, half, wait, (LINGER_MS, *OTHER_LINGERS_MS))


def sweep(
    report: Report, stack: Stack, spec: ModelSpec, codes: Codes, rate: float, wait: int, lingers: tuple[int, ...]
) -> None:
    kind = next(iter(CAPACITY_RECORDS))
    for linger in lingers:
        case = f"50% load, {wait} ms waits" + ("" if linger == LINGER_MS else f", {linger} ms linger")
        measure(report, stack, spec, codes, kind, rate, case, linger)


@contextmanager
def deployed(wait: int) -> Iterator[tuple[Stack, ModelSpec]]:
    """A stack with the predict job and a readout."""
    with cluster.running() as stack:
        spec = cluster.model("bench-latency", witnesses=4096)
        cluster.fill(stack, spec, iter(()))
        publish(stack, spec)
        with cluster.job(stack, "predict", spec, "--wait-ms", str(wait)):
            yield stack, spec


def publish(stack: Stack, spec: ModelSpec) -> None:
    draw = np.random.default_rng(0)
    outputs = spec.readout.outputs
    readout = pb.Readout(
        model=spec.model,
        digest=spec.digest,
        version=1,
        outputs=outputs,
        support=sorted(draw.choice(spec.witnesses.count, SUPPORT, replace=False).tolist()),
        coefficients=(draw.integers(-99, 99, (SUPPORT, outputs)) / 64).tobytes(),
        intercept=np.zeros(outputs).tobytes(),
    )
    producer = KafkaProducer(**stack.connection.python_client(), acks="all")
    producer.send("readouts", key=spec.model.encode(), value=encode_readout(readout)).get(30)
    producer.close()


def sustained(report: Report, stack: Stack, spec: ModelSpec, codes: Codes, kind: str, wait: int) -> float:
    """Records a second with which the job keeps up. What comes before warms it."""
    count = CAPACITY_RECORDS[kind] // (4 if report.quick else 1)
    for _ in range(1 if report.quick else 2):
        answers, _ = stream(stack, spec, codes, kind, np.zeros(count, np.int64), LINGER_MS)
    read = np.sort([answer.read for answer in answers])
    begin, end = len(read) // 4, len(read) - 1
    per_answer = 1 if kind == "whole sequences" else spec.input.timesteps
    bulk = float(per_answer * (end - begin) / max(1e-6, (read[end] - read[begin]) / 1e6))
    report.add(f"{kind}, {wait} ms waits, in bulk", "records answered", "records/s", bulk)
    kept_up = RAMP[0] * bulk
    for share in RAMP:
        answers, _ = stream(stack, spec, codes, kind, arrivals(share * bulk, RAMP_SECONDS), LINGER_MS)
        answers.sort(key=lambda answer: answer.due)
        if np.median([answer.read - answer.due for answer in answers[len(answers) // 2 :]]) > 1e3 * KEPT_UP_MS:
            break
        kept_up = share * bulk
    report.add(f"{kind}, {wait} ms waits, capacity", "records answered", "records/s", kept_up)
    return kept_up


def arrivals(rate: float, seconds: float) -> npt.NDArray[np.int64]:
    """Microseconds from the start at which records are due: a Poisson process."""
    return np.cumsum(np.random.default_rng(0).exponential(1e6 / rate, int(rate * seconds)).astype(np.int64))


def measure(
    report: Report, stack: Stack, spec: ModelSpec, codes: Codes, kind: str, rate: float, case: str, linger: int
) -> None:
    """Percentiles at `rate` records a second."""
    seconds = QUICK_SECONDS if report.quick else SECONDS
    offsets = arrivals(rate, seconds + SETTLE_S)
    answers, late = stream(stack, spec, codes, kind, offsets, linger)
    begin = min(answer.due for answer in answers) + int(SETTLE_S * 1e6)
    counted = [answer for answer in answers if answer.due >= begin]
    clocks: dict[str, Callable[[Answer], int]] = {
        "read": lambda answer: answer.read - answer.due,
        "answered": lambda answer: answer.answered - answer.due,
    }
    for clock, latency in clocks.items():
        values = np.array([latency(answer) for answer in counted]) / 1e3
        for share in (50, 99, 99.9):
            value = float(np.percentile(values, share))
            report.add(f"{kind}, {case}", f"{clock}, p{share:g}", "ms", value, runs=len(values))
    report.add(f"{kind}, {case}", "sender late, p99", "ms", late, runs=len(offsets))


def stream(
    stack: Stack, spec: ModelSpec, codes: Codes, kind: str, offsets: npt.NDArray[np.int64], linger: int
) -> tuple[list[Answer], float]:
    """Send a record at each of `offsets` (microseconds from the start); the answers that came of them, and the 99th
    percentile of the milliseconds by which the sender was late."""
    whole, first = kind == "whole sequences", next(NUMBERS)
    schedule = plan(len(offsets), spec.input.timesteps, whole)
    expected = int((schedule.start + schedule.steps == spec.input.timesteps).sum())
    with closing(reader(stack.connection)) as consumer:
        context = multiprocessing.get_context("spawn")
        lateness = context.SimpleQueue()
        arguments = (stack.connection, spec.spec_json, codes[:MOST_LIVE], schedule, offsets, linger, first, lateness)
        sender = context.Process(target=send, args=arguments, daemon=True)
        sender.start()
        answers: list[Answer] = []
        seen: set[int] = set()  # at least once: a repeat is no answer of its own
        last = time.monotonic()
        deadline = last + MOST_S
        while len(answers) < expected and time.monotonic() < min(last + PATIENCE_S, deadline):
            for batch in consumer.poll(timeout_ms=5).values():
                read = time.time_ns() // 1000
                for record in batch:
                    message = pb.Prediction.FromString(record.value)
                    if message.id not in seen and message.id >> 24 == first:
                        seen.add(message.id)
                        answers.append(Answer(message.sent_us, message.answered_us, read))
                        last = time.monotonic()
        if len(answers) < expected:
            sender.kill()
        sender.join()
    if len(answers) < expected:
        raise BenchError(
            f"expected {expected} answers, got {len(answers)} within {MOST_S:.0f} s, or none for {PATIENCE_S:.0f} s; "
            "the job failed, or the machine is too slow for this benchmark"
        )
    return answers, lateness.get()


def reader(connection: KafkaConnection) -> KafkaConsumer:
    """Of predictions that come from now on."""
    # With a longer wait, what comes for one partition is read after a fetch of the others, which are empty, has ended.
    consumer = KafkaConsumer(**connection.python_client(), enable_auto_commit=False, fetch_max_wait_ms=FETCH_WAIT_MS)
    partitions = [TopicPartition("predictions", n) for n in consumer.partitions_for_topic("predictions") or ()]
    consumer.assign(partitions)
    consumer.seek_to_end()
    for partition in partitions:
        consumer.position(partition)
    return consumer


class Plan(NamedTuple):
    """For each record: the sequence's number, its first timestep (-1: send nothing), and how many timesteps."""

    sequence: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    steps: int


def plan(count: int, timesteps: int, whole: bool) -> Plan:
    event = np.arange(count)
    if whole:
        return Plan(event, np.zeros(count, np.int64), timesteps)
    # Slot by slot, one timestep each; every slot begins at another timestep of the round, so that answers spread.
    live = int(np.clip(count // (4 * timesteps), 1, MOST_LIVE))
    slot = event % live
    turn = event // live - slot % timesteps
    return Plan(slot + live * (turn // timesteps), np.where(turn >= 0, turn % timesteps, -1), 1)


def send(
    connection: KafkaConnection,
    spec_json: str,
    codes: Codes,
    schedule: Plan,
    offsets: npt.NDArray[np.int64],
    linger: int,
    first: int,
    lateness: "multiprocessing.SimpleQueue[float]",
) -> None:
    """A process of its own. `sent_us` of a record is when it was due."""
    spec = parse_model(json.loads(spec_json))
    producer = KafkaProducer(
        **connection.python_client(),
        acks="all",
        partitioner=LanePartitioner(),
        linger_ms=linger,
        batch_size=1 << 18,
    )
    producer.partitions_for("sequences")
    late = []
    begun = time.time_ns() // 1000 + 200_000
    numbers, starts = schedule.sequence.tolist(), schedule.start.tolist()
    for sequence, start, offset in zip(numbers, starts, offsets.tolist(), strict=True):
        if start < 0:
            continue
        due = begun + offset
        piece = codes[sequence % len(codes), None, start : start + schedule.steps]
        number = (first << 24) + sequence
        lane = number % spec.lanes
        record = encode_slice(spec, Slice(lane, np.array([number], np.uint64), start, piece, Targets(), due))
        while (now := time.time_ns() // 1000) < due:
            time.sleep((due - now) / 1e6)
        late.append(now - due)
        producer.send("sequences", key=str(lane).encode(), value=record)
    producer.flush(60)
    producer.close()
    lateness.put(float(np.percentile(late, 99)) / 1e3)


if __name__ == "__main__":
    harness.main("latency", run, cores=harness.cores())

"""What the benchmarks on a real broker and a real cluster share: a stack in a folder of its own, prepared records,
rates by arrival, and what the processes use meanwhile. Only public surfaces: `Stack`, `Client`, jobs, the wire codec.
"""

import json
import multiprocessing
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import psutil
import torch
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from bench.harness import BenchError, shared_folder
from snn import engine
from snn.model import ModelSpec, parse_model
from spikeloom import PROJECT_ROOT
from spikeloom.client import Client
from spikeloom.local import FlinkSettings, Stack
from spikeloom.tasks import load_task
from wire.codec import Slice, encode_slice, now_us
from wire.connection import KafkaConnection
from wire.targets import Targets

BLOCK_BYTES = 256 * 1024  # of inputs in a record, as the client has it
BURST_GAP_S = 0.5  # records of one checkpoint become readable together; checkpoints are seconds apart
WARM, END = 0.25, 0.9  # the share of sequences at which a rate begins and ends: Java compiles, lanes run dry
SAMPLE_S = 0.5

Codes = npt.NDArray[np.uint8]


@contextmanager
def running(settings: FlinkSettings | None = None, slots: int = 2) -> Iterator[Stack]:
    """A stack of its own, gone afterwards with all it wrote; also at Ctrl-C."""
    with (
        tempfile.TemporaryDirectory(prefix="spikeloom-bench-") as folder,
        Stack(folder, slots=slots, settings=settings) as stack,
    ):
        yield stack


def model(name: str, *, witnesses: int, timesteps: int = 28, features: int = 28) -> ModelSpec:
    """Inputs of one byte, gaussian witnesses, ten classes, no end pulse."""
    return parse_model(
        {
            "model": name,
            "input": {"timesteps": timesteps, "features": features, "bits": 8, "high": 255 / 256},
            "witnesses": {"law": {"name": "gaussian"}, "count": witnesses},
            "readout": {"loss": "multinomial", "outputs": 10},
        }
    )


@contextmanager
def job(stack: Stack, name: str, spec: ModelSpec, *arguments: str, parallelism: int | None = None) -> Iterator[str]:
    """One of `flink_jobs/`, running."""
    file = PROJECT_ROOT / "flink_jobs" / f"{name}.py"
    running_job = stack.submit(file, "--model", spec.model, *arguments, parallelism=parallelism)
    try:
        yield running_job
    finally:
        stack.cancel(running_job)


def mnist_rows() -> Codes:
    """[60000, 28, 28] grid codes of the training digits, a row a timestep."""
    images = load_task("mnist-rows", shared_folder("mnist")).train.inputs
    return (images * 256).astype(np.uint8)


def noise(timesteps: int, features: int, count: int = 4096) -> Codes:
    """[count, T, m] codes of which four fifths are zero, as MNIST's rows are."""
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 256, (count, timesteps, features), dtype=np.uint8)
    codes[draw.random(codes.shape) < 0.8] = 0
    return codes


def per_record(spec: ModelSpec, steps: int | None = None) -> int:
    """Sequences in a record of `steps` timesteps, as the client makes it."""
    return max(1, BLOCK_BYTES // ((steps or spec.input.timesteps) * spec.input.features))


def records(
    spec: ModelSpec, codes: Codes, count: int, *, block: int, steps: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """(lane, record) of at least `count` labelled sequences drawn from `codes` by turns, in blocks of one lane, a
    block's slices of `steps` timesteps one after the other. Ids count up in each lane."""
    timesteps, lanes = spec.input.timesteps, spec.lanes
    for number in range(-(-count // block)):
        lane, first = number % lanes, number // lanes * block
        ids = (lane + lanes * np.arange(first, first + block)).astype(np.uint64)
        chosen = codes[np.arange(number * block, (number + 1) * block) % len(codes)]
        targets = Targets.final((np.arange(block) % 10).astype(np.int32))
        for start in range(0, timesteps, steps or timesteps):
            piece = chosen[:, start : start + (steps or timesteps)]
            yield lane, encode_slice(spec, Slice(lane, ids, start, piece, targets, now_us()))


def fill(stack: Stack, spec: ModelSpec, prepared: Iterator[tuple[int, bytes]]) -> int:
    """Register the model, empty the topics, put the records on `sequences`; their bytes before compression."""
    size = 0
    empty(stack, "sequences", "spike-columns", "brain-waves", "predictions")
    with Client(stack.connection) as client:
        client.register(spec)
        for lane, record in prepared:
            client.send(record, lane)
            size += len(record)
        client.flush()
    return size


def empty(stack: Stack, *topics: str) -> None:
    """Delete what the topics hold, so that the next job finds its own records only."""
    admin = KafkaAdminClient(**stack.connection.python_client())
    consumer = KafkaConsumer(**stack.connection.python_client())
    try:
        partitions = [TopicPartition(topic, n) for topic in topics for n in consumer.partitions_for_topic(topic) or ()]
        ends = {partition: end for partition, end in consumer.end_offsets(partitions).items() if end}
        if ends:
            admin.delete_records(ends)
    finally:
        consumer.close()
        admin.close()


class Arrival(NamedTuple):
    """When a record became readable (seconds of `time.monotonic`), and how much it counts for."""

    at: float
    weight: int


class Background:
    """Runs `_run` in a thread while its `with` block lasts; `_stop` tells it to end."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        raise NotImplementedError


class Arrivals(Background):
    """What arrives on a topic from now on, committed records only, read in a thread."""

    def __init__(self, connection: KafkaConnection, topic: str, weigh: Callable[[bytes], int]) -> None:
        self.seen: list[Arrival] = []
        self._weigh = weigh
        self._consumer = KafkaConsumer(
            **connection.python_client(), isolation_level="read_committed", enable_auto_commit=False
        )
        partitions = [TopicPartition(topic, n) for n in self._consumer.partitions_for_topic(topic) or ()]
        self._consumer.assign(partitions)
        self._consumer.seek_to_end()
        for partition in partitions:
            self._consumer.position(partition)  # now, not at the first poll
        super().__init__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._consumer.close()

    @property
    def total(self) -> int:
        return sum(arrival.weight for arrival in self.seen)

    def wait(self, total: int, seconds: float) -> None:
        """Until so many have come, or so much time has passed."""
        deadline = time.monotonic() + seconds
        while self.total < total and time.monotonic() < deadline:
            time.sleep(0.2)

    def _run(self) -> None:
        while not self._stop.is_set():
            polled = self._consumer.poll(timeout_ms=100, max_records=5000)
            now = time.monotonic()
            for batch in polled.values():
                self.seen += [Arrival(now, self._weigh(record.value)) for record in batch]


class Rate(NamedTuple):
    """A second, over `arrived` between two checkpoints at `begin` and `end` (seconds of `time.monotonic`)."""

    per_second: float
    arrived: int
    begin: float
    end: float
    checkpoints: int


def steady(seen: list[Arrival], total: int) -> Rate:
    """The rate from the first checkpoint after a quarter of `total` to the last one before nine tenths of it; all
    that came, where there are not two such checkpoints."""
    bursts: list[tuple[float, int]] = []  # first arrival, count
    last = -np.inf
    for arrival in seen:
        if arrival.at - last > BURST_GAP_S:
            bursts.append((arrival.at, 0))
        last = arrival.at
        bursts[-1] = (bursts[-1][0], bursts[-1][1] + arrival.weight)
    if len(bursts) < 2:
        raise BenchError(
            f"expected columns of two checkpoints or more, got {len(bursts)} with {sum(n for _, n in bursts)} of "
            f"{total} sequences; the job failed (see its log) or the machine is too slow for this benchmark"
        )
    done = np.cumsum([count for _, count in bursts])
    inside = [i for i, count in enumerate(done) if WARM * total <= count <= END * total]
    first, final = (inside[0], inside[-1]) if len(inside) > 1 else (0, len(bursts) - 1)
    count = int(done[final] - done[first])
    begin, end = bursts[first][0], bursts[final][0]
    return Rate(count / (end - begin), count, begin, end, final - first)


class Usage(Background):
    """CPU seconds of the stack's processes over time, sampled in a thread: Kafka, JVMs and Python workers apart."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._samples: list[tuple[float, dict[str, float]]] = []
        super().__init__()

    def between(self, begin: float, end: float) -> dict[str, float]:
        """CPU seconds used from `begin` to `end`, by kind of process."""
        first, final = (min(self._samples, key=lambda sample, at=at: abs(sample[0] - at)) for at in (begin, end))  # type: ignore[misc]
        return {kind: seconds - first[1].get(kind, 0.0) for kind, seconds in final[1].items()}

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self._samples.append((time.monotonic(), cpu_seconds(self._stack)))


def cpu_seconds(stack: Stack) -> dict[str, float]:
    used: dict[str, float] = defaultdict(float)
    for kind, process in members(stack):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        used[kind] += times.user + times.system
    return used


def resident(stack: Stack) -> dict[str, int]:
    """Bytes of memory in use now, by kind of process."""
    used: dict[str, int] = defaultdict(int)
    for kind, process in members(stack):
        try:
            used[kind] += process.memory_info().rss
        except psutil.Error:
            continue
    return used


def members(stack: Stack) -> Iterator[tuple[str, psutil.Process]]:
    """Every process of the stack as Kafka, job manager, task manager JVM, or Python worker."""
    for name, leader in stack.processes.items():
        for member in leader.group():
            try:
                python = member.pid != leader.pid and "python" in member.name()
            except psutil.Error:
                continue
            yield ("Python workers" if python else "JVM" if name.startswith("taskmanager") else name), member


_barrier: threading.Barrier  # of the processes that `bare` starts: they step at the same time


def bare(spec: ModelSpec, codes: Codes, block: int, processes: int, seconds: float) -> float:
    """Sequences a second through `snn.engine` alone, the same blocks in as many processes at once."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    arguments = (spec.spec_json, codes[: 4 * block], block, seconds)
    with ProcessPoolExecutor(processes, context, initializer=_remember, initargs=(barrier,)) as pool:
        running_now = [pool.submit(_step_for, *arguments) for _ in range(processes)]
        return sum(future.result() for future in running_now)


def _remember(barrier: threading.Barrier) -> None:
    global _barrier
    _barrier = barrier


def _step_for(spec_json: str, codes: Codes, block: int, seconds: float) -> float:
    torch.set_num_threads(1)
    spec = parse_model(json.loads(spec_json))
    network = engine.on_device(spec, range(spec.witnesses.count))
    resting = engine.resting(network)
    blocks = [codes[begin : begin + block] for begin in range(0, len(codes) - block + 1, block)] or [codes]
    done = 0
    for turn in range(2):  # the first compiles
        _barrier.wait(120)
        begun, done = time.perf_counter(), 0
        while time.perf_counter() < begun + (seconds if turn else 0.5):
            chosen = blocks[done % len(blocks)]
            engine.advance(chosen, 0, np.tile(resting, (len(chosen), 1)), network, spec.input)
            done += 1
    return done * block / (time.perf_counter() - begun)

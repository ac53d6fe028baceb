"""What it costs to keep many sequences alive at once: CPU, memory and checkpoints by the number of live sequences.

Measured: the `roll_out` job at parallelism 2 on one task manager. L sequences of 1,000 timesteps (28 features, 1,000
neurons) take turns: every record brings the next slice of 64 of them, so all stay begun and none ends. Progress is read
from `brain-waves`, which counts the sequences stepped at each timestep. The figures are those after the first round,
when all L sequences are in state:
- slices a second, and CPU seconds of the task manager (JVM and Python workers) for 1,000 slices;
- memory of JVM and Python workers at the end, where the membranes of L sequences alone are 4 kB each;
- duration and size of the checkpoints of that time, from Flink's REST interface.
Heap state and RocksDB; slices of 4 timesteps and of 1. A case ends after its time even if it is behind, and says so.

Nothing is compared with another library: none keeps neurons in a stream processor's state.
"""

import time
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from bench import cluster, harness
from bench.cluster import Arrivals, Usage
from bench.harness import Report
from snn.model import ModelSpec
from spikeloom.local import FlinkSettings
from wire import messages_pb2 as pb
from wire.codec import Slice, encode_slice, now_us
from wire.targets import Targets

TIMESTEPS, FEATURES, NEURONS = 1000, 28, 1000
BLOCK = 64  # sequences in a record
CASES: list[tuple[int, int, Literal["hashmap", "rocksdb"]]] = [
    *((live, 4, "hashmap") for live in (1_000, 10_000, 100_000)),
    *((live, 4, "rocksdb") for live in (1_000, 10_000, 100_000)),
    *((live, 1, "hashmap") for live in (1_000, 10_000)),
]
QUICK: list[tuple[int, int, Literal["hashmap", "rocksdb"]]] = [(512, 4, "hashmap")]
SLICES, QUICK_SLICES = 300_000, 10_000  # sent in all, at least three rounds
SECONDS, QUICK_SECONDS = 30, 15  # for a case, once its first slices are through


def run(report: Report) -> None:
    for live, steps, backend in QUICK if report.quick else CASES:
        case = f"{live:,} live, {steps} timestep{'s' * (steps > 1)} a slice, {backend}"
        report.say(f"{case}: starting Kafka and Flink")
        with cluster.running(FlinkSettings(state_backend=backend)) as stack:
            spec = cluster.model("bench-live", witnesses=NEURONS, timesteps=TIMESTEPS, features=FEATURES)
            rounds = max(3, min((QUICK_SLICES if report.quick else SLICES) // live, TIMESTEPS // steps - 1))
            cluster.fill(stack, spec, slices(spec, live, steps, rounds))
            with (
                Arrivals(stack.connection, "brain-waves", stepped) as arrivals,
                Usage(stack) as usage,
                cluster.job(stack, "roll_out", spec, parallelism=2) as job,
            ):
                seconds = QUICK_SECONDS if report.quick else SECONDS
                finished = live * rounds * steps
                begin, end, count = window(arrivals, live * steps, finished, seconds)
                memory, checkpoints = cluster.resident(stack), stack.cluster.get(f"/jobs/{job}/checkpoints")
                used = usage.between(begin, end)
            done = count / steps
            report.add(case, "throughput", "slices/s", done / (end - begin))
            if arrivals.total < live * steps:
                report.say(f"{case}: only {arrivals.total / steps:,.0f} slices came through; the first round is no end")
            for kind in ("JVM", "Python workers"):
                report.add(case, f"CPU of {kind}", "s per 1,000 slices", 1000 * used.get(kind, 0.0) / max(done, 1))
            for kind in ("JVM", "Python workers"):
                report.add(case, f"memory of {kind}", "MB", memory.get(kind, 0) / 1e6)
            add_checkpoints(report, case, checkpoints)


def slices(spec: ModelSpec, live: int, steps: int, rounds: int) -> Iterator[tuple[int, bytes]]:
    """`rounds` times the next slice of all `live` sequences, in records of sequences of one lane."""
    codes = cluster.noise(steps * rounds, FEATURES, count=BLOCK)
    lanes = [np.arange(lane, live, spec.lanes, dtype=np.uint64) for lane in range(spec.lanes)]
    for turn in range(rounds):
        start = turn * steps
        for lane, members in enumerate(lanes):
            for begin in range(0, len(members), BLOCK):
                ids = members[begin : begin + BLOCK]
                piece = codes[: len(ids), start : start + steps]
                yield lane, encode_slice(spec, Slice(lane, ids, start, piece, Targets(), now_us()))


def stepped(record: bytes) -> int:
    """Timesteps of sequences that a record of `brain-waves` tells of."""
    wave = pb.BrainWave.FromString(record)
    return sum(wave.layers[0].sequences) if wave.shard == 0 else 0


def window(arrivals: Arrivals, first_round: int, everything: int, seconds: float) -> tuple[float, float, int]:
    """Begin and end (seconds of `time.monotonic`) and timesteps stepped between: from the end of the first round, or
    from the first arrival where that is not reached in time, to the end of the time or of the work."""
    arrivals.wait(1, 60)
    deadline = time.monotonic() + seconds
    arrivals.wait(min(first_round, everything), seconds)
    arrivals.wait(everything, deadline - time.monotonic())
    seen = list(arrivals.seen)
    done = np.cumsum([arrival.weight for arrival in seen])
    begin = int(np.searchsorted(done, first_round)) if done[-1] > first_round else 0
    begin = min(begin, len(seen) - 2)
    return seen[begin].at, max(seen[-1].at, seen[begin].at + 1e-3), int(done[-1] - done[begin])


def add_checkpoints(report: Report, case: str, answer: dict[str, Any]) -> None:
    done = [each for each in answer["history"] if each["status"] == "COMPLETED"]
    if not done:
        report.say(f"{case}: no checkpoint was completed")
        return
    half = done[: max(1, len(done) // 2)]  # newest first: the state is large then
    duration = float(np.median([each["end_to_end_duration"] for each in half]))
    size = float(np.median([each["state_size"] for each in half]))
    report.add(case, "checkpoint, duration", "ms", duration, runs=len(half))
    report.add(case, "checkpoint, size", "MB", size / 1e6, runs=len(half))


if __name__ == "__main__":
    harness.main("live_sequences", run, cores=2)

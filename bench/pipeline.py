"""What Kafka and Flink cost on top of the kernel: sequences a second from topic to topic, against the engine alone.

Measured: the `roll_out` job (exactly once, process mode, a checkpoint every 2 s), from records that lie on `sequences`
to committed records on `spike-columns`. The rate is counted by arrival at a consumer of committed records, between the
checkpoints after a quarter and before nine tenths of the sequences.

Against: `snn.engine.advance`, which the operator calls, on blocks of whole sequences, nothing around it, in as many
processes as the job has tasks. Both take turns. A ratio of 1 means that Kafka, Flink and protobuf cost nothing. With
two tasks on two cores the broker, the JVM and the reader take their time from the kernel; with one they have a core.

The sequences are MNIST's rows (T = 28, m = 28, a byte each), the witnesses gaussian, records as large as the client
makes them (256 KiB of inputs). CPU seconds are those of the stack's processes in the same time.
"""

import statistics

from bench import cluster, harness
from bench.cluster import Arrivals, Codes, Rate, Usage
from bench.harness import BenchError, Report
from snn.model import ModelSpec
from spikeloom.local import Stack
from wire import messages_pb2 as pb

SLOTS = 2
CASES = {  # witnesses, timesteps a record, tasks
    "4,096 witnesses, whole sequences, 2 tasks": (4096, None, 2),
    "512 witnesses, whole sequences, 2 tasks": (512, None, 2),
    "4,096 witnesses, slices of 4 timesteps, 2 tasks": (4096, 4, 2),
    "4,096 witnesses, whole sequences, 1 task": (4096, None, 1),
}
SECONDS, QUICK_SECONDS = 12, 4  # of work for a run, by the engine's rate
REPEATS = 2
PATIENCE = 3  # times as long as the engine would take, then the run ends with what has come
START_S = 30  # for the Python workers to import torch and numba
MOST_A_SECOND = 60_000  # sequences prepared for a second of work: the job is slower where the engine is faster


def run(report: Report) -> None:
    codes = cluster.mnist_rows()
    report.say("starting Kafka and Flink")
    with cluster.running(slots=SLOTS) as stack:
        for number, (case, (witnesses, steps, tasks)) in enumerate(list(CASES.items())[: 1 if report.quick else None]):
            spec = cluster.model(f"bench-{number}", witnesses=witnesses)
            measure(report, stack, case, spec, codes, steps, tasks)


def measure(
    report: Report, stack: Stack, case: str, spec: ModelSpec, codes: Codes, steps: int | None, tasks: int
) -> None:
    seconds = QUICK_SECONDS if report.quick else SECONDS
    engine, through, used = [], [], []
    count = 0
    for _ in range(1 if report.quick else REPEATS):
        engine.append(cluster.bare(spec, codes, cluster.per_record(spec), tasks, seconds / 5))
        report.say(f"{case}: engine alone {engine[-1]:,.0f} sequences/s")
        if not count:  # a job without a savepoint reads from the start, so one filling serves every run
            count = int(min(engine[-1], MOST_A_SECOND) * seconds)
            block = cluster.per_record(spec, steps)
            cluster.fill(stack, spec, cluster.records(spec, codes, count, block=block, steps=steps))
            report.say(f"{case}: {count:,} sequences lie on the topic")
        rate, cpu = stream(stack, spec, count, PATIENCE * seconds, tasks)
        report.say(f"{case}: pipeline {rate.per_second:,.0f} sequences/s over {rate.checkpoints} checkpoints")
        through.append(rate.per_second)
        used.append({kind: 1000 * value / rate.arrived for kind, value in cpu.items()})
    runs = len(through)
    report.add(
        case, "throughput", "sequences/s", statistics.median(through), better="more", runs=runs,
        peer="engine alone", peer_value=statistics.median(engine),
    )  # fmt: skip
    for kind in sorted(used[0]):
        value = statistics.median(each.get(kind, 0.0) for each in used)
        report.add(case, f"CPU of {kind}", "s per 1,000 sequences", value, runs=runs)


def stream(
    stack: Stack, spec: ModelSpec, count: int, patience: float, parallelism: int
) -> tuple[Rate, dict[str, float]]:
    """Rate of the roll_out job over the `count` sequences on the topic, and the CPU seconds of that time."""
    with Arrivals(stack.connection, "spike-columns", sequences) as arrivals, Usage(stack) as usage:
        with cluster.job(stack, "roll_out", spec, parallelism=parallelism) as job:
            arrivals.wait(count, patience + START_S)
            if not arrivals.total:
                state, failures = stack.job_state(job), stack.cluster.failures(job)
                raise BenchError(
                    f"expected spike columns of {count} sequences, got none within {patience + START_S:.0f} s; the job "
                    f"is {state}; its newest failure: {failures[0] if failures else 'none'}"
                )
        rate = cluster.steady(arrivals.seen, min(count, arrivals.total))
        return rate, usage.between(rate.begin, rate.end)


def sequences(record: bytes) -> int:
    return len(pb.SpikeColumns.FromString(record).ids)


if __name__ == "__main__":
    harness.main("pipeline", run, cores=SLOTS)

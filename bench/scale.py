"""How throughput depends on the sizes, and what that says of more machines.

Measured: sequences a second of the `roll_out` job from topic to topic, as `pipeline` measures it, for several numbers
of witnesses P, timesteps T, whole sequences a record B, and parallelism K (1 and 2: this is one machine). They do not
depend on how many sequences came before; how they depend on the live ones is `live_sequences`.

A model is fitted by non-negative least squares on the relative error. A sequence takes

    seconds = step * T * P  +  record / B  +  sequence  +  byte * (T * m + P / 8)

of one task slot with a core of its own: the cost of a neuron's timestep in the kernel, of a record (Kafka, Flink,
protobuf, one call of the kernel), of a sequence (ids, state, targets), of a byte in or out. K slots on K cores take 1/K
of it. "fitted" stands beside each measured rate, "error" says how far it is off.

Prediction: for K task managers of one core, K times the rate of one, beside two limits:
- the solver is one process that reads every column and, for the squared loss, keeps their inner products, P^2 numbers:
  measured here on a core of its own. A solver that falls behind holds nobody up: its readouts come later;
- bytes over the wire, in and out: the rate that fills 1 GB/s, most of a network of 10 Gbit/s.
Not measured and not in the model: K above the cores of this machine, brokers' disks, skew between lanes, checkpoints of
large state (see `live_sequences`), and what brokers and job manager take of a machine they share with the workers.
"""

import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from bench import cluster, harness, pipeline
from bench.harness import Report
from snn.model import ModelSpec
from solver_service import columns as solver_columns
from solver_service.trainer import Trainer
from wire.codec import Columns, encode_columns
from wire.targets import Targets

FEATURES = 28
NETWORK_BYTES_PER_S = 1e9
SECONDS, QUICK_SECONDS = 14, 4  # of work for a point, by the engine's rate
MOST_RECORDS_A_SECOND = 2000  # prepared for a slot
SOLVER_BLOCKS = 6
TASK_MANAGERS = (1, 2, 4, 8, 16, 32)
COSTS = {
    "step": "ns per neuron timestep",
    "record": "us per record",
    "sequence": "us per sequence",
    "byte": "ns per byte",
}


class Point(NamedTuple):
    """Witnesses, timesteps, sequences a record, parallelism."""

    P: int
    T: int
    B: int
    K: int

    def __str__(self) -> str:
        return f"P={self.P:,} T={self.T} B={self.B} K={self.K}"

    @property
    def wire(self) -> float:
        """Bytes of a sequence, in and out."""
        return self.T * FEATURES + self.P / 8

    def terms(self) -> tuple[float, float, float, float]:
        return self.T * self.P, 1 / self.B, 1.0, self.wire


POINTS = [
    Point(4096, 28, 334, 2),
    Point(4096, 28, 334, 1),
    Point(1024, 28, 334, 2),
    Point(256, 28, 334, 2),
    Point(256, 28, 334, 1),
    Point(1024, 7, 334, 2),
    Point(1024, 112, 83, 2),
    Point(256, 28, 8, 2),
    Point(256, 28, 1, 2),
]
QUICK = [Point(1024, 28, 334, 2), Point(256, 28, 64, 2)]
PREDICTED = Point(4096, 28, 334, 1)


def run(report: Report) -> None:
    seconds = QUICK_SECONDS if report.quick else SECONDS
    points = QUICK if report.quick else POINTS
    report.say("starting Kafka and Flink")
    rates = []
    with cluster.running(slots=2) as stack:
        for number, point in enumerate(points):
            spec = cluster.model(f"bench-{number}", witnesses=point.P, timesteps=point.T, features=FEATURES)
            codes = cluster.noise(point.T, FEATURES)
            engine = cluster.bare(spec, codes, point.B, point.K, seconds / 5)
            # Records are a cost of their own: where they are small, the engine's rate is far off.
            count = int(min(engine, pipeline.MOST_A_SECOND, MOST_RECORDS_A_SECOND * point.B * point.K) * seconds)
            cluster.fill(stack, spec, cluster.records(spec, codes, count, block=point.B))
            through, _ = pipeline.stream(stack, spec, count, 3 * seconds, point.K)
            report.say(f"{point}: {through.per_second:,.0f} sequences/s, engine alone {engine:,.0f}")
            rates.append(through.per_second)
    costs = fit(points, rates)
    for point, rate in zip(points, rates, strict=True):
        fitted = point.K / float(np.dot(point.terms(), costs))
        report.add(str(point), "throughput", "sequences/s", rate, peer="fitted", peer_value=fitted, better="more")
    errors = [
        abs(float(np.dot(point.terms(), costs)) * rate / point.K - 1) for point, rate in zip(points, rates, strict=True)
    ]
    report.add("all points", "error of the fit, median", "%", 100 * float(np.median(errors)), runs=len(points))
    report.add("all points", "error of the fit, largest", "%", 100 * max(errors), runs=len(points))
    for (name, unit), cost in zip(COSTS.items(), costs, strict=True):
        report.add("fitted cost", name, unit, cost * (1e9 if unit.startswith("ns") else 1e6), runs=len(points))
    predict(report, costs)


def fit(points: list[Point], rates: list[float]) -> npt.NDArray[np.float64]:
    """Seconds of each term; every point counts by its relative error."""
    measured = np.array([point.K / rate for point, rate in zip(points, rates, strict=True)])
    terms = np.array([point.terms() for point in points]) / measured[:, None]
    size = terms.max(axis=0)
    return nnls(terms / size, np.ones(len(points)))[0] / size


def predict(report: Report, costs: npt.NDArray[np.float64]) -> None:
    spec = cluster.model("bench-solver", witnesses=PREDICTED.P)
    reading, solver = solver_rates(spec, PREDICTED.B)
    network = NETWORK_BYTES_PER_S / PREDICTED.wire
    case = f"predicted, P={PREDICTED.P:,} T={PREDICTED.T} B={PREDICTED.B}"
    report.add(case, "one core of the solver: reading (measured)", "sequences/s", reading)
    report.add(case, "one core of the solver: reading and inner products (measured)", "sequences/s", solver)
    report.add(case, "limit: 1 GB/s of network", "sequences/s", network)
    one = 1 / float(np.dot(PREDICTED.terms(), costs))
    for managers in TASK_MANAGERS:
        rate = min(managers * one, network)
        behind = ", more than the solver takes" if rate > solver else ""
        metric = f"{managers} x 1 core, {'network' if rate == network else 'workers'} bind{behind} (predicted)"
        report.add(case, metric, "sequences/s", rate)


def solver_rates(spec: ModelSpec, block: int) -> tuple[float, float]:
    """Sequences a second that one core reads into the solver's dictionary, and takes into its inner products, too."""
    draw = np.random.default_rng(0)
    bits = draw.integers(0, 256, (block, spec.witnesses.count // 8), dtype=np.uint8)
    targets = Targets.final(np.zeros(block, np.int32))
    trainer, products = Trainer(spec), solver_columns.Columns(spec.witnesses.count, spec.readout.outputs)
    records = [
        encode_columns(spec, Columns.final(0, 0, np.arange(first, first + block, dtype=np.uint64), bits, targets))
        for first in range(0, SOLVER_BLOCKS * block, block)
    ]
    begun = time.perf_counter()
    for record in records:
        trainer.ingest(record)
    read = time.perf_counter()
    rows, none = trainer.dictionary.take_changes()
    products.update(rows, none)  # tells equal columns apart, which later rows hardly do any more
    begun_products = time.perf_counter()
    products.update(rows, none)
    end = time.perf_counter()
    count = SOLVER_BLOCKS * block
    return count / (read - begun), count / (read - begun + end - begun_products)


if __name__ == "__main__":
    harness.main("scale", run, cores=2)

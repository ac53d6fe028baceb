"""Re-solves of a stream that does not end: seconds and memory as N grows, against solving from all rows again.

Data: P witnesses with random weights see FEATURES random numbers a row; classes are a random linear teacher's, a tenth
of them at random. Squared loss, group penalty, C classes, beta / beta_max = 0.01, gap 1e-6; one core.

- ours: a `solver_service.trainer.Trainer` reads the records of the stream. When the last NEW rows before N have come,
  `Trainer.solve` is timed: it counts them, solves from the newest readout and certifies. Median of the last RUNS turns.
- all rows: what a solver does that keeps rows and not their sums. They are in memory as packed bits; timed are their
  inner products, by the same kernels, the solve from zero and the certificate. Once for each N.

Memory is what the process holds right after its solve (resident set). The streaming run comes first and keeps no rows;
the other one makes the same rows again and keeps them.
"""

import statistics
import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import psutil

from bench import harness
from bench.harness import BenchError, Report
from snn.bits import Bits
from snn.model import ModelSpec, parse_model
from snn.readout import Rows
from solver_service.columns import COUNTED, Columns
from solver_service.solvers import solve
from solver_service.trainer import Trainer
from wire.codec import Columns as Record
from wire.codec import encode_columns
from wire.targets import Targets

FEATURES, C = 28, 10
NEW = 10_000  # rows of a turn: the service's `every_rows`
BLOCK = 500  # rows of a record; divides NEW and every N
RUNS = 3
RELATIVE_BETA = 0.01


class Size(NamedTuple):
    P: int
    new: int
    rows: tuple[int, ...]


SIZE = Size(2000, NEW, (60_000, 250_000, 1_000_000, 4_000_000))
QUICK = Size(128, 1000, (5000, 10_000))


def run(report: Report) -> None:
    size = QUICK if report.quick else SIZE
    for rows, (seconds, memory), (peer_seconds, peer_memory) in zip(
        size.rows, streamed(report, size), from_all_rows(report, size), strict=True
    ):
        case = f"N={rows:,} P={size.P:,} C={C} squared group"
        report.add(case, "re-solve", "s", seconds, runs=RUNS, peer="all rows", peer_value=peer_seconds)
        report.add(case, "resident memory", "MB", memory, peer="all rows", peer_value=peer_memory)


def streamed(report: Report, size: Size) -> list[tuple[float, float]]:
    """Seconds and megabytes at each N."""
    spec, stream, measured = model(size), Stream(size.P), []
    trainer, version = Trainer(spec), 0
    for rows in size.rows:
        taken = []
        for at in range(rows - RUNS * size.new, rows + 1, size.new):
            while stream.rows < at:
                trainer.ingest(encode_columns(spec, stream.record()))
            version += 1
            begun = time.perf_counter()
            message = trainer.solve(version, 600)
            taken.append(time.perf_counter() - begun)
            if message is None or not message.solved or message.rows != at:
                raise BenchError(f"expected a solved readout of {at} rows, got {message}")
        measured.append((statistics.median(taken[1:]), resident()))  # the first counts all rows since the last N
        report.say(f"streamed {rows:,} rows")
    return measured


def from_all_rows(report: Report, size: Size) -> list[tuple[float, float]]:
    spec, stream, measured = model(size), Stream(size.P), []
    bits = np.empty((size.rows[-1], size.P // 8), np.uint8)
    classes = np.empty(size.rows[-1], np.int32)
    for rows in size.rows:
        while stream.rows < rows:
            here = slice(stream.rows, stream.rows + BLOCK)
            bits[here], classes[here] = stream.block()
        begun = time.perf_counter()
        columns = Columns(size.P, C)
        for top in range(0, rows, COUNTED):
            here = slice(top, min(top + COUNTED, rows))
            ids, none = np.arange(here.start, here.stop, dtype=np.uint64), np.zeros((0, C))
            columns.update(Rows(ids, bits[here], np.eye(C)[classes[here]]), Rows(ids[:0], bits[:0], none))
        solution = solve(columns.moments(), "group", RELATIVE_BETA)
        measured.append((time.perf_counter() - begun, resident()))
        if solution.relative_gap > spec.readout.tolerance:
            raise BenchError(f"expected a gap of {spec.readout.tolerance} at {rows} rows, got {solution.relative_gap}")
        report.say(f"solved from {rows:,} rows")
    return measured


class Stream:
    """Rows drawn one block after the other, the same ones every time."""

    def __init__(self, witnesses: int) -> None:
        self.rows = 0
        self._rng = np.random.default_rng(0)
        self._weights = self._rng.standard_normal((FEATURES, witnesses), np.float32)
        self._thresholds = self._rng.standard_normal(witnesses, np.float32) * np.float32(FEATURES**0.5)
        self._teacher = self._rng.standard_normal((FEATURES, C), np.float32)

    def block(self) -> tuple[Bits, npt.NDArray[np.int32]]:
        x = self._rng.standard_normal((BLOCK, FEATURES), np.float32)
        classes = (x @ self._teacher).argmax(axis=1).astype(np.int32)
        classes[: BLOCK // 10] = self._rng.integers(0, C, BLOCK // 10)
        self.rows += BLOCK
        return np.packbits(x @ self._weights > self._thresholds, axis=1, bitorder="little"), classes

    def record(self) -> Record:
        ids = np.arange(self.rows, self.rows + BLOCK, dtype=np.uint64)
        bits, classes = self.block()
        return Record.final(0, 0, ids, bits, Targets.final(classes))


def model(size: Size) -> ModelSpec:
    return parse_model(
        {
            "model": "stream",
            "input": {"timesteps": 4, "features": 4},
            "witnesses": {"law": {"name": "gaussian"}, "count": size.P, "shards": 1},
            "readout": {"outputs": C, "relative_beta": RELATIVE_BETA},
        }
    )


def resident() -> float:
    """Megabytes of this process."""
    return float(psutil.Process().memory_info().rss / 1e6)


if __name__ == "__main__":
    harness.main("solver_stream", run, cores=1)

"""One model's training: records of spike columns in, certified readouts out. Knows no Kafka.

`ingest` and `freeze` are for the thread that reads the stream, `solve` for the one that solves. Between them stands a
lock that is held while rows are copied and no longer, so ingestion never waits for a solver.
"""

import threading
import time
from typing import Literal

import numpy as np
import numpy.typing as npt

from snn.model import ModelSpec
from solver_service import metrics
from solver_service.columns import Columns
from solver_service.dictionary import Dictionary, Piece
from solver_service.losses import LOSSES, Array
from solver_service.snapshot import Arrays
from solver_service.solvers import Point, Solution, solve
from wire import messages_pb2 as pb
from wire.codec import decode_columns, now_us
from wire.idset import IdSet


class Trainer:
    def __init__(self, model: ModelSpec, arrays: Arrays | None = None) -> None:
        """`arrays` as `freeze` gave them, for a restart."""
        self.model = model
        shape = (model.witnesses.count, model.witnesses.shards, model.readout)
        self.dictionary = Dictionary.from_arrays(arrays, *shape) if arrays else Dictionary(*shape)
        self._columns = Columns(model.witnesses.count, model.readout.outputs)
        self._lock = threading.Lock()
        self._support: npt.NDArray[np.int64] = np.zeros(0, np.int64)  # of the newest solution, by witness
        self._newest = Point(np.zeros((0, model.readout.outputs)), np.zeros(model.readout.outputs))

    @property
    def fresh(self) -> int:
        """Rows that no readout was trained on."""
        return self.dictionary.fresh

    def ingest(self, record: bytes) -> None:
        """Store a record of `spike-columns`. Raises WireError for one that cannot be used."""
        columns = decode_columns(record, self.model)
        targets = columns.targets.values if columns.targets.classes is None else columns.targets.classes
        assert targets is not None  # decode_columns refuses samples without a target
        with self._lock:
            duplicates = self.dictionary.add(Piece(columns.shard, columns.ids, columns.bits, targets))
        name = self.model.model
        metrics.ROWS.labels(name).inc(len(columns.ids) - duplicates)
        metrics.DUPLICATES.labels(name).inc(duplicates)
        metrics.DICTIONARY_ROWS.labels(name).set(self.dictionary.rows)
        metrics.DICTIONARY_PENDING.labels(name).set(self.dictionary.pending)

    def freeze(self) -> Arrays:
        """The dictionary as plain arrays, for a snapshot."""
        with self._lock:
            return self.dictionary.arrays()

    def solve(self, version: int, seconds: float, backend: Literal["native", "cvxpy"] = "native") -> pb.Readout | None:
        """The readout of all complete rows as `version`, warm started; None while there are no rows."""
        begun = time.monotonic()
        readout, columns = self.model.readout, self._columns
        moments = readout.loss == "squared" and backend == "native"
        with self._lock:
            added, removed = self.dictionary.take_changes()
            rows = None if moments else self.dictionary.all_rows()
            ids = self.dictionary.counted_ids()
        columns.update(added, removed)
        if not columns.rows:
            return None
        candidates = columns.candidates
        fit = columns.moments() if rows is None else columns.samples(rows, LOSSES[readout.loss])
        solution = solve(
            fit, readout.penalty, readout.relative_beta, readout.tolerance, self._start(candidates), seconds, backend
        )
        self._support = candidates[solution.support]
        self._newest = Point(solution.coefficients[solution.support], solution.intercept)
        message = self._message(solution, version, ids, time.monotonic() - begun)
        self._measure(message)
        return message

    def _start(self, candidates: npt.NDArray[np.int64]) -> Point:
        """The newest solution over the candidates of now."""
        w: Array = np.zeros((len(candidates), self.model.readout.outputs))
        at = np.searchsorted(candidates, self._support)
        kept = np.isin(self._support, candidates)
        w[at[kept]] = self._newest.w[kept]
        return Point(w, self._newest.b)

    def _message(self, solution: Solution, version: int, ids: npt.NDArray[np.uint64], seconds: float) -> pb.Readout:
        readout, trained_on = self.model.readout, IdSet()
        trained_on.add(ids)
        return pb.Readout(
            model=self.model.model,
            digest=self.model.digest,
            version=version,
            outputs=readout.outputs,
            support=self._support.tolist(),
            coefficients=np.ascontiguousarray(self._newest.w, "<f8").tobytes(),
            intercept=np.ascontiguousarray(solution.intercept, "<f8").tobytes(),
            loss=readout.loss,
            penalty=readout.penalty,
            beta=solution.beta,
            primal=solution.primal,
            dual=solution.dual,
            relative_gap=solution.relative_gap,
            solved=solution.relative_gap <= readout.tolerance,
            rows=self._columns.rows,
            columns=len(self._columns.distinct),
            trained_on=[pb.Span(first=first, last=last) for first, last in trained_on.spans()],
            solve_seconds=seconds,
            published_us=now_us(),
        )

    def _measure(self, message: pb.Readout) -> None:
        name = self.model.model
        metrics.DICTIONARY_COLUMNS.labels(name).set(message.columns)
        metrics.DICTIONARY_BYTES.labels(name).set(self.dictionary.bytes + self._columns.bytes)
        metrics.RELATIVE_GAP.labels(name).set(message.relative_gap)
        metrics.PRIMAL.labels(name).set(message.primal)
        metrics.SUPPORT.labels(name).set(len(message.support))
        metrics.VERSION.labels(name).set(message.version)
        metrics.SOLVE_SECONDS.labels(name).observe(message.solve_seconds)

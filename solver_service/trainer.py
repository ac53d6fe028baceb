"""One model's training: records of spike columns in, certified readouts out. Knows no Kafka.

`ingest` and `freeze` are for the thread that reads the stream, `solve` for the one that solves. Two locks stand between
them, neither of which is held while a solver iterates:

- `_rows`, while rows are stored or copied;
- `_sums`, while rows that were taken from the dictionary are counted into the columns. Where counted rows are kept as
  sums alone, a snapshot waits for that, so that it has every row once: in the dictionary or in the sums; and rows that
  arrive faster than solves take them are counted by the stream's thread, so that they do not pile up.

Whoever wants both takes `_sums` first.
"""

import threading
import time
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from snn.model import ModelSpec
from solver_service import metrics
from solver_service.columns import Columns
from solver_service.dictionary import BUDGET, Dictionary, Piece, Rows
from solver_service.fit import Moments, Samples
from solver_service.held_out import HeldOut
from solver_service.losses import LOSSES, Array
from solver_service.snapshot import Arrays
from solver_service.solvers import Point, Solution, solve
from solver_service.weights import of_rows
from wire import messages_pb2 as pb
from wire.codec import decode_columns, now_us
from wire.idset import IdSet

SUMS, HELD = "sums_", "held_"  # prefixes of the arrays of columns and of held-out rows, beside the dictionary's


class Data(NamedTuple):
    """What a readout was trained on."""

    rows: int
    seen: int
    columns: int
    trained_on: IdSet


class Trainer:
    def __init__(self, model: ModelSpec, arrays: Arrays | None = None, budget: int = BUDGET) -> None:
        """`arrays` as `freeze` gave them, for a restart; `budget`: bytes for rows. Raises WireError for a window or
        half-life that needs more."""
        self.model = model
        shape = (model.witnesses.count, model.witnesses.shards, model.readout, budget)
        self.dictionary = Dictionary.from_arrays(arrays, *shape) if arrays else Dictionary(*shape)
        sums = _with_prefix(arrays or {}, SUMS)
        half_life = model.readout.half_life if self.dictionary.sums_only else None  # kept rows are weighted at a solve
        self._columns = (
            Columns.from_arrays(sums, half_life)
            if sums
            else Columns(model.witnesses.count, model.readout.outputs, half_life)
        )
        chosen = isinstance(model.readout.relative_beta, str)
        self._held_out = HeldOut(model, _with_prefix(arrays or {}, HELD), budget) if chosen else None
        self._counted_early = self._columns.rows  # no readout of this process was trained on them
        self._rows, self._sums = threading.Lock(), threading.Lock()
        self._support: npt.NDArray[np.int64] = np.zeros(0, np.int64)  # of the newest solution, by witness
        self._newest = Point(np.zeros((0, model.readout.outputs)), np.zeros(model.readout.outputs))

    @property
    def fresh(self) -> int:
        """Rows that no readout was trained on."""
        return self.dictionary.fresh + self._counted_early

    def ingest(self, record: bytes) -> None:
        """Store a record of `spike-columns`. Raises WireError for one that cannot be used."""
        columns = decode_columns(record, self.model)
        targets = columns.targets.values if columns.targets.classes is None else columns.targets.classes
        assert targets is not None  # decode_columns refuses samples without a target
        piece, duplicates = Piece(columns.shard, columns.ids, columns.bits, targets), 0
        with self._rows:
            if self._held_out is not None:
                piece, duplicates = self._held_out.split(piece)
            duplicates += self.dictionary.add(piece)
        if self.dictionary.full:
            self._count_early()
        name = self.model.model
        metrics.ROWS.labels(name).inc(len(columns.ids) - duplicates)
        metrics.DUPLICATES.labels(name).inc(duplicates)
        metrics.DICTIONARY_ROWS.labels(name).set(self.dictionary.rows)
        metrics.DICTIONARY_SEEN.labels(name).set(self.dictionary.seen)
        metrics.DICTIONARY_PENDING.labels(name).set(self.dictionary.pending)
        metrics.DICTIONARY_BYTES.labels(name).set(self.dictionary.bytes + self._columns.bytes)

    def freeze(self) -> Arrays:
        """All rows as plain arrays, for a snapshot."""
        if not self.dictionary.sums_only:  # the columns can be made again
            with self._rows:
                return self._all_rows()
        with self._sums, self._rows:
            assert self._columns.rows + self.dictionary.fresh == self.dictionary.seen  # every row once
            return {**self._all_rows(), **{SUMS + name: array for name, array in self._columns.arrays().items()}}

    def _all_rows(self) -> Arrays:
        held = {} if self._held_out is None else self._held_out.freeze()
        return {**self.dictionary.arrays(), **{HELD + name: array for name, array in held.items()}}

    def solve(self, version: int, seconds: float, backend: Literal["native", "cvxpy"] = "native") -> pb.Readout | None:
        """The readout of all complete rows as `version`, warm started; None while there are no rows."""
        begun = time.monotonic()
        readout, columns = self.model.readout, self._columns
        with self._sums:
            with self._rows:
                changes = self.dictionary.take_changes()
                summed = readout.loss == "squared" and readout.class_weight is None
                rows = None if summed else self.dictionary.all_rows()
                seen, trained_on = self.dictionary.seen, self.dictionary.trained_on()
            columns.update(*changes)
            self._counted_early = 0
            if not columns.rows:
                return None
            candidates = columns.candidates
            fit = columns.moments() if rows is None else self._fit(rows)
            data = Data(columns.rows, seen, len(columns.distinct), trained_on)
            held_out = self._held_out_samples()
        del changes, rows  # the fit holds what it needs
        if self._held_out is not None and held_out is not None:
            self._held_out.choose(fit, held_out, seconds / 2)
        relative_beta = self._relative_beta()
        left = max(0.0, begun + seconds - time.monotonic())
        start = self._start(candidates)
        solution = solve(fit, readout.penalty, relative_beta, readout.tolerance, start, left, backend)
        self._support = candidates[solution.support]
        self._newest = Point(solution.coefficients[solution.support], solution.intercept)
        message = self._message(solution, version, data, time.monotonic() - begun)
        self._measure(message, relative_beta)
        return message

    def _relative_beta(self) -> float:
        if self._held_out is not None:
            return self._held_out.relative_beta
        stated = self.model.readout.relative_beta
        assert not isinstance(stated, str)  # there are held-out rows then
        return stated

    def _held_out_samples(self) -> Samples | None:
        """What is needed to choose beta, where it is due."""
        if self._held_out is None:
            return None
        with self._rows:
            return self._held_out.samples(self._columns)

    def _fit(self, rows: Rows) -> Moments | Samples:
        """The loss over rows that are kept."""
        readout = self.model.readout
        samples = self._columns.samples(rows, LOSSES[readout.loss], of_rows(rows.targets, readout))
        return samples.moments() if readout.loss == "squared" else samples

    def _count_early(self) -> None:
        """Rows that came too fast for the solver enter the sums; they are as fresh as before."""
        with self._sums:
            with self._rows:
                changes = self.dictionary.take_changes()
            self._columns.update(*changes)
            self._counted_early += len(changes[0].ids)

    def _start(self, candidates: npt.NDArray[np.int64]) -> Point:
        """The newest solution over the candidates of now."""
        w: Array = np.zeros((len(candidates), self.model.readout.outputs))
        at = np.searchsorted(candidates, self._support)
        kept = np.isin(self._support, candidates)
        w[at[kept]] = self._newest.w[kept]
        return Point(w, self._newest.b)

    def _message(self, solution: Solution, version: int, data: Data, seconds: float) -> pb.Readout:
        readout = self.model.readout
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
            rows=data.rows,
            seen=data.seen,
            columns=data.columns,
            trained_on=[pb.Span(first=first, last=last) for first, last in data.trained_on.spans()],
            solve_seconds=seconds,
            published_us=now_us(),
        )

    def _measure(self, message: pb.Readout, relative_beta: float) -> None:
        name = self.model.model
        metrics.DICTIONARY_COLUMNS.labels(name).set(message.columns)
        metrics.DICTIONARY_BYTES.labels(name).set(self.dictionary.bytes + self._columns.bytes)
        metrics.RELATIVE_GAP.labels(name).set(message.relative_gap)
        metrics.PRIMAL.labels(name).set(message.primal)
        metrics.SUPPORT.labels(name).set(len(message.support))
        metrics.RELATIVE_BETA.labels(name).set(relative_beta)
        metrics.VERSION.labels(name).set(message.version)
        metrics.SOLVE_SECONDS.labels(name).observe(message.solve_seconds)


def _with_prefix(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

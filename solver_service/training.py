"""What training from rows and training from sums have in common: solving again and again, warm started."""

import threading
import time
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from snn.model import ModelSpec
from solver_service import metrics
from solver_service.columns import Columns
from solver_service.fit import Moments, Samples
from solver_service.losses import Array
from solver_service.snapshot import Arrays
from solver_service.solvers import Point, Solution, solve
from wire import messages_pb2 as pb
from wire.codec import now_us
from wire.idset import IdSet

Backend = Literal["native", "cvxpy"]
PREFIX = "sums_"  # of the names of the columns' arrays in a snapshot


class Problem(NamedTuple):
    """What a readout is trained on: the fit over `candidates`, which are witnesses, and where it comes from."""

    fit: Moments | Samples
    candidates: npt.NDArray[np.int64]
    rows: int
    seen: int
    columns: int
    trained_on: IdSet
    held_out: Samples | None = None  # rows that are to choose beta, where that is due


class Training(ABC):
    """`ingest` and `freeze` are for the thread that reads the stream, `solve` for the one that solves."""

    def __init__(self, model: ModelSpec, columns: Columns, device: str | None) -> None:
        self.model, self.device = model, device
        self._columns = columns
        columns.device = device
        self._sums = threading.Lock()  # while the columns change or are read
        self._support: npt.NDArray[np.int64] = np.zeros(0, np.int64)  # of the newest solution, by witness
        self._newest = Point(np.zeros((0, model.readout.outputs)), np.zeros(model.readout.outputs))

    @property
    @abstractmethod
    def fresh(self) -> int:
        """Rows that no readout was trained on."""

    @property
    @abstractmethod
    def held_bytes(self) -> int:
        """Memory of all that is kept."""

    @property
    def candidates(self) -> npt.NDArray[np.int64]:
        """Columns that are different and not constant; while nothing is solved."""
        return self._columns.candidates

    @abstractmethod
    def ingest(self, record: bytes) -> None:
        """Take a record of the topic that this training reads. Raises WireError for one that cannot be used."""

    @abstractmethod
    def freeze(self) -> Arrays:
        """All of the state as plain arrays, for a snapshot."""

    @abstractmethod
    def _problem(self) -> Problem | None:
        """The problem of now; None while there are no rows."""

    def solve(self, version: int, seconds: float, backend: Backend = "native") -> pb.Readout | None:
        """The readout of all complete rows as `version`, warm started; None while there are none."""
        begun, readout = time.monotonic(), self.model.readout
        problem = self._problem()
        if problem is None:
            return None
        relative_beta = self._relative_beta(problem, seconds / 2)
        start, candidates = self._start(problem.candidates), problem.candidates
        left = max(0.0, begun + seconds - time.monotonic())
        solution = solve(
            problem.fit,
            readout.penalty,
            relative_beta,
            readout.tolerance,
            start,
            left,
            backend,
            self.device,
            metrics.SOLVING_GAP.labels(self.model.model).set,
        )
        self._support = candidates[solution.support]
        self._newest = Point(solution.coefficients[solution.support], solution.intercept)
        message = self._message(solution, version, problem, time.monotonic() - begun)
        self._measure(message, relative_beta)
        return message

    def _relative_beta(self, problem: Problem, seconds: float) -> float:
        """The model's, unless rows choose it, within `seconds`."""
        stated = self.model.readout.relative_beta
        assert not isinstance(stated, str)  # such a model needs rows
        return stated

    def _start(self, candidates: npt.NDArray[np.int64]) -> Point:
        """The newest solution over the candidates of now."""
        w: Array = np.zeros((len(candidates), self.model.readout.outputs))
        at = np.searchsorted(candidates, self._support)
        kept = np.isin(self._support, candidates)
        w[at[kept]] = self._newest.w[kept]
        return Point(w, self._newest.b)

    def _message(self, solution: Solution, version: int, problem: Problem, seconds: float) -> pb.Readout:
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
            rows=problem.rows,
            seen=problem.seen,
            columns=problem.columns,
            trained_on=[pb.Span(first=first, last=last) for first, last in problem.trained_on.spans()],
            solve_seconds=seconds,
            published_us=now_us(),
        )

    def _measure(self, message: pb.Readout, relative_beta: float) -> None:
        name = self.model.model
        metrics.DICTIONARY_COLUMNS.labels(name).set(message.columns)
        metrics.DICTIONARY_BYTES.labels(name).set(self.held_bytes)
        metrics.RELATIVE_GAP.labels(name).set(message.relative_gap)
        metrics.PRIMAL.labels(name).set(message.primal)
        metrics.SUPPORT.labels(name).set(len(message.support))
        metrics.BETA.labels(name).set(message.beta)
        metrics.RELATIVE_BETA.labels(name).set(relative_beta)
        metrics.VERSION.labels(name).set(message.version)
        metrics.SOLVE_SECONDS.labels(name).observe(message.solve_seconds)


def columns_of(arrays: Arrays | None, model: ModelSpec, half_life: int | None = None) -> Columns:
    """Columns as a snapshot has them, or empty ones."""
    sums = with_prefix(arrays or {}, PREFIX)
    if sums:
        return Columns.from_arrays(sums, half_life)
    return Columns(model.witnesses.count, model.readout.outputs, half_life)


def arrays_of(columns: Columns) -> Arrays:
    """Columns for a snapshot."""
    return {PREFIX + name: array for name, array in columns.arrays().items()}


def with_prefix(arrays: Arrays, prefix: str) -> Arrays:
    """Those of the arrays whose names begin so, under the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

"""One model's training from rows: records of spike columns in, certified readouts out. Knows no Kafka.

Two locks stand between the thread that reads the stream and the one that solves. Neither is held while a solver
iterates:

- `_rows`, while rows are stored or copied;
- `_sums`, while rows that were taken from the dictionary are counted into the columns. Where counted rows are kept as
  sums alone, a snapshot waits for that, so that it has every row once: in the dictionary or in the sums; and rows that
  arrive faster than solves take them are counted by the stream's thread, so that they do not pile up.

Whoever wants both takes `_sums` first.
"""

import logging
import threading

from snn.bits import BitMatrix
from snn.model import ModelSpec
from snn.readout import Rows, encode_targets, predicted_classes
from solver_service import metrics
from solver_service.dictionary import BUDGET, Dictionary, Piece, Shape
from solver_service.drift import Drift
from solver_service.fit import Moments, Samples
from solver_service.held_out import HeldOut
from solver_service.losses import loss_of
from solver_service.snapshot import Arrays
from solver_service.training import Problem, Training, arrays_of, columns_of, with_prefix
from solver_service.weights import half_life_of, of_rows
from wire.codec import decode_columns

log = logging.getLogger(__name__)

HELD = "held_"  # prefix of the arrays of held-out rows


class Trainer(Training):
    def __init__(
        self, model: ModelSpec, arrays: Arrays | None = None, budget: int = BUDGET, device: str | None = None
    ) -> None:
        """`arrays` as `freeze` gave them, for a restart; `budget`: bytes for rows; `device` as in `solve`. Raises
        WireError for a window or half-life that needs more."""
        kind = (Shape.of(model), model.readout, budget)
        self.dictionary = Dictionary.from_arrays(arrays, *kind) if arrays else Dictionary(*kind)
        half_life = half_life_of(model) if self.dictionary.sums_only else None  # kept rows are weighted at a solve
        super().__init__(model, columns_of(arrays, model, half_life), device)
        self._chooses = isinstance(model.readout.relative_beta, str)
        holds_out = self._chooses or model.growing is not None
        self._held_out = HeldOut(model, with_prefix(arrays or {}, HELD), budget) if holds_out else None
        self._counted_early = self._columns.rows  # no readout of this process was trained on them
        self._per_sample = model.target_steps
        self._drift = Drift() if model.readout.on_drift else None
        self._rows = threading.Lock()

    @property
    def fresh(self) -> int:
        return self.dictionary.fresh + self._counted_early

    @property
    def held_bytes(self) -> int:
        held_out = 0 if self._held_out is None else self._held_out.dictionary.bytes
        return self.dictionary.bytes + held_out + self._columns.bytes

    def ingest(self, record: bytes) -> None:
        """Store a record of `spike-columns`."""
        columns = decode_columns(record, self.model)
        assert columns.targets.numbers is not None  # decode_columns refuses samples without a target
        piece, duplicates = Piece(columns.shard, columns.ids, columns.bits, columns.targets.numbers), 0
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
        metrics.DICTIONARY_BYTES.labels(name).set(self.held_bytes)

    def freeze(self) -> Arrays:
        if not self.dictionary.sums_only:  # the columns can be made again
            with self._rows:
                return self._all_rows()
        with self._sums, self._rows:
            if self._per_sample == 1:  # else rows without a target may have come, which are not counted
                assert self._columns.rows + self.dictionary.fresh == self.dictionary.seen  # every row once
            return {**self._all_rows(), **arrays_of(self._columns)}

    def _all_rows(self) -> Arrays:
        held = {} if self._held_out is None else self._held_out.freeze()
        return {**self.dictionary.arrays(), **{HELD + name: array for name, array in held.items()}}

    def _problem(self) -> Problem | None:
        columns = self._columns
        with self._sums:
            with self._rows:
                changes = self._take_changes()
                summed = self.model.readout.loss == "squared" and self.model.readout.class_weight is None
                rows = None if summed else self.dictionary.all_rows()
                seen, trained_on = self._per_sample * self.dictionary.seen, self.dictionary.trained_on()
            columns.update(*changes)
            self._counted_early = 0
            if not columns.rows:
                return None
            fit = columns.moments() if rows is None else self._fit(rows)
            distinct = len(columns.distinct)
            held_out = self._held_out_samples()
            return Problem(fit, columns.candidates, columns.rows, seen, distinct, trained_on, held_out)

    def _take_changes(self) -> tuple[Rows, Rows]:
        """Rows that came and left. Where the rule of the stream has changed, all that came earlier leaves, too."""
        added, removed = self.dictionary.take_changes()
        if self._drift is None or not len(self._support) or not len(added.ids):
            return added, removed
        spikes = BitMatrix.from_rows(added.bits).select(self._support).dense()
        scores, readout = spikes @ self._newest.w + self._newest.b, self.model.readout
        right = (encode_targets(predicted_classes(scores, readout), readout) == added.targets).all(axis=1)
        if not self._drift.happened(int((~right).sum()), len(right)):
            return added, removed
        self.dictionary.forget_earlier()
        _, forgotten = self.dictionary.take_changes()
        log.info("%s: its rule has changed, %d rows are forgotten", self.model.model, len(forgotten.ids))
        metrics.DRIFTS.labels(self.model.model).inc()
        return added, removed.beside(forgotten)

    def _relative_beta(self, problem: Problem, seconds: float) -> float:
        if self._held_out is None or not self._chooses:
            return super()._relative_beta(problem, seconds)
        if problem.held_out is not None:
            self._held_out.choose(problem.fit, problem.held_out, seconds, self.device)
        return self._held_out.relative_beta

    def _held_out_samples(self) -> Samples | None:
        """What is needed to choose beta, where it is due."""
        if self._held_out is None or not self._chooses:
            return None
        with self._rows:
            return self._held_out.samples(self._columns)

    def trained_and_fresh(self) -> tuple[Rows, Rows]:
        """The rows of the newest solve, and those held out by now."""
        assert self._held_out is not None
        with self._rows:
            self._held_out.dictionary.take_changes()
            return self.dictionary.all_rows(), self._held_out.dictionary.all_rows()

    def _fit(self, rows: Rows) -> Moments | Samples:
        """The loss over rows that are kept."""
        readout = self.model.readout
        samples = self._columns.samples(rows, loss_of(readout), of_rows(rows.targets, self.model))
        return samples.moments() if readout.loss == "squared" else samples

    def _count_early(self) -> None:
        """Rows that came too fast for the solver enter the sums; they are as fresh as before."""
        with self._sums:
            with self._rows:
                changes = self.dictionary.take_changes()
            self._columns.update(*changes)
            self._counted_early += len(changes[0].ids)

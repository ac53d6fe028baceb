"""One model's training from the sums that flink_jobs/gram.py makes: records of `gram` in, certified readouts out.

The records of the same sums, one a tile, wait until all are there and then go into the columns at once. What it takes
to read them depends on the number of columns and on how often they come; ids apart, not on how many samples they sum.

Sums with a sample that is in the columns already are refused whole: its share cannot be taken out.
"""

from copy import deepcopy

import numpy as np

from snn.model import ModelSpec
from snn.sums import Sums
from solver_service import metrics
from solver_service.snapshot import Arrays
from solver_service.training import Problem, Training, arrays_of, columns_of
from wire.codec import SumsHead, SumsPart, decode_sums, tiles
from wire.idset import IdSet
from wire.reasons import Reason, WireError

WAITING = "waiting_"  # of the names of the records' arrays in a snapshot


class SumsTrainer(Training):
    def __init__(self, model: ModelSpec, arrays: Arrays | None = None, device: str | None = None) -> None:
        """`arrays` as `freeze` gave them, for a restart; `device` as in `solve`. Raises WireError for a model that
        needs rows."""
        if model.readout.needs_rows:
            raise WireError(
                Reason.NEEDS_ROWS,
                f"{model.model}: expected loss: squared and relative_beta: a number, without window, half_life, "
                "class_weight and every_step, for which sums are enough. Take it out of SPIKELOOM_SOLVER_GRAM_MODELS",
            )
        super().__init__(model, columns_of(arrays, model), device)
        self._seen = IdSet([(first, last) for first, last in arrays["seen"].tolist()] if arrays else ())
        self._fresh = self._columns.rows  # no readout of this process was trained on them
        self._tiles = len(tiles(model))
        self._waiting: dict[tuple[int, int], dict[int, tuple[SumsPart, bytes]]] = {}
        for name in arrays or ():
            if name.startswith(WAITING):
                self.ingest((arrays or {})[name].tobytes())

    @property
    def fresh(self) -> int:
        return self._fresh

    @property
    def held_bytes(self) -> int:
        waiting = sum(2 * len(record) for parts in self._waiting.values() for _, record in parts.values())
        return self._columns.bytes + self._seen.bytes + waiting

    def ingest(self, record: bytes) -> None:
        """Take a record of `gram`."""
        part = decode_sums(record, self.model)
        same = part.first, part.rows
        parts = self._waiting.setdefault(same, {})
        parts[part.number] = part, record
        if len(parts) == self._tiles:
            del self._waiting[same]
            self._merge([parts[number][0] for number in range(self._tiles)])
        name = self.model.model
        metrics.DICTIONARY_ROWS.labels(name).set(self._columns.rows)
        metrics.DICTIONARY_SEEN.labels(name).set(self._columns.rows)
        metrics.DICTIONARY_PENDING.labels(name).set(sum(rows for _, rows in self._waiting))
        metrics.DICTIONARY_BYTES.labels(name).set(self.held_bytes)

    def _merge(self, parts: list[SumsPart]) -> None:
        head = parts[0].head
        assert head is not None  # decode_sums: tile 0 has one
        known = head.ids[self._seen.contains(head.ids)]
        if len(known):
            metrics.DUPLICATES.labels(self.model.model).inc(len(known))
            raise WireError(
                Reason.COUNTED_TWICE,
                f"expected sums over new samples, got {len(known)} known ones among {len(head.ids)}, {known[0]} for "
                "one; start the gram job from its savepoint, and spike-columns will have no sample twice for it",
            )
        with self._sums:
            self._columns.merge(len(head.ids), _sums(head, parts), [part.tile for part in parts])
            self._seen.add(head.ids)
            self._fresh += len(head.ids)
        metrics.ROWS.labels(self.model.model).inc(len(head.ids))

    def freeze(self) -> Arrays:
        records = [record for parts in self._waiting.values() for _, record in parts.values()]
        waiting = {f"{WAITING}{at}": np.frombuffer(record, np.uint8) for at, record in enumerate(records)}
        seen = np.array(self._seen.spans(), np.uint64).reshape(-1, 2)
        with self._sums:
            return {"seen": seen, **arrays_of(self._columns), **waiting}

    def _problem(self) -> Problem | None:
        columns = self._columns
        with self._sums:
            self._fresh = 0
            if not columns.rows:
                return None
            distinct, trained_on = len(columns.distinct), deepcopy(self._seen)
            return Problem(columns.moments(), columns.candidates, columns.rows, columns.rows, distinct, trained_on)


def _sums(head: SumsHead, parts: list[SumsPart]) -> Sums:
    """All of them but the inner products; the tiles of the diagonal have the counts on it."""
    return Sums(
        float(len(head.ids)),
        np.concatenate([part.tile.products.diagonal() for part in parts if part.cross is not None]).astype(np.float64),
        np.concatenate([part.cross for part in parts if part.cross is not None]),
        head.total,
        head.energy,
        np.concatenate([part.fingerprints for part in parts if part.fingerprints is not None]),
        head.everything,
    )

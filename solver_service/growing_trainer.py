"""Training while the dictionary grows by price (`growing`): the loop between the solver and the lanes of the roll-out.

    a readout over version v -> `candidates`: the next ids, and the residuals of all rows -> the lanes' sums on `prices`
    -> `candidates`: a shortlist -> its spikes on `prices` -> those that gain most -> `witnesses`: version v + 1, whose
    rows the lanes send next (`changing_trainer`) -> a readout over it -> again

A tenth of the samples is held out (`held_out`) and says when to stop: when no candidate that would enter is worth it on
these fresh rows. The model asks again when a window of new rows has come, as the stream may have changed.

What the loop knows between two versions is in their record: ids, how many have been tried, for how many rounds each had
no coefficient. A round under way is forgotten in a restart, and begins again with the next readout: requests are told
by their time, and answers to others are passed over.
"""

import logging
from functools import reduce
from typing import NamedTuple

import numpy as np

from snn.bits import BitMatrix
from snn.model import ModelSpec
from snn.readout import Rows
from snn.sums import Sums, add
from solver_service import held_out, metrics, pricing
from solver_service.changing_trainer import ChangingTrainer
from solver_service.dictionary import BUDGET
from solver_service.growing import Rules, gaining
from solver_service.losses import Array, loss_of
from solver_service.penalties import NORMS
from solver_service.pricing import Indices
from solver_service.snapshot import Arrays
from solver_service.trainer import Trainer
from wire import messages_pb2 as pb
from wire.codec import now_us
from wire.prices import (
    PART,
    Candidates,
    Chosen,
    Prices,
    decode_chosen,
    decode_prices,
    encode_candidates,
    encode_chosen,
    first_version,
    on_grid,
)

log = logging.getLogger(__name__)

WITNESSES, CANDIDATES = "witnesses", "candidates"
HALF = 2  # of the window has to be there: on fewer rows prices are chance
FORGET_US = 600 * 10**6  # a round that has no answer for so long is begun anew


class Round(NamedTuple):
    """What the lanes were asked, and what a choice needs of it. chosen: the version that it began with, `idle` up to
    date and `tried` as it will be. kept: which of its columns stay; rows: what the readout was trained on. parts: what
    came, by lane and first candidate. c [S, C], fresh [S]: correlations and fresh prices of a shortlist, once the
    request is for its spikes; fresh prices are NaN where there are too few fresh rows."""

    request: Candidates
    chosen: Chosen
    kept: Indices
    rows: Rows
    beta: float
    room: int
    lanes: tuple[int, ...]
    parts: dict[int, dict[int, Prices]]
    c: Array | None = None
    fresh: Array | None = None

    def take(self, prices: Prices) -> None:
        """A part; what the lane answered on other samples, before a restart, counts no more."""
        earlier = self.parts.get(prices.lane, {})
        alike = {first: part for first, part in earlier.items() if part.kept == prices.kept}
        self.parts[prices.lane] = {**alike, prices.first: prices}

    @property
    def answered(self) -> bool:
        """Whether every lane that has a sample has priced every candidate."""
        parts = -(-len(self.request.ids) // PART)
        return all(len(self.parts.get(lane, ())) == parts for lane in self.lanes)

    def in_order(self) -> list[list[Prices]]:
        """The parts, for each lane its own."""
        return [[part for _, part in sorted(self.parts[lane].items())] for lane in self.lanes]


class Stop(NamedTuple):
    """That version `version` was enough, when so many rows had come."""

    version: int
    seen: int
    best_price: float


class GrowingTrainer(ChangingTrainer):
    """`Training` of a model whose dictionary grows. `ingest_prices` is for the thread that reads the stream, `grow` for
    the one that solves, when `answered`; what is to be sent then is in `take_outgoing`."""

    def __init__(
        self, model: ModelSpec, arrays: Arrays | None = None, budget: int = BUDGET, device: str | None = None
    ) -> None:
        super().__init__(model, arrays, budget, device)
        assert model.growing is not None
        start, candidates = model.growing.start, model.growing.candidates
        self.rules = Rules(model.witnesses.count, start, candidates)
        self._round: Round | None = None
        self._stop: Stop | None = None
        self._news = False  # of a stop, which no readout has told
        self._published = 0
        self._outgoing: list[tuple[str, bytes]] = []

    @property
    def fresh(self) -> int:
        """Rows that no readout was trained on; at least 1 where the next readout has a stop to tell."""
        return max(super().fresh, int(self._news))

    @property
    def answered(self) -> bool:
        """Whether there is something to do for `grow`."""
        return self._round is not None and self._round.answered

    def take_outgoing(self) -> list[tuple[str, bytes]]:
        """Topics and records that are to be sent now."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def ingest_prices(self, record: bytes) -> None:
        """Take a record of `prices`. Raises WireError for one that cannot be used."""
        prices, asked = decode_prices(record, self.model), self._round
        if asked is not None and prices.round == asked.request.round:
            asked.take(prices)

    def grow(self) -> None:
        """Go on with a round that is answered: ask for the spikes of a shortlist, or choose from it."""
        asked = self._round
        assert asked is not None
        if asked.c is None:
            self._list(asked)
        else:
            self._choose(asked, asked.c)

    def _checked(self, record: bytes) -> int:
        return decode_chosen(record, self.model).version

    def _complete(self, readout: pb.Readout, trained: Trainer, record: bytes | None) -> None:
        chosen = first_version(self.model) if record is None else decode_chosen(record, self.model)
        if self._may_begin(readout, trained, chosen):
            self._begin(readout, trained, chosen)
        support = chosen.ids[list(readout.support)].tolist()
        del readout.support[:]
        readout.support.extend(support)
        stopped = self._stop is not None and self._stop.version == chosen.version
        readout.best_price = self._stop.best_price if stopped else chosen.best_price  # type: ignore[union-attr]
        readout.tried = chosen.tried
        self._news = False
        name = self.model.model
        metrics.BEST_PRICE.labels(name).set(readout.best_price)
        metrics.TRIED.labels(name).set(chosen.tried)
        metrics.GROWN.labels(name).set(len(chosen.ids))

    def _may_begin(self, readout: pb.Readout, trained: Trainer, chosen: Chosen) -> bool:
        window = self.model.readout.window
        assert window is not None  # as a growing model has to have
        newer = max(self._published, *self._records, 0) > chosen.version
        stop = self._stop
        stopped = stop is not None and stop.version == chosen.version and readout.seen < stop.seen + window
        if newer or stopped or HALF * trained.dictionary.rows < window:
            return False
        if self._round is None:
            return True
        forgotten = now_us() > self._round.request.round + FORGET_US
        if forgotten:
            log.warning("%s: lanes have not answered for long, asked again", self.model.model)
        return forgotten

    def _begin(self, readout: pb.Readout, trained: Trainer, chosen: Chosen) -> None:
        """Ask for the prices of the next candidates."""
        support = np.array(readout.support, np.intp)
        idle = np.where(np.isin(np.arange(len(chosen.ids)), support), 0, chosen.idle + 1)
        different = trained.candidates
        kept = different[idle[different] < self.rules.patience]
        room = self.rules.room(len(kept), chosen.tried)
        if room <= 0:
            return
        rows, fresh = trained.trained_and_fresh()
        both = [self._residuals(readout, support, part) for part in (rows, fresh)]
        samples, tried = np.concatenate([rows.ids, fresh.ids]), chosen.tried + self.rules.candidates * room
        order = np.argsort(samples)
        request = Candidates(
            now_us(),
            np.arange(chosen.tried, tried),
            samples[order],
            on_grid(np.concatenate(both))[order],
            (np.arange(len(samples)) >= len(rows.ids))[order],
        )
        began = chosen._replace(idle=idle, tried=tried)
        self._ask(Round(request, began, kept, rows, readout.beta, room, self._lanes(samples), {}))

    def _residuals(self, readout: pb.Readout, support: Indices, rows: Rows) -> Array:
        coefficients = np.frombuffer(readout.coefficients).reshape(len(support), readout.outputs)
        spikes = BitMatrix.from_rows(rows.bits).select(support)
        scores = spikes.times(coefficients) + np.frombuffer(readout.intercept)
        return pricing.residuals(loss_of(self.model.readout), scores, rows.targets)

    def _lanes(self, samples: np.ndarray) -> tuple[int, ...]:
        return tuple(np.unique(samples % np.uint64(self.model.lanes)).tolist())

    def _ask(self, asked: Round) -> None:
        self._outgoing.append((CANDIDATES, encode_candidates(self.model, asked.request)))
        self._round = asked

    def _list(self, asked: Round) -> None:
        """From prices to a shortlist."""
        lanes = asked.in_order()
        trained = _together([[part.trained for part in parts if part.trained] for parts in lanes])
        fresh = _together([[part.fresh for part in parts if part.fresh] for parts in lanes])
        listed = pricing.shortlist(trained, self.rules.listed * asked.room)
        if not len(listed):
            self._stopped(asked, np.zeros(0))
            return
        if fresh.weight < held_out.FEWEST:
            best = np.full(len(listed), np.nan)  # nothing says that they are not worth it
        else:
            best = pricing.prices(fresh, NORMS[self.model.readout.penalty])[listed]
        samples = np.sort(asked.rows.ids)
        request = Candidates(now_us(), asked.request.ids[listed], samples, None, np.zeros(len(samples), np.bool_))
        c = pricing.correlations(trained)[listed]
        self._ask(asked._replace(request=request, parts={}, lanes=self._lanes(samples), c=c, fresh=best))

    def _choose(self, asked: Round, c: Array) -> None:
        """From a shortlist's spikes to the next version, or to a stop."""
        lanes = asked.in_order()
        bits = [np.concatenate([part.bits for part in parts if part.bits is not None], axis=1) for parts in lanes]
        samples = np.concatenate([parts[0].samples for parts in lanes if parts[0].samples is not None])
        order = np.argsort(asked.rows.ids)
        rows = order[np.searchsorted(asked.rows.ids[order], samples)]
        kept = BitMatrix.from_rows(asked.rows.bits).select(asked.kept).take(rows)
        entering = gaining(kept, BitMatrix.from_rows(np.concatenate(bits), len(c)), c, asked.room)
        assert asked.fresh is not None  # as it has c
        worth = asked.fresh[entering]
        if pricing.enough(worth, asked.beta, self.rules.slack):
            self._stopped(asked, worth)
            return
        before, new = asked.chosen, asked.request.ids[entering]
        ids = np.concatenate([before.ids[asked.kept], new])
        idle = np.concatenate([before.idle[asked.kept], np.zeros(len(new), np.int64)])
        order = np.argsort(ids)
        chosen = Chosen(before.version + 1, ids[order], idle[order], before.tried, float(worth.max()))
        self._outgoing.append((WITNESSES, encode_chosen(self.model, chosen)))
        self._published, self._round = chosen.version, None
        log.info("%s: %d witnesses of %d enter", self.model.model, len(new), len(asked.request.ids))

    def _stopped(self, asked: Round, worth: Array) -> None:
        best = float(worth.max(initial=0.0))
        self._stop, self._round = Stop(asked.chosen.version, self.current.dictionary.seen, best), None
        self._news = True
        log.info("%s: no candidate is worth it: %.2e of beta %.2e", self.model.model, best, asked.beta)


def _together(lanes: list[list[Sums]]) -> Sums:
    """The sums over all lanes and candidates, of lanes and in them parts."""
    parts = [reduce(add, same) for same in zip(*lanes, strict=True)]
    return parts[0]._replace(
        counts=np.concatenate([part.counts for part in parts]),
        cross=np.concatenate([part.cross for part in parts]),
        fingerprints=np.concatenate([part.fingerprints for part in parts]),
    )

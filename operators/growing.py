"""The roll-out of a dictionary that grows. Its versions come as those of witnesses that change (operators/changing.py);
beside them come requests of the solver, and every lane prices candidates on the sequences it keeps.

Requests are broadcast; the newest counts. A lane takes up those of the requested samples that it has and steps PART
candidates through them at a time, by timer, so that sequences are never kept waiting for long. What leaves for a part
are sums of residuals over its samples, or their spikes. Nothing of that is state: after a restart a lane answers the
newest request anew, from the first part on, over what it keeps then. The solver tells by `kept` which parts belong
together.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pyflink.datastream import KeyedBroadcastProcessFunction, RuntimeContext

from operators import worker
from operators.changing import NEWEST, ChangingRollOutOperator
from operators.intake import refuse
from operators.roll_out import BATCH_BYTES
from operators.tags import PRICES
from snn.model import ModelSpec
from snn.network import Network
from snn.sums import Sums, of_rows
from wire.codec import Codes, pack
from wire.idset import Ids
from wire.prices import (
    PART,
    Candidates,
    Prices,
    decode_candidates,
    decode_chosen,
    encode_prices,
    first_version,
    is_request,
    mark_of,
)
from wire.reasons import WireError
from wire.targets import Targets

PART_MS = 100  # how soon a lane goes on with the next part
NETWORKS = 8  # of parts: lanes of a task are about equally far

Spikes = npt.NDArray[np.bool_]


class Asked(NamedTuple):
    """Where a lane is in a request. codes: whole sequences of equally many timesteps, [B, k, m] each, whose samples in
    this order are rows [N] of the request's."""

    round: int
    codes: list[Codes]
    rows: npt.NDArray[np.intp]
    next: int = 0  # place of the first candidate that has not been answered


class GrowingRollOutOperator(ChangingRollOutOperator):
    def open(self, runtime_context: RuntimeContext) -> None:
        super().open(runtime_context)
        self._matrix = worker.load("snn.bits").BitMatrix
        self._request: Candidates | None = None
        self._heard = False  # of the newest request, since the last one was broadcast
        self._asked: dict[int, Asked] = {}
        self._candidates = lru_cache(NETWORKS)(self._prepared)

    def process_broadcast_element(self, record: bytes, ctx: KeyedBroadcastProcessFunction.Context) -> Iterator:
        try:
            asks = is_request(record)
            if asks and decode_candidates(record, self._model) is not None:
                ctx.get_broadcast_state(NEWEST).put(_requests(self._model), record)
                self._heard = False
        except WireError as error:
            yield from refuse("roll_out", "candidates", error, record, self._metrics)
            return
        if not asks:
            yield from super().process_broadcast_element(record, ctx)

    def _check(self, record: bytes) -> None:
        decode_chosen(record, self._model)  # the witnesses themselves are made when they are needed

    def on_timer(self, timestamp: int, ctx: KeyedBroadcastProcessFunction.OnTimerContext) -> Iterator:
        yield from super().on_timer(timestamp, ctx)
        yield from self._answer(ctx)

    def _answer(self, ctx: KeyedBroadcastProcessFunction.OnTimerContext) -> Iterator:
        """The next part of the newest request, if this lane has not answered it."""
        if not self._heard:
            record = ctx.get_broadcast_state(NEWEST).get(_requests(self._model))
            self._request, self._heard = decode_candidates(record, self._model) if record else None, True
        if self._request is None:
            return
        key, request = ctx.get_current_key(), self._request
        asked = self._asked.get(key)
        if asked is None or asked.round != request.round:
            asked = self._take_up(key, request)
        if asked.next < len(request.ids):
            yield PRICES, encode_prices(self._model, self._part(self._place[key][0], request, asked))
            asked = asked._replace(next=asked.next + PART)
            self._metrics.count("priced", len(request.part(asked.next - PART)))
            self._timers.wake(ctx.timer_service(), key, PART_MS)
        if asked.next >= len(request.ids):
            asked = asked._replace(codes=[])  # memory
        self._asked[key] = asked

    def _take_up(self, key: int, request: Candidates) -> Asked:
        """The requested samples that the lane keeps."""
        codes: dict[int, list[Codes]] = {}
        rows: dict[int, list[npt.NDArray[np.intp]]] = {}
        for piece in self._kept_of(key).slices():
            at = np.searchsorted(request.samples, piece.ids)
            there = request.samples[np.minimum(at, len(request.samples) - 1)] == piece.ids
            if there.any():
                codes.setdefault(piece.codes.shape[1], []).append(piece.codes[there])
                rows.setdefault(piece.codes.shape[1], []).append(at[there])
        every = [row for alike in rows.values() for row in alike]
        together = np.concatenate(every) if every else np.zeros(0, np.intp)
        return Asked(request.round, [np.concatenate(alike) for alike in codes.values()], together)

    def _part(self, lane: int, request: Candidates, asked: Asked) -> Prices:
        ids = request.part(asked.next)
        samples = request.samples[asked.rows]
        spikes = self._stepped(asked.codes, self._candidates(tuple(ids.tolist())), len(ids))
        prices = Prices(request.round, lane, asked.next, len(ids), mark_of(samples))
        if request.residuals is None:
            return prices._replace(samples=samples, bits=pack(spikes))
        residuals, fresh = request.residuals[asked.rows].astype(np.float64), request.fresh[asked.rows]
        trained, beside = (self._sums(spikes[rows], samples[rows], residuals[rows]) for rows in (~fresh, fresh))
        return prices._replace(trained=trained, fresh=beside)

    def _stepped(self, every: list[Codes], network: Network, width: int) -> Spikes:
        """[N, width] final spikes of whole sequences."""
        most = max(1, BATCH_BYTES // (4 * len(self._engine.resting(network)) + width))
        batches = [codes[top : top + most] for codes in every for top in range(0, len(codes), most)]
        spikes = [self._engine.final_spikes(codes, self._model.input, network) for codes in batches]
        return np.concatenate(spikes) if spikes else np.zeros((0, width), np.bool_)

    def _sums(self, spikes: Spikes, samples: Ids, residuals: npt.NDArray[np.float64]) -> Sums:
        return of_rows(self._matrix.from_rows(pack(spikes), spikes.shape[1]), samples, residuals)

    def _prepared(self, ids: tuple[int, ...]) -> Network:
        return self._engine.on_device(self._model, ids)

    def _network(self, shard: int) -> Network:
        if shard not in self._networks:
            self._networks[shard] = self._engine.on_device(self._model, first_version(self._model).ids.tolist())
            self._resting[shard] = self._engine.resting(self._networks[shard])
        return self._networks[shard]

    def _columns(self, shard: int, ids: Ids, targets: Targets, spikes: Spikes, witnesses: int = 0) -> Iterator[bytes]:
        silent = self._model.witnesses.count - spikes.shape[2]
        return super()._columns(shard, ids, targets, np.pad(spikes, ((0, 0), (0, 0), (0, silent))))


def _requests(model: ModelSpec) -> str:
    """The key of requests in the broadcast state, which no model's name can be."""
    return f"{model.model}/candidates"

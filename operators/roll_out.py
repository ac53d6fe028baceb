"""Steps LIF neurons through each sequence's timesteps and emits their final spikes as spike columns.

Keyed by (lane, shard). However a sequence was cut, its spikes are those of one undivided roll-out. Complete sequences
are stepped as soon as there are enough to be worth it, the others when they have waited for LINGER_MS: so a stream of
single timesteps is stepped in batches, over sequences and over time. Of a model that learns at every step, complete
sequences alone are stepped: their spikes leave together, and need not be kept meanwhile.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from pyflink.common import Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

from operators import worker
from operators.expiry import expire
from operators.intake import read, refuse
from operators.keys import flink_keys
from operators.lane import Cohort, Lane
from operators.metrics import OperatorMetrics
from operators.tags import BRAIN_WAVES
from operators.timers import Timers
from snn.model import parse_model
from snn.network import Network
from wire import messages_pb2 as pb
from wire.codec import SCHEMA, Columns, encode_columns, now_us, pack
from wire.reasons import WireError

LINGER_MS = 200  # columns wait for a checkpoint of seconds anyway, and a brain wave is looked at once a second
ENOUGH = 2**21  # neuron-steps: more than a millisecond of one core, against some 100 us to call it and emit its output
BATCH_BYTES = 64 * 2**20  # of membranes and spikes; more sequences are stepped in several batches
RECORD_BYTES = 2**21  # of spike columns in a record; more sequences go into several


class RollOutOperator(KeyedProcessFunction):
    def __init__(self, spec_json: str, expire_after_s: float) -> None:
        self._spec_json = spec_json
        self._expire_ms = int(expire_after_s * 1000)

    def open(self, runtime_context: RuntimeContext) -> None:
        self._engine = worker.load("snn.engine")
        self._model = parse_model(json.loads(self._spec_json))
        shards = self._model.witnesses.shards
        keys = flink_keys(self._model.lanes * shards)
        self._place = {key: divmod(slot, shards) for slot, key in enumerate(keys)}
        self._metrics = OperatorMetrics(runtime_context, self._model.model)
        self._metrics.gauge_live_sequences()
        self._state = runtime_context.get_map_state(
            MapStateDescriptor("lane", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        )
        self._lanes: dict[int, Lane] = {}
        self._networks: dict[int, Network] = {}
        self._resting: dict[int, npt.NDArray[np.float32]] = {}
        self._timesteps = self._model.input.timesteps
        self._timers = Timers()

    def process_element(self, record: bytes, ctx: KeyedProcessFunction.Context) -> Iterator:
        self._metrics.resume()
        key = ctx.get_current_key()
        lane_number, shard = self._place[key]
        try:
            piece = read(record, self._model, lane_number)
        except WireError as error:
            if shard == 0:  # the shards see the same records: one speaks for all
                yield from refuse("roll_out", "sequences", error, record, self._metrics)
            return
        if piece is None:
            return
        now_ms = ctx.timer_service().current_processing_time()
        lane = self._lane(key, now_ms)
        duplicates = lane.offer(piece, record, now_ms)
        if lane.ready_steps * self._neurons(shard) >= ENOUGH:
            yield from self._step(lane, key, lane.complete(), now_ms)
        if shard == 0:  # the shards see the same sequences: each is counted once
            self._metrics.count("duplicates", duplicates)
        self._settle(lane, key, now_ms, ctx)

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator:
        self._metrics.defer()
        key = ctx.get_current_key()
        lane = self._lane(key, timestamp)
        yield from self._step(lane, key, self._ready(lane), timestamp)
        if timestamp % self._expire_ms == 0:
            yield from self._expire(lane, key, timestamp)
        self._settle(lane, key, timestamp, ctx)

    def _expire(self, lane: Lane, key: int, now_ms: int) -> Iterator:
        if self._place[key][1] == 0:  # one shard speaks for all
            yield from expire(lane, "roll_out", self._timesteps, self._expire_ms, now_ms, self._metrics)
        else:
            lane.expire(now_ms - self._expire_ms)

    def _settle(self, lane: Lane, key: int, now_ms: int, ctx: KeyedProcessFunction.Context) -> None:
        """Bring Flink state up to date, and see that someone comes back for what is left."""
        lane.save(now_ms)
        lane_number, shard = self._place[key]
        if shard == 0:
            self._metrics.live(lane_number, lane.live)
        if self._ready(lane):
            self._timers.wake(ctx.timer_service(), key, LINGER_MS)
        if lane.live:
            self._timers.wake(ctx.timer_service(), key, self._expire_ms)

    def _ready(self, lane: Lane) -> list[Cohort]:
        """What may be stepped."""
        return lane.complete() if self._model.readout.every_step else lane.pending()

    def _step(self, lane: Lane, key: int, cohorts: list[Cohort], now_ms: int) -> Iterator:
        """Step all that waits in `cohorts`, those with equally many timesteps together."""
        alike: dict[int, list[Cohort]] = {}
        for cohort in cohorts:
            alike.setdefault(cohort.next - cohort.stepped, []).append(cohort)
        most = max(1, BATCH_BYTES // self._sequence_bytes(self._place[key][1]))
        for group in alike.values():
            batch, rows = [group[0]], len(group[0])
            for cohort in group[1:]:
                if rows + len(cohort) > most:
                    yield from self._step_batch(lane, key, batch, now_ms)
                    batch, rows = [], 0
                batch.append(cohort)
                rows += len(cohort)
            yield from self._step_batch(lane, key, batch, now_ms)

    def _step_batch(self, lane: Lane, key: int, cohorts: list[Cohort], now_ms: int) -> Iterator:
        model, (lane_number, shard) = self._model, self._place[key]
        network, sizes = self._network(shard), [len(cohort) for cohort in cohorts]
        codes = np.concatenate([cohort.codes for cohort in cohorts])
        starts = np.repeat([cohort.stepped for cohort in cohorts], sizes)
        membranes = np.empty((len(codes), self._neurons(shard)), np.float32)
        ends = np.cumsum(sizes).tolist()
        parts = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        for cohort, rows in zip(cohorts, parts, strict=True):
            membranes[rows] = self._resting[shard] if cohort.membranes is None else cohort.membranes
        every_step, ends = model.readout.every_step, np.repeat([cohort.complete for cohort in cohorts], sizes)
        result = self._engine.advance(codes, starts, membranes, network, model.input, every_step, ends)
        spikes = result.spikes if every_step else result.spikes[:, None]
        yield BRAIN_WAVES, self._wave(lane_number, shard, starts, codes.shape[1], network, result)

        done = [(cohort, rows) for cohort, rows in zip(cohorts, parts, strict=True) if cohort.complete]
        for cohort, rows in zip(cohorts, parts, strict=True):
            if not cohort.complete:
                lane.stepped(cohort, membranes[rows] if len(cohorts) == 1 else membranes[rows].copy())
        for cohort, rows in done:
            yield from self._columns(shard, cohort, spikes[rows])
        lane.finish([cohort for cohort, _ in done], now_ms)
        if shard == 0:
            self._metrics.count("steps", codes.shape[0] * codes.shape[1])
            self._metrics.count("sequences", sum(len(cohort) for cohort, _ in done))

    def _columns(self, shard: int, cohort: Cohort, spikes: npt.NDArray[np.bool_]) -> Iterator[bytes]:
        """Records of the sequences of a cohort that have a target, of whose spikes [B, S, P]; of shorter sequences
        what is missing of S is silent."""
        spikes = np.pad(spikes, ((0, 0), (0, self._model.target_steps - spikes.shape[1]), (0, 0)))
        known = np.flatnonzero(cohort.targets.known(len(cohort)))
        first, most = self._model.witnesses.shard(shard).start, max(1, 8 * RECORD_BYTES // spikes[0].size)
        for rows in (known[begin : begin + most] for begin in range(0, len(known), most)):
            columns = Columns(shard, first, cohort.ids[rows], pack(spikes[rows]), cohort.targets.take(rows))
            yield encode_columns(self._model, columns)

    def _wave(
        self, lane: int, shard: int, starts: npt.NDArray[np.int64], steps: int, network: Network, result: Any
    ) -> bytes:
        span = result.active.shape[1]
        begun = np.bincount(starts - result.first, minlength=span)
        ended = np.bincount(starts - result.first + steps, minlength=span + 1)[:span]
        sequences = np.cumsum(begun - ended).tolist()
        wave = pb.BrainWave(
            schema=SCHEMA, model=self._model.model, shard=shard, lane=lane, start=result.first, observed_us=now_us()
        )
        for number, (layer, counts) in enumerate(zip(network, result.active.tolist(), strict=True), start=1):
            wave.layers.add(neurons=len(layer.bias), active=counts, sequences=sequences)
            seen = [0] * span if shard else sequences  # the shards see the same sequences: each is counted once
            self._metrics.wave(self._timesteps, result.first, number, counts, seen)
        return wave.SerializeToString()

    def _lane(self, key: int, now_ms: int) -> Lane:
        if key not in self._lanes:
            self._lanes[key] = Lane(self._model, self._state, now_ms)
        return self._lanes[key]

    def _network(self, shard: int) -> Network:
        if shard not in self._networks:
            self._networks[shard] = self._engine.on_device(self._model, self._model.witnesses.shard(shard))
            self._resting[shard] = self._engine.resting(self._networks[shard])
        return self._networks[shard]

    def _sequence_bytes(self, shard: int) -> int:
        """Of membranes, and of spikes in a byte each."""
        return 4 * self._neurons(shard) + self._model.target_steps * len(self._model.witnesses.shard(shard))

    def _neurons(self, shard: int) -> int:
        self._network(shard)
        return len(self._resting[shard])

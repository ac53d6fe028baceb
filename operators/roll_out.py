"""Steps LIF neurons through each sequence's timesteps and emits their final spikes as spike columns.

Keyed by (lane, shard). Membranes wait in Flink state between the slices of a sequence, so the spikes are those of one
undivided roll-out however a sequence was cut, and a restart continues from the last checkpoint.
"""

import json
from collections.abc import Iterator

import numpy as np
from pyflink.common import Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import ValueStateDescriptor

from operators import worker
from operators.expiry import expire
from operators.lane import Lane, Ready
from operators.metrics import OperatorMetrics
from operators.tags import BRAIN_WAVES
from snn.model import parse_model
from snn.network import Network
from wire import messages_pb2 as pb
from wire.codec import SCHEMA, Columns, decode_slice, encode_columns, now_us, pack

Key = tuple[int, int]


class RollOutOperator(KeyedProcessFunction):
    def __init__(self, spec_json: str, expire_after_s: float) -> None:
        self._spec_json = spec_json
        self._expire_ms = int(expire_after_s * 1000)

    def open(self, runtime_context: RuntimeContext) -> None:
        self._engine = worker.load_engine()
        self._model = parse_model(json.loads(self._spec_json))
        self._metrics = OperatorMetrics(runtime_context, self._model.model)
        self._metrics.gauge_live_sequences()
        self._lane = runtime_context.get_state(ValueStateDescriptor("lane", Types.PICKLED_BYTE_ARRAY()))
        self._networks: dict[int, Network] = {}
        self._timers: dict[Key, int] = {}

    def process_element(self, value: tuple[int, int, bytes], ctx: KeyedProcessFunction.Context) -> Iterator:
        self._metrics.resume()
        lane_number, shard, record = value
        now_ms = ctx.timer_service().current_processing_time()
        piece = decode_slice(record, self._model)
        assert piece is not None  # Decode lets only this model's slices through
        lane = Lane(self._lane.value(), self._model.lanes, now_ms)
        ready, duplicates = lane.accept(piece, now_ms)
        for group in ready:
            yield from self._step(lane, lane_number, shard, group)
        self._lane.update(lane.to_bytes())
        if shard == 0:  # the shards see the same sequences: each is counted once
            self._metrics.live(lane_number, lane.live)
            self._metrics.count("duplicates", duplicates)
        self._watch_expiry((lane_number, shard), now_ms, ctx)

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator:
        self._metrics.defer()
        lane = Lane(self._lane.value(), self._model.lanes, timestamp)
        key = ctx.get_current_key()
        if key[1] == 0:  # one shard speaks for all
            timesteps = self._model.input.timesteps
            yield from expire(lane, "roll_out", timesteps, self._expire_ms, timestamp, self._metrics)
            self._metrics.live(key[0], lane.live)
        else:
            lane.expire(timestamp - self._expire_ms, timestamp)
        self._lane.update(lane.to_bytes())
        if lane.live:
            self._watch_expiry(key, timestamp, ctx)

    def _step(self, lane: Lane, lane_number: int, shard: int, ready: Ready) -> Iterator:
        model, ids = self._model, ready.ids
        network = self._network(shard)
        resting = self._engine.resting(network)
        membranes = lane.carry(ids, np.float32, lambda: resting)
        result = self._engine.advance(ready.codes, ready.start, membranes, network, model.input)
        yield BRAIN_WAVES, self._wave(lane_number, shard, ready, network, result.active)

        steps = ready.codes.shape[1]
        if shard == 0:
            self._metrics.count("steps", steps * len(ids))
        if ready.start + steps < model.input.timesteps:
            lane.keep(ids, result.membranes)
            return
        if shard == 0:
            self._metrics.count("sequences", len(ids))
        targets = lane.targets(ids, model.readout.outputs)
        known = targets.known(len(ids))
        if known.any():
            first = model.witnesses.shard(shard).start
            kept = [sequence_id for sequence_id, keep in zip(ids, known, strict=True) if keep]
            yield encode_columns(model, Columns.of(shard, first, kept, pack(result.spikes[known]), targets.take(known)))
        lane.finish(ids)

    def _wave(self, lane: int, shard: int, ready: Ready, network: Network, active: list[list[int]]) -> bytes:
        batch, steps, _ = ready.codes.shape
        wave = pb.BrainWave(
            schema=SCHEMA,
            model=self._model.model,
            shard=shard,
            lane=lane,
            start=ready.start,
            observed_us=now_us(),
        )
        for number, (layer, counts) in enumerate(zip(network, active, strict=True), start=1):
            wave.layers.add(neurons=len(layer.bias), active=counts, sequences=[batch] * steps)
            self._metrics.wave(self._model.input.timesteps, ready.start, number, counts, 0 if shard else batch)
        return wave.SerializeToString()

    def _network(self, shard: int) -> Network:
        if shard not in self._networks:
            self._networks[shard] = self._engine.on_device(self._model, self._model.witnesses.shard(shard))
        return self._networks[shard]

    def _watch_expiry(self, key: Key, now_ms: int, ctx: KeyedProcessFunction.Context) -> None:
        """One timer a lane and period; Flink keeps it across restarts."""
        due = (now_ms // self._expire_ms + 1) * self._expire_ms
        if self._timers.get(key) != due:
            ctx.timer_service().register_processing_time_timer(due)
            self._timers[key] = due

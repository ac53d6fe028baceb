"""A worker of the surrogate-gradient training: takes local steps on the sequences of its lanes, round after round.

Keyed by worker; reads sequences, and the weights that each round starts from. `operators.rounds` has the rules. What it
emits goes to the average, under its key.
"""

import json
from collections.abc import Iterator

from pyflink.common import Row, Types
from pyflink.datastream import FlatMapFunction, KeyedCoProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

from operators import worker
from operators.expiry import expire
from operators.intake import refuse
from operators.keys import flink_keys
from operators.metrics import OperatorMetrics
from operators.rounds import Plan, Worker
from operators.timers import Timers
from snn.model import ModelSpec, parse_model
from wire.codec import decode_slice
from wire.reasons import Reason, WireError
from wire.weights import weights_of

JOB = "train_surrogate"


def keys_of_lanes(model: ModelSpec) -> list[int]:
    """For each lane the Flink key of the worker that trains on it."""
    assert model.training is not None
    keys = flink_keys(model.training.workers)
    return [keys[lane % model.training.workers] for lane in range(model.lanes)]


class ToWorkers(FlatMapFunction):
    """Weights of the model, once for each of `workers` keys. Records that cannot be read go on too: the average, which
    is one alone, refuses them."""

    def __init__(self, spec_json: str, workers: int) -> None:
        self._spec_json, self._workers = spec_json, workers

    def open(self, runtime_context: RuntimeContext) -> None:
        self._model = parse_model(json.loads(self._spec_json))
        self._keys = flink_keys(self._workers)

    def flat_map(self, record: bytes) -> Iterator[Row]:
        try:
            if weights_of(record, self._model) is None:
                return
        except WireError:
            pass
        for key in self._keys:
            yield Row(key, record)


class SurrogateWorker(KeyedCoProcessFunction):
    def __init__(self, spec_json: str, expire_after_s: float, history: int) -> None:
        """history: the newest version of the weights when the job was submitted, 0 for none."""
        self._spec_json, self._history = spec_json, history
        self._expire_ms = int(expire_after_s * 1000)

    def open(self, runtime_context: RuntimeContext) -> None:
        worker.load("torch").set_num_threads(1)  # a task has a core; and sums are in one order
        self._model = parse_model(json.loads(self._spec_json))
        assert self._model.training is not None
        self._patience_ms = int(self._model.training.round_timeout_s * 1000)
        self._number = {key: number for number, key in enumerate(flink_keys(self._model.training.workers))}
        (self._average,) = flink_keys(1)
        self._metrics = OperatorMetrics(runtime_context, self._model.model)
        self._metrics.gauge_live_sequences()
        self._state = runtime_context.get_map_state(
            MapStateDescriptor("worker", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        )
        self._plan: Plan | None = None
        self._workers: dict[int, Worker] = {}
        self._short_since: dict[int, int] = {}  # of workers that wait for a lane
        self._timers = Timers()

    def process_element1(self, record: bytes, ctx: KeyedCoProcessFunction.Context) -> Iterator:
        """A record of `sequences`."""
        self._metrics.resume()
        key, now_ms = ctx.get_current_key(), ctx.timer_service().current_processing_time()
        held = self._worker(key, now_ms)
        try:
            piece = decode_slice(record, self._model)
            if piece is not None and piece.lane not in held.lanes:
                raise WireError(
                    Reason.WRONG_LANE,
                    f"expected Kafka's key to be the record's lane in decimal, {piece.lane}, got none or another's",
                )
        except WireError as error:
            yield from refuse(JOB, "sequences", error, record, self._metrics)
            return
        if piece is None:
            return
        duplicates, left_out = held.offer(piece, record, now_ms)
        self._metrics.count("duplicates", duplicates)
        self._metrics.count("left_out_sequences", left_out)
        yield from self._train(key, held, now_ms, ctx)

    def process_element2(self, record: bytes, ctx: KeyedCoProcessFunction.Context) -> Iterator:
        """A record of `weights`."""
        self._metrics.resume()
        key, now_ms = ctx.get_current_key(), ctx.timer_service().current_processing_time()
        held = self._worker(key, now_ms)
        try:
            held.hear(record)
        except WireError:
            return  # the average refuses it for all
        yield from self._train(key, held, now_ms, ctx)

    def on_timer(self, timestamp: int, ctx: KeyedCoProcessFunction.OnTimerContext) -> Iterator:
        self._metrics.defer()
        key = ctx.get_current_key()
        held = self._worker(key, timestamp)
        held.touch(timestamp)
        for lane in held.lanes.values():
            timesteps = self._model.input.timesteps
            yield from expire(lane, JOB, timesteps, self._expire_ms, timestamp, self._metrics)
            lane.save(timestamp)
        since = self._short_since.get(key)
        impatient = since is not None and timestamp - since >= self._patience_ms
        yield from self._train(key, held, timestamp, ctx, impatient)

    def _train(
        self,
        key: int,
        held: Worker,
        now_ms: int,
        ctx: KeyedCoProcessFunction.Context,
        impatient: bool = False,
    ) -> Iterator[Row]:
        for done in held.train(now_ms, impatient):
            self._short_since.pop(key, None)
            self._metrics.count("trained_rounds")
            yield Row(self._average, done)
        live = sum(lane.live for lane in held.lanes.values())
        self._metrics.live(held, live)
        if held.waits_for_a_lane:
            self._short_since.setdefault(key, now_ms)
            self._timers.wake(ctx.timer_service(), key, self._patience_ms)
        else:
            self._short_since.pop(key, None)
        if live:
            self._timers.wake(ctx.timer_service(), key, self._expire_ms)

    def _worker(self, key: int, now_ms: int) -> Worker:
        if key not in self._workers:
            self._plan = self._plan or Plan(self._model)
            self._workers[key] = Worker(self._plan, self._number[key], self._state, now_ms, self._history)
        return self._workers[key]

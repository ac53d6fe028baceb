"""Learns a network by emotion-driven Hebbian learning, one labelled sequence after another, and answers each before
it learns from it.

The rule is sequential: what a sequence changes depends on all before it. So there is one key, that of the model's only
lane, and one task does the work whatever the parallelism. A sequence is taken when its last timestep has come; those
that become complete with the same record are taken in their order in it. So the weights are a function of the
specification and of the records in Kafka's order. Weights and the number of forward passes, by which perturbations
are drawn, are Flink state beside the lane's: a job that is restarted goes on with the same bits, and learns from no
sequence twice. The clock decides one thing alone, when an abandoned sequence is given up.
"""

import json
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pyflink.common import Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor
from safetensors import numpy as safetensors

from operators.expiry import expire
from operators.intake import read, refuse
from operators.lane import Cohort, Lane
from operators.metrics import OperatorMetrics
from operators.tags import BRAIN_WAVES, WITNESSES
from operators.timers import Timers
from snn.model import parse_model
from snn.training.hebbian import Answers, State, answers, initial_state, learn
from wire import messages_pb2 as pb
from wire.codec import SCHEMA, Codes, now_us
from wire.reasons import WireError

ONLY_LANE = 0


def to_bytes(state: State) -> bytes:
    """As a file of safetensors: `weights` [m, m] float64 and `passes` [1] int64."""
    return safetensors.save({"weights": state.weights, "passes": np.array([state.passes])})


def of_bytes(data: bytes) -> State:
    """What `to_bytes` gave."""
    tensors = safetensors.load(data)
    return State(tensors["weights"], int(tensors["passes"][0]))


class HebbianOperator(KeyedProcessFunction):
    def __init__(self, spec_json: str, expire_after_s: float) -> None:
        self._spec_json = spec_json
        self._expire_ms = int(expire_after_s * 1000)

    def open(self, runtime_context: RuntimeContext) -> None:
        self._model = parse_model(json.loads(self._spec_json))
        assert self._model.hebbian is not None  # the job has checked it
        self._spec, self._classes = self._model.hebbian, self._model.readout.all_heads[0].classes
        self._metrics = OperatorMetrics(runtime_context, self._model.model)
        self._metrics.gauge_live_sequences()
        self._metrics.gauge("forward_passes", lambda: 0 if self._learned is None else self._learned.passes)
        self._state = runtime_context.get_map_state(
            MapStateDescriptor("lane", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        )
        self._weights = runtime_context.get_state(ValueStateDescriptor("weights", Types.PICKLED_BYTE_ARRAY()))
        self._lane: Lane | None = None
        self._learned: State | None = None
        self._timers = Timers()

    def process_element(self, record: bytes, ctx: KeyedProcessFunction.Context) -> Iterator:
        self._metrics.resume()
        try:
            piece = read(record, self._model, ONLY_LANE)
        except WireError as error:
            yield from refuse("train_hebbian", "sequences", error, record, self._metrics)
            return
        if piece is None:
            return
        now_ms = ctx.timer_service().current_processing_time()
        lane = self._current_lane(now_ms)
        self._metrics.count("duplicates", lane.offer(piece, record, now_ms))
        complete = lane.complete()
        yield from self._take(complete, piece.ids.tolist())
        lane.finish(complete, now_ms)
        self._settle(lane, now_ms, ctx)

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator:
        self._metrics.defer()
        lane, timesteps = self._current_lane(timestamp), self._model.input.timesteps
        yield from expire(lane, "train_hebbian", timesteps, self._expire_ms, timestamp, self._metrics)
        self._settle(lane, timestamp, ctx)

    def _settle(self, lane: Lane, now_ms: int, ctx: KeyedProcessFunction.Context) -> None:
        """Bring Flink state up to date, and come back for what may be abandoned."""
        lane.save(now_ms)
        self._metrics.live(ONLY_LANE, lane.live)
        if lane.live:
            self._timers.wake(ctx.timer_service(), ctx.get_current_key(), self._expire_ms)

    def _take(self, cohorts: list[Cohort], order: list[int]) -> Iterator:
        """Answer each sequence, then learn from it, in the order in which the record that completed them names them."""
        whole = {sequence: entry for cohort in cohorts for sequence, entry in self._sequences(cohort)}
        state = before = self._current_state()
        active = np.zeros((self._model.input.timesteps, len(state.weights)), np.int64)
        for sequence in order:
            if sequence not in whole:
                continue
            codes, target, sent_us = whole[sequence]
            answer = answers(codes[None], state.weights, self._spec, self._classes)
            active += answer.active
            yield self._prediction(sequence, answer, target, state.passes, sent_us)
            if target >= 0:
                learned = learn(state, codes, target, self._spec, self._classes, int(answer.classes[0]))
                self._metrics.count("hebbian_updates", int(not np.array_equal(learned.weights, state.weights)))
                state = learned
                if state.passes % self._spec.publish_every == 0:
                    yield WITNESSES, self._witnesses(state)
        if whole:
            yield BRAIN_WAVES, self._wave(active, len(whole))
        if state.passes > before.passes:
            self._weights.update(to_bytes(state))
            self._learned = state

    def _sequences(self, cohort: Cohort) -> Iterator[tuple[int, tuple[Codes, int, int]]]:
        """(id, (codes [T, m], target or -1, when it was sent)) of each."""
        numbers, codes = cohort.targets.numbers, cohort.codes
        targets = np.full(len(cohort), -1) if numbers is None else numbers[:, 0, 0]
        for row, (sequence, target) in enumerate(zip(cohort.ids.tolist(), targets.tolist(), strict=True)):
            yield sequence, (codes[row], target, cohort.sent_us)

    def _prediction(self, sequence: int, answer: Answers, target: int, passes: int, sent_us: int) -> bytes:
        predicted, answered = int(answer.classes[0]), now_us()
        self._metrics.count("predictions")
        self._metrics.latency((answered - sent_us) / 1000, 1)
        if target >= 0:
            self._metrics.count("test_then_train_sequences")
            self._metrics.count("test_then_train_correct", int(predicted == target))
        return pb.Prediction(
            schema=SCHEMA,
            model=self._model.model,
            id=sequence,
            readout_version=passes,
            start=self._model.input.timesteps - 1,
            scores=answer.outputs[0].astype("<f8").tobytes(),
            predicted_classes=[predicted],
            target_classes=[target],
            sent_us=sent_us,
            answered_us=answered,
        ).SerializeToString()

    def _witnesses(self, state: State) -> bytes:
        return pb.Witnesses(
            schema=SCHEMA,
            model=self._model.model,
            digest=self._model.digest,
            version=state.passes,
            safetensors=to_bytes(state),
        ).SerializeToString()

    def _wave(self, active: npt.NDArray[np.int64], sequences: int) -> bytes:
        wave = pb.BrainWave(schema=SCHEMA, model=self._model.model, observed_us=now_us())
        above, seen = active[:, self._model.input.features :], [sequences] * len(active)
        widths = (*self._spec.hidden, self._classes)
        for number, layer in enumerate(np.split(above, np.cumsum(widths)[:-1], axis=1), start=1):
            counts = layer.sum(axis=1).tolist()
            wave.layers.add(neurons=layer.shape[1], active=counts, sequences=seen)
            self._metrics.wave(len(active), 0, number, counts, seen)
        return wave.SerializeToString()

    def _current_lane(self, now_ms: int) -> Lane:
        if self._lane is None:
            self._lane = Lane(self._model, self._state, now_ms)
        return self._lane

    def _current_state(self) -> State:
        if self._learned is None:
            stored = self._weights.value()
            fresh = initial_state(self._spec, self._model.input.features, self._classes)
            self._learned = fresh if stored is None else of_bytes(stored)
        return self._learned

"""Answers sequences with the newest readout, stepping only the witnesses of its support.

Keyed by lane; readouts are broadcast. A sequence's records wait in Flink state until its last timestep is there and
are then rolled out at once with the readout of that moment: a new readout takes over between two answers, whatever
sequences are under way. Sequences that are complete before the first readout wait for it.

Where the model answers at every step, a timestep is answered as soon as it has come, by membranes that are kept in
memory as long as the readout stays. When another takes over, or after a restart, they are made again from the records,
which wait in state all the same; a restart then answers the timesteps of unfinished sequences once more.
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pyflink.common import Types
from pyflink.datastream import KeyedBroadcastProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

from operators import worker
from operators.expiry import expire
from operators.intake import read, refuse
from operators.keys import flink_keys
from operators.lane import Answered, Cohort, Lane, Membranes
from operators.metrics import OperatorMetrics
from operators.timers import Timers
from snn.model import parse_model
from snn.network import Network
from snn.readout import Readout, predicted_classes
from wire import messages_pb2 as pb
from wire.codec import SCHEMA, decode_readout, now_us
from wire.idset import IdSet
from wire.reasons import Reason, WireError
from wire.weights import exact_network, network_from_bytes

READOUTS = MapStateDescriptor("readouts", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
# Every key whose state a bundle has changed is a round trip to Java at its end. An answer may be given twice, so the
# ids of whole sequences need not be stored with each.
FINISHED_EVERY_MS = 1000
RETRY_MS = 200  # how soon a complete sequence asks again for the first readout

Classes = npt.NDArray[np.int32]


class Current(NamedTuple):
    """A readout ready to answer with. resting: [n] membranes of its network before the first timestep."""

    version: int
    readout: Readout
    network: Network
    resting: Membranes
    trained_on: IdSet


class PredictOperator(KeyedBroadcastProcessFunction):
    def __init__(self, spec_json: str, expire_after_s: float) -> None:
        self._spec_json = spec_json
        self._expire_ms = int(expire_after_s * 1000)

    def open(self, runtime_context: RuntimeContext) -> None:
        self._engine = worker.load("snn.engine")
        self._model = parse_model(json.loads(self._spec_json))
        self._metrics = OperatorMetrics(runtime_context, self._model.model)
        self._metrics.gauge_live_sequences()
        self._metrics.gauge("readout_version", lambda: self._version)
        self._state = runtime_context.get_map_state(
            MapStateDescriptor("lane", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        )
        self._lanes: dict[int, Lane] = {}
        self._lane_number = {key: lane for lane, key in enumerate(flink_keys(self._model.lanes))}
        self._current: Current | None = None
        self._version = 0
        self._timers = Timers()

    def process_broadcast_element(self, value: bytes, ctx: KeyedBroadcastProcessFunction.Context) -> Iterator:
        try:
            offered = decode_readout(value)
            if offered.model != self._model.model:
                return
            if offered.digest != self._model.digest:
                raise WireError(
                    Reason.WRONG_MODEL,
                    f"readout {offered.version}: expected model digest {self._model.digest:016x}, "
                    f"got {offered.digest:016x}",
                )
            self._refuse_unfit(offered)
            state = ctx.get_broadcast_state(READOUTS)
            held = state.get(self._model.model)
            newest = decode_readout(held).version if held else 0
            if offered.version <= newest:
                raise WireError(
                    Reason.STALE_READOUT,
                    f"expected a version above {newest}, got {offered.version}; the newer one stays",
                )
        except WireError as error:
            yield from refuse("predict", "readouts", error, value, self._metrics)
            return
        state.put(self._model.model, value)
        self._current = None  # until the next answer takes it from there

    def process_element(self, record: bytes, ctx: KeyedBroadcastProcessFunction.ReadOnlyContext) -> Iterator:
        self._metrics.resume()
        key = ctx.get_current_key()
        try:
            piece = read(record, self._model, self._lane_number[key])
        except WireError as error:
            yield from refuse("predict", "sequences", error, record, self._metrics)
            return
        if piece is None:
            return
        now_ms = ctx.timer_service().current_processing_time()
        lane = self._lane(key, now_ms)
        current = self._newest(ctx)
        if current is not None and (whole := lane.pass_on(piece, now_ms)) is not None:
            yield from self._predict(whole, current)
        else:
            self._metrics.count("duplicates", lane.offer(piece, record, now_ms))
        yield from self._answer(lane, key, now_ms, ctx)

    def on_timer(self, timestamp: int, ctx: KeyedBroadcastProcessFunction.OnTimerContext) -> Iterator:
        self._metrics.defer()
        key = ctx.get_current_key()
        lane = self._lane(key, timestamp)
        timesteps = self._model.input.timesteps
        yield from expire(lane, "predict", timesteps, self._expire_ms, timestamp, self._metrics)
        yield from self._answer(lane, key, timestamp, ctx)

    def _lane(self, key: int, now_ms: int) -> Lane:
        if key not in self._lanes:
            self._lanes[key] = Lane(self._model, self._state, now_ms, FINISHED_EVERY_MS)
        return self._lanes[key]

    def _answer(
        self, lane: Lane, key: int, now_ms: int, ctx: KeyedBroadcastProcessFunction.ReadOnlyContext
    ) -> Iterator[bytes]:
        """Answer what can be answered, bring Flink state up to date, and come back later for the rest."""
        complete = lane.complete()
        current = self._newest(ctx)
        if current is not None:
            for cohort in lane.pending() if self._model.readout.every_step else complete:
                if cohort.answered is None or cohort.answered.steps < cohort.next:
                    yield from self._predict(cohort, current)
            lane.finish(complete, now_ms)
        lane.save(now_ms)
        self._metrics.live(self._lane_number[key], lane.live)
        if lane.live:
            waits = complete and current is None
            self._timers.wake(ctx.timer_service(), key, RETRY_MS if waits else self._expire_ms)

    def _predict(self, cohort: Cohort, current: Current) -> Iterator[bytes]:
        model = self._model
        spikes = self._spikes(cohort, current)
        scores = current.readout.scores(spikes)
        rows = scores.shape[1]
        start = cohort.next - rows
        classes = predicted_classes(scores, model.readout)
        targets = np.full(classes.shape, -1, np.int32)
        if cohort.targets.numbers is not None and model.readout.target == "class":
            first = start if model.readout.every_step else 0
            targets = cohort.targets.numbers[:, first : first + rows]
        in_training = current.trained_on.contains(cohort.ids)
        answered = now_us()
        self._count(cohort, classes, targets, in_training, answered)
        for at, sequence in enumerate(cohort.ids.tolist()):
            yield pb.Prediction(
                schema=SCHEMA,
                model=model.model,
                id=sequence,
                readout_version=current.version,
                start=start,
                scores=scores[at].tobytes(),
                predicted_classes=classes[at].ravel().tolist(),
                target_classes=targets[at].ravel().tolist(),
                in_training=bool(in_training[at]),
                sent_us=cohort.sent_us,
                answered_us=answered,
            ).SerializeToString()

    def _spikes(self, cohort: Cohort, current: Current) -> npt.NDArray[np.bool_]:
        """[B, k, S] of the support at the timesteps that are to be answered, the last ones that have come."""
        grid = self._model.input
        if not self._model.readout.every_step:
            return self._engine.final_spikes(cohort.codes, grid, current.network)[:, None]
        last = cohort.answered
        done = 0 if last is None else last.steps
        if last is None or last.version != current.version:
            last = Answered(current.version, 0, np.repeat(current.resting[None], len(cohort), axis=0))
        codes = cohort.codes[:, last.steps :]
        ends = np.full(len(cohort), cohort.complete)
        result = self._engine.advance(codes, last.steps, last.membranes, current.network, grid, True, ends)
        cohort.answered = last._replace(steps=cohort.next)
        return result.spikes[:, done - last.steps :]

    def _count(
        self, cohort: Cohort, classes: Classes, targets: Classes, in_training: npt.NDArray[np.bool_], answered_us: int
    ) -> None:
        """An answer counts for test-then-train accuracy if it has a target that its readout has not seen."""
        self._metrics.count("predictions", len(cohort))
        self._metrics.latency((answered_us - cohort.sent_us) / 1000, len(cohort))
        fresh = (targets >= 0).all(axis=2) & ~in_training[:, None] & bool(targets.shape[2])
        self._metrics.count("test_then_train_sequences", np.count_nonzero(fresh))
        self._metrics.count("test_then_train_correct", np.count_nonzero(fresh & (classes == targets).all(axis=2)))

    def _newest(self, ctx: KeyedBroadcastProcessFunction.ReadOnlyContext) -> Current | None:
        if self._current is not None:
            return self._current
        record = ctx.get_broadcast_state(READOUTS).get(self._model.model)
        if record is None:
            return None
        message = pb.Readout.FromString(record)  # checked when it came
        support = list(message.support)
        shape = (len(support), message.outputs)
        readout = Readout(
            support,
            np.frombuffer(message.coefficients, "<f8").reshape(shape),
            np.frombuffer(message.intercept, "<f8"),
        )
        if message.witnesses_version and self._model.growing is None:
            network = self._engine.prepare(network_from_bytes(message.network, self._model, len(support)))
        else:
            network = self._engine.on_device(self._model, support)
        spans = IdSet((span.first, span.last) for span in message.trained_on)
        self._current = Current(message.version, readout, network, self._engine.resting(network), spans)
        self._version = message.version
        return self._current

    def _refuse_unfit(self, offered: pb.Readout) -> None:
        outputs, growing = self._model.readout.outputs, self._model.growing is not None
        count = offered.tried if growing else self._model.witnesses.count
        if offered.outputs != outputs or max(offered.support, default=0) >= count:
            raise WireError(
                Reason.CORRUPT_READOUT,
                f"readout {offered.version}: expected {outputs} outputs and witnesses below {count}, got "
                f"{offered.outputs} and {max(offered.support, default=0)}",
            )
        if offered.witnesses_version and not growing:
            exact_network(offered.network, self._model, len(offered.support))

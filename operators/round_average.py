"""Averages the rounds of a surrogate-gradient training into the next weights, and publishes witnesses now and then.

Keyed by one key; reads what the workers hand in, and the weights that it has published itself (`operators.rounds`). A
round that some workers have handed in waits `round_timeout_s` for the others and is closed without them; what they hand
in afterwards counts for nothing.
"""

import json
import math
from collections.abc import Iterator

from pyflink.common import Types
from pyflink.datastream import KeyedCoProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

from operators import worker
from operators.intake import refuse
from operators.metrics import OperatorMetrics
from operators.rounds import Average, Plan
from operators.surrogate_worker import JOB
from operators.tags import WITNESSES
from operators.timers import Timers
from snn.model import parse_model
from wire.reasons import WireError
from wire.weights import encode_witnesses

BILLION = 10**9  # a gauge is an integer


class RoundAverage(KeyedCoProcessFunction):
    def __init__(self, spec_json: str, history: int) -> None:
        """history: the newest version of the weights when the job was submitted, 0 for none."""
        self._spec_json, self._history = spec_json, history

    def open(self, runtime_context: RuntimeContext) -> None:
        worker.load("torch").set_num_threads(1)
        self._model = parse_model(json.loads(self._spec_json))
        assert self._model.training is not None
        self._training = self._model.training
        self._patience_ms = int(self._training.round_timeout_s * 1000)
        self._metrics = OperatorMetrics(runtime_context, self._model.model)
        self._shown = {"weights_version": 0, "trained_samples": 0}
        for name in ("loss", "gradient_norm", "implicit_regulariser", "sharpness", "stable_sharpness"):
            self._shown[f"{name}_billionths"] = 0
        for name in self._shown:
            self._metrics.gauge(name, lambda name=name: self._shown[name])  # type: ignore[misc]
        self._state = runtime_context.get_map_state(
            MapStateDescriptor("average", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        )
        self._held: Average | None = None
        self._waits_since: int | None = None
        self._timers = Timers()

    def process_element1(self, record: bytes, ctx: KeyedCoProcessFunction.Context) -> Iterator:
        """What a worker hands in."""
        self._metrics.resume()
        late = self._average().offer(record)
        if late is not None:
            self._metrics.count("late_rounds", worker=late.worker)
        yield from self._close(ctx, ctx.timer_service().current_processing_time())

    def process_element2(self, record: bytes, ctx: KeyedCoProcessFunction.Context) -> Iterator:
        """A record of `weights`."""
        self._metrics.resume()
        try:
            new = self._average().hear(record)
        except WireError as error:
            yield from refuse(JOB, "weights", error, record, self._metrics)
            return
        if new:
            self._waits_since = None
            self._show()
            yield from self._publish()
        yield from self._close(ctx, ctx.timer_service().current_processing_time())

    def on_timer(self, timestamp: int, ctx: KeyedCoProcessFunction.OnTimerContext) -> Iterator:
        self._metrics.defer()
        impatient = self._waits_since is not None and timestamp - self._waits_since >= self._patience_ms
        yield from self._close(ctx, timestamp, impatient)

    def _close(self, ctx: KeyedCoProcessFunction.Context, now_ms: int, impatient: bool = False) -> Iterator[bytes]:
        held = self._average()
        weights = held.close(impatient)
        if weights is not None:
            yield weights
        if not held.waiting:
            self._waits_since = None
            return
        if self._waits_since is None:
            self._waits_since = now_ms
        self._timers.wake(ctx.timer_service(), ctx.get_current_key(), self._patience_ms)

    def _publish(self) -> Iterator:
        """Every `publish_every` versions, and with the last one, the witnesses in the weights."""
        version = self._average().weights.version
        if version <= self._history or (version % self._training.publish_every and version < self._training.rounds):
            return
        torch, on_grid = worker.load("torch"), worker.load("snn.training.on_grid").on_grid
        network = self._plan.objective.network(torch.from_numpy(self._average().weights.parameters))
        put = on_grid(network, self._model.input, self._model.witnesses.law.weight_bits)
        yield WITNESSES, encode_witnesses(self._model, version, put)

    def _show(self) -> None:
        """Losses and what else one wants to see, of the newest version."""
        weights, training = self._average().weights, self._training
        monitors = worker.load("snn.training.monitors")
        rate = worker.load("snn.training.rules").decayed(training, (weights.version - 1) * training.local_steps)
        values = {
            "loss": weights.loss,
            "gradient_norm": weights.gradient_norm,
            "implicit_regulariser": monitors.implicit_regulariser(weights.gradient_norm, rate),
            "sharpness": weights.sharpness,
            "stable_sharpness": 2 / rate if rate else math.nan,
        }
        self._shown["weights_version"], self._shown["trained_samples"] = weights.version, weights.samples
        for name, value in values.items():
            if math.isfinite(value):  # else the last one stays
                self._shown[f"{name}_billionths"] = round(BILLION * value)
        self._metrics.count("missing_workers", training.workers - len(weights.workers))

    def _average(self) -> Average:
        if self._held is None:
            self._plan = Plan(self._model)
            self._held = Average(self._plan, self._state)
        return self._held

"""Metrics of the operators, as Flink counters and gauges: the Prometheus reporter shows them with these labels.

Flink reports Python counters as running totals. Names come out as
flink_taskmanager_job_task_operator_spikeloom_model_<name>{model="...", ...}.
"""

from bisect import bisect_left
from collections.abc import Callable

from pyflink.datastream import RuntimeContext
from pyflink.metrics import Counter, MetricGroup

WAVE_BINS = 32  # timesteps a label may name; longer sequences share bins, as every label is a time series
LATENCY_MS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 60000)


class OperatorMetrics:
    """Counters of one model, made at first use."""

    def __init__(self, context: RuntimeContext, model: str) -> None:
        self._group = context.get_metrics_group().add_group("spikeloom").add_group("model", model)
        self._counters: dict[tuple[str, ...], Counter] = {}
        self._buckets: list[tuple[str, ...]] = []  # of the latency, made once: every answer counts into several
        self._live: dict[object, int] = {}
        self._deferred: list[tuple[tuple[str, ...], int]] | None = None

    def defer(self) -> None:
        """Hold counts back from here on: PyFlink loses what is counted while a timer fires."""
        self._deferred = self._deferred or []

    def resume(self) -> None:
        """Count what was held back, and count directly again: a record is being processed."""
        held, self._deferred = self._deferred, None
        for key, by in held or ():
            self._counters[key].inc(by)

    def count(self, name: str, by: int = 1, **labels: object) -> None:
        self._add(self._key(name, labels), by)

    def gauge(self, name: str, value: Callable[[], int]) -> None:
        self._group.gauge(name, value)

    def gauge_live_sequences(self) -> None:
        self.gauge("live_sequences", lambda: sum(self._live.values()))

    def live(self, lane: object, sequences: int) -> None:
        """Sequences under way in one lane of this task."""
        self._live[lane] = sequences

    def latency(self, milliseconds: float, answers: int) -> None:
        """Count `answers` into cumulative buckets, as a Prometheus histogram does."""
        if not self._buckets:
            self._buckets = [self._key("latency_ms_bucket", {"le": bound}) for bound in (*LATENCY_MS, "+Inf")]
        for key in self._buckets[bisect_left(LATENCY_MS, milliseconds) :]:
            self._add(key, answers)

    def wave(self, timesteps: int, start: int, layer: int, active: list[int], sequences: list[int]) -> None:
        """Active neurons of one layer and the sequences they were seen in, per timestep (or bin of timesteps).

        Of the shards of a layer, one counts the sequences, so that the quotient is the mean of the whole layer.
        """
        width = -(-timesteps // WAVE_BINS)
        for t, (fired, seen) in enumerate(zip(active, sequences, strict=True), start=start):
            labels = {"layer": layer, "timestep": f"{t // width * width:04d}"}
            self.count("active_neurons", fired, **labels)
            self.count("stepped_sequences", seen, **labels)

    def _key(self, name: str, labels: dict[str, object]) -> tuple[str, ...]:
        key = (name, *(f"{label}={value}" for label, value in labels.items())) if labels else (name,)
        if key not in self._counters:
            self._counters[key] = self._labelled(labels).counter(name)
        return key

    def _add(self, key: tuple[str, ...], by: int) -> None:
        if self._deferred is None:
            self._counters[key].inc(by)
        else:
            self._deferred.append((key, by))

    def _labelled(self, labels: dict[str, object]) -> MetricGroup:
        group = self._group
        for label, value in labels.items():
            group = group.add_group(label, str(value))
        return group

"""Sums the inner products of spike columns over the samples that have come since the last time.

Keyed by group: a sample belongs to the group `id % groups`, and there the bits of all its shards meet (`Meeting`). So
a group counts whole samples only, and a sample is counted under one key, every pair of its shards once. The sums of
all groups add up to those of the stream, whatever their number and that of the tasks.

Every EMIT_MS, or sooner where MOST_SUMMED samples are whole, the samples of a group are counted together, by the kernel
that the solver counts with, and sent as tiles of D'D with D'Y and fingerprints (`wire.codec.encode_sums`). Sums leave
and samples go out of state in one call, so one checkpoint and one Kafka transaction has both: nothing is lost, nothing
is sent twice, and no sums are ever in state. What waits there are bits: P / 8 bytes a sample, for EMIT_MS.

D'D is sent for all P columns: which of them are equal over the whole stream, only the solver knows. The tiles of a
group take P (P + BAND) bytes (16 bits a number, the lower half), as much as the bits of 8 (P + BAND) samples: where
fewer come in EMIT_MS the solver would read less if it read rows. More groups spread the counting over more tasks, and
each sends sums of its own.
"""

import json
import math
from collections.abc import Iterator

from pyflink.common import Row, Types
from pyflink.datastream import FlatMapFunction, KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

from operators import worker
from operators.intake import refuse
from operators.keys import flink_keys
from operators.meeting import Meeting, Whole
from operators.metrics import OperatorMetrics
from operators.timers import Timers
from snn.model import ModelSpec, parse_model
from snn.readout import rows_of
from snn.sums import of_rows
from wire.codec import Columns, columns_ids, decode_columns, encode_sums
from wire.reasons import Reason, WireError

EMIT_MS = 10_000  # how often the solver solves, unless set: sooner would only be more to read
GROUPS = 4  # unless set: as many tasks as partitions of `spike-columns` can feed


def groups_of(model: ModelSpec, wanted: int | None) -> int:
    """How many groups the samples of a model are dealt into. Raises ValueError where a lane would be in several, or
    the readout cannot be had from sums."""
    if model.readout.needs_rows:
        raise ValueError(
            f"model {model.model}: expected loss: squared and relative_beta: a number, without window, half_life, "
            "class_weight and every_step, for which sums are enough. Leave this model to the solver service, which "
            "reads its rows"
        )
    groups = wanted or math.gcd(GROUPS, model.lanes)
    if groups < 1 or model.lanes % groups:
        raise ValueError(f"groups: expected a divisor of the model's {model.lanes} lanes, got {groups}")
    return groups


class ToGroup(FlatMapFunction):
    """Records of the model with the Flink key of their group. Records that cannot be read go to the first group, whose
    operator refuses them."""

    def __init__(self, spec_json: str, groups: int) -> None:
        self._spec_json, self._groups = spec_json, groups

    def open(self, runtime_context: RuntimeContext) -> None:
        self._model = parse_model(json.loads(self._spec_json))
        self._keys = flink_keys(self._groups)

    def flat_map(self, record: bytes) -> Iterator[Row]:
        try:
            ids = columns_ids(record, self._model)
        except WireError:
            ids = []
        if ids is not None:
            yield Row(self._keys[ids[0] % self._groups if ids else 0], record)


class GramOperator(KeyedProcessFunction):
    def __init__(self, spec_json: str, groups: int) -> None:
        self._spec_json, self._groups = spec_json, groups

    def open(self, runtime_context: RuntimeContext) -> None:
        self._matrix = worker.load("snn.bits").BitMatrix
        self._model = parse_model(json.loads(self._spec_json))
        self._group = {key: group for group, key in enumerate(flink_keys(self._groups))}
        self._metrics = OperatorMetrics(runtime_context, self._model.model)
        self._metrics.gauge("waiting_samples", lambda: sum(meeting.waiting for meeting in self._meetings.values()))
        self._state = runtime_context.get_map_state(
            MapStateDescriptor("meeting", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        )
        self._meetings: dict[int, Meeting] = {}
        self._timers = Timers()

    def process_element(self, record: bytes, ctx: KeyedProcessFunction.Context) -> Iterator:
        self._metrics.resume()
        key = ctx.get_current_key()
        try:
            columns = self._read(record, self._group[key])
        except WireError as error:
            yield from refuse("gram", "spike-columns", error, record, self._metrics)
            return
        meeting = self._meeting(key)
        self._metrics.count("duplicates", meeting.offer(columns, record))
        if meeting.full and (whole := meeting.take()) is not None:
            yield from self._sums(whole)
        self._timers.wake(ctx.timer_service(), key, EMIT_MS)

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator:
        self._metrics.defer()
        meeting = self._meeting(ctx.get_current_key())
        while (whole := meeting.take()) is not None:
            yield from self._sums(whole)

    def _read(self, record: bytes, group: int) -> Columns:
        columns = decode_columns(record, self._model)
        if (columns.ids % self._groups != group).any():
            raise WireError(
                Reason.WRONG_LANE,
                f"expected ids of one lane in a record, so of one id % {self._groups}, got {columns.ids[:4].tolist()}",
            )
        return columns

    def _sums(self, whole: Whole) -> Iterator[bytes]:
        assert whole.targets.numbers is not None  # decode_columns refuses samples without a target
        rows = rows_of(whole.ids, whole.bits, whole.targets.numbers, self._model.readout)
        spikes = self._matrix.from_rows(rows.bits)
        sums = of_rows(spikes, rows.ids, rows.targets)
        self._metrics.count("summed_samples", len(whole.ids))
        yield from encode_sums(self._model, whole.ids, self._groups, sums, spikes.gram())

    def _meeting(self, key: int) -> Meeting:
        if key not in self._meetings:
            self._meetings[key] = Meeting(self._model, self._groups, self._state)
        return self._meetings[key]

"""The roll-out of witnesses that change: they come in versions on `witnesses` while sequences stream.

Keyed by lane; witnesses are broadcast. From the moment a lane hears of a version its sequences are stepped with it, and
those it keeps (`operators/kept.py`) once more, so that the solver can train on the window's rows in the new version at
once. Columns say which version they are of. A sequence is stepped when it is complete, by one version alone.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pyflink.common import Types
from pyflink.datastream import KeyedBroadcastProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor

from operators.intake import refuse
from operators.kept import Kept
from operators.lane import Cohort, Lane
from operators.roll_out import RollOut
from snn.model import ModelSpec
from wire.codec import Slice
from wire.idset import Ids
from wire.reasons import WireError
from wire.targets import Targets
from wire.weights import decode_witnesses, witnesses_of

NEWEST = MapStateDescriptor("witnesses", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
LOOK_MS = 1000  # how soon a lane hears of new witnesses while no sequence comes


def unfit(model: ModelSpec) -> str | None:
    """Why the witnesses of a model cannot change while it streams, if so."""
    if model.readout.window is None or model.witnesses.shards > 1:
        return (
            f"model {model.model}: expected readout.window, the samples that are stepped again when its witnesses have "
            f"been trained, and witnesses.shards: 1, got window: {model.readout.window} and "
            f"shards: {model.witnesses.shards}"
        )
    return None


class ChangingRollOutOperator(RollOut, KeyedBroadcastProcessFunction):
    def open(self, runtime_context: RuntimeContext) -> None:
        super().open(runtime_context)
        self._kept_state = runtime_context.get_map_state(
            MapStateDescriptor("kept", Types.STRING(), Types.PICKLED_BYTE_ARRAY())
        )
        self._kept: dict[int, Kept] = {}
        self._version = 0
        self._looked = False  # at the broadcast state, since it last changed
        self._metrics.gauge("witnesses_version", lambda: self._version)

    def process_broadcast_element(self, record: bytes, ctx: KeyedBroadcastProcessFunction.Context) -> Iterator:
        state, name = ctx.get_broadcast_state(NEWEST), self._model.model
        try:
            offered = witnesses_of(record, self._model)
            held = state.get(name)
            newest = witnesses_of(held, self._model) if held else None
            if offered is None or (newest is not None and offered.version <= newest.version):
                return
            self._check(record)
        except WireError as error:
            yield from refuse("roll_out", "witnesses", error, record, self._metrics)
            return
        state.put(name, record)
        self._looked = False

    def _check(self, record: bytes) -> None:
        """Raises WireError for a record of `witnesses` that cannot be used."""
        decode_witnesses(record, self._model)

    def process_element(self, record: bytes, ctx: KeyedBroadcastProcessFunction.ReadOnlyContext) -> Iterator:
        yield from self._change(ctx)
        yield from super().process_element(record, ctx)

    def on_timer(self, timestamp: int, ctx: KeyedBroadcastProcessFunction.OnTimerContext) -> Iterator:
        self._metrics.defer()
        yield from self._change(ctx)
        yield from super().on_timer(timestamp, ctx)

    def _change(self, ctx: KeyedBroadcastProcessFunction.ReadOnlyContext) -> Iterator[bytes]:
        """Take up the newest witnesses, and step with them what this lane keeps."""
        if not self._looked:
            held = ctx.get_broadcast_state(NEWEST).get(self._model.model)
            if held is not None:
                version, network = decode_witnesses(held, self._model)
                self._version, self._networks[0] = version, self._engine.prepare(network)
                self._resting[0] = self._engine.resting(self._networks[0])
            self._looked = True
        kept = self._kept_of(ctx.get_current_key())
        if kept.version == self._version:
            return
        for piece in kept.slices():
            yield from self._columns(0, piece.ids, piece.targets, self._spikes(piece))
            self._metrics.count("stepped_again", len(piece.ids))
        kept.version = self._version

    def _spikes(self, piece: Slice) -> npt.NDArray[np.bool_]:
        """[B, S, P] of whole sequences."""
        network, grid = self._network(0), self._model.input
        if not self._model.readout.every_step:
            return np.asarray(self._engine.final_spikes(piece.codes, grid, network)[:, None])
        membranes = np.repeat(self._resting[0][None], len(piece.ids), axis=0)
        return np.asarray(self._engine.advance(piece.codes, 0, membranes, network, grid, every_step=True).spikes)

    def _columns(
        self, shard: int, ids: Ids, targets: Targets, spikes: npt.NDArray[np.bool_], witnesses: int = 0
    ) -> Iterator[bytes]:
        return super()._columns(shard, ids, targets, spikes, self._version)

    def _finished(self, key: int, cohort: Cohort) -> None:
        self._kept_of(key).add(cohort)

    def _ready(self, lane: Lane) -> list[Cohort]:
        return lane.complete()

    def _settle(self, lane: Lane, key: int, now_ms: int, ctx: KeyedBroadcastProcessFunction.ReadOnlyContext) -> None:
        super()._settle(lane, key, now_ms, ctx)
        self._timers.wake(ctx.timer_service(), key, LOOK_MS)

    def _kept_of(self, key: int) -> Kept:
        if key not in self._kept:
            self._kept[key] = Kept(self._model, self._place[key][0], self._kept_state)
        return self._kept[key]

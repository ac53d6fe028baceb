"""Witnesses that change: every lane emits what it keeps in the new version, once, whatever crashes; the solver goes on
with the old version until the new one has rows enough; a readout's network answers as its columns were."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from operators.changing import ChangingRollOutOperator, unfit
from operators.tags import BRAIN_WAVES, DEAD_LETTERS
from snn import engine
from snn.model import ModelSpec
from snn.network import Network, select
from snn.training.on_grid import on_grid
from solver_service.changing_trainer import ChangingTrainer
from tests.models import small_model
from tests.operators.test_every_step import DictStore, Metrics
from wire.codec import Slice, columns_version, decode_columns, encode_slice
from wire.targets import Targets
from wire.weights import encode_witnesses, network_from_bytes

T, P, WINDOW = 4, 16, 12


def model_of(**readout: object) -> ModelSpec:
    return small_model(
        input={"timesteps": T, "features": 2, "bits": 4},
        witnesses={"law": {"name": "gaussian", "scale": 2.0}, "count": P},
        readout={"outputs": 3, "window": WINDOW, "relative_beta": 0.05, **readout},
        training={"workers": 1},
        lanes=1,
    )


MODEL = model_of()


def network_of(version: int) -> Network:
    """Version 0 is the law's; the others are its next witnesses, on the grid."""
    drawn = MODEL.network(range(P * version, P * version + P))
    return on_grid(drawn, MODEL.input, MODEL.witnesses.law.weight_bits) if version else drawn


class Task:
    """What Flink does around the operator of one lane: state, timers, broadcast state, checkpoints that hold what was
    sent."""

    def __init__(self) -> None:
        self.states, self.broadcast = {"lane": DictStore(), "kept": DictStore()}, {}
        self.timers: set[int] = set()
        self.sent: list = []
        self.now = 1
        self.metrics = Metrics()
        self.start()

    def start(self) -> None:
        def state(descriptor: object) -> SimpleNamespace:
            store = self.states[descriptor.name]  # type: ignore[attr-defined]
            return SimpleNamespace(put=store.put, remove=store.remove, items=store.items)

        context = SimpleNamespace(get_metrics_group=lambda: self.metrics, get_map_state=state)
        held = SimpleNamespace(get=lambda key: self.broadcast.get(key), put=lambda k, v: self.broadcast.update({k: v}))
        self.operator = ChangingRollOutOperator(MODEL.spec_json, 3600)
        self.operator.open(context)
        key = next(iter(self.operator._place))
        self.context = SimpleNamespace(
            get_current_key=lambda: key,
            get_broadcast_state=lambda _: held,
            timer_service=lambda: SimpleNamespace(
                current_processing_time=lambda: self.now, register_processing_time_timer=self.timers.add
            ),
        )

    def checkpoint(self) -> None:
        entries = {name: dict(store.entries) for name, store in self.states.items()}
        self.saved = entries, dict(self.broadcast), set(self.timers), list(self.sent)

    def crash(self) -> None:
        entries, self.broadcast, self.timers, self.sent = self.saved
        self.broadcast, self.timers, self.sent = dict(self.broadcast), set(self.timers), list(self.sent)
        for name, held in entries.items():
            self.states[name].entries = dict(held)
        self.start()

    def process(self, record: bytes) -> None:
        self.sent += self.operator.process_element(record, self.context)

    def offer(self, record: bytes) -> None:
        self.sent += self.operator.process_broadcast_element(record, self.context)

    def pass_time(self) -> None:
        self.now += 2000
        due = sorted(timer for timer in self.timers if timer <= self.now)
        self.timers -= set(due)
        for timestamp in due:
            counts = dict(self.metrics.counts)
            self.sent += self.operator.on_timer(timestamp, self.context)
            self.metrics.counts.clear()  # PyFlink loses what is counted while a timer fires
            self.metrics.counts.update(counts)

    def columns(self) -> list:
        assert all(sent[0] is BRAIN_WAVES for sent in self.sent if not isinstance(sent, bytes))
        return [decode_columns(sent, MODEL) for sent in self.sent if isinstance(sent, bytes)]


def spikes_of(codes: np.ndarray, version: int) -> np.ndarray:
    return engine.final_spikes(codes, MODEL.input, engine.prepare(network_of(version)))


@given(st.integers(0, 10**6), st.lists(st.sampled_from(["push", "push", "version", "time", "crash"]), max_size=14))
@settings(deadline=None, max_examples=60)
def test_what_is_kept_is_stepped_again_with_each_version(seed: int, events: list[str]) -> None:
    rng = np.random.default_rng(seed)
    codes, classes = rng.integers(0, 17, (99, T, 2)), rng.integers(0, 3, 99).astype(np.int32)
    task, count, version, order = Task(), 0, 0, []
    task.checkpoint()
    saved = 0
    for event in [*events, "push", "time"]:
        if event == "push":
            rows = np.arange(count, count + rng.integers(1, 6))
            piece = Slice(0, rows.astype(np.uint64), 0, codes[rows], Targets.final(classes[rows]), 7)
            task.process(encode_slice(MODEL, piece))
            count += len(rows)
            order.append(len(rows))
        elif event == "version":
            version += 1
            task.offer(encode_witnesses(MODEL, version, network_of(version)))
        elif event == "crash":  # from the last checkpoint; the source reads on from there
            task.crash()
            version, count = saved, len(task.states["kept"].entries) and count
            continue
        else:
            task.pass_time()
        task.checkpoint()
        saved = version
    seen: dict[int, list[int]] = {}
    for columns in task.columns():
        ids = columns.ids.astype(int)
        assert np.array_equal(
            np.unpackbits(columns.bits[:, 0], axis=1, bitorder="little"), spikes_of(codes[ids], columns.version)
        )
        assert np.array_equal(columns.targets.numbers[:, 0, 0], classes[ids])
        seen.setdefault(columns.version, []).extend(ids.tolist())
    assert all(len(set(ids)) == len(ids) for ids in seen.values()), "a sample comes once in a version"
    newest = seen.get(version, [])
    assert set(range(max(0, count - WINDOW), count)) <= set(newest), "the window is there in the newest version"


def test_what_a_timer_steps_again_is_counted() -> None:
    codes = np.random.default_rng(0).integers(0, 17, (WINDOW, T, 2))
    task = Task()

    def push(*rows: int) -> None:
        ids, classes = np.array(rows, np.uint64), np.zeros(len(rows), np.int32)
        task.process(encode_slice(MODEL, Slice(0, ids, 0, codes[list(rows)], Targets.final(classes), 7)))

    push(0, 1, 2)
    task.pass_time()
    push(3)
    task.offer(encode_witnesses(MODEL, 1, network_of(1)))
    task.pass_time()
    assert sum(len(columns.ids) for columns in task.columns() if columns.version == 1) == 3 + 1
    push(4)
    assert task.metrics.counts["stepped_again"] == 3


def test_records_that_do_not_fit_are_refused() -> None:
    task = Task()
    good = encode_witnesses(MODEL, 3, network_of(1))
    task.offer(encode_witnesses(MODEL, 1, MODEL.network(range(P - 8))))
    assert [sent[0] for sent in task.sent] == [DEAD_LETTERS]
    task.offer(good)
    task.offer(encode_witnesses(MODEL, 2, network_of(2)))  # older: passed over
    assert len(task.sent) == 1
    assert task.broadcast[MODEL.model] == good
    assert "readout.window" in str(unfit(small_model(training={"workers": 1})))
    assert unfit(MODEL) is None


def test_the_solver_changes_over_when_rows_are_enough(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes, classes = rng.integers(0, 17, (WINDOW, T, 2)), rng.integers(0, 3, WINDOW).astype(np.int32)
    task, trainer = Task(), ChangingTrainer(MODEL)

    def push(rows: np.ndarray) -> None:
        piece = Slice(0, rows.astype(np.uint64), 0, codes[rows], Targets.final(classes[rows]), 7)
        task.process(encode_slice(MODEL, piece))
        task.pass_time()

    push(np.arange(WINDOW - 4))
    for record in task.sent:
        if isinstance(record, bytes):
            trainer.ingest(record)
    first = trainer.solve(1, 60)
    assert first is not None
    assert (first.witnesses_version, first.network, first.rows) == (0, b"", WINDOW - 4)
    assert shown("witnesses_version") == 0
    task.sent.clear()
    witnesses = encode_witnesses(MODEL, 5, network_of(5))
    task.offer(witnesses)
    task.pass_time()
    again = [record for record in task.sent if isinstance(record, bytes)]
    assert {columns_version(record) for record in again} == {5}
    for record in again:
        trainer.ingest(record)
    assert trainer.version == 0, "not before the witnesses themselves are known"
    waiting = ChangingTrainer(MODEL, trainer.freeze())
    waiting.offer_witnesses(witnesses)
    assert waiting.version == 5
    trainer = ChangingTrainer(MODEL, waiting.freeze())
    task.sent.clear()
    push(np.arange(WINDOW - 4, WINDOW))
    for record in task.sent:
        if isinstance(record, bytes):
            trainer.ingest(record)
    assert trainer.version == 5
    second = trainer.solve(2, 60)
    assert second is not None
    assert (second.witnesses_version, second.rows, second.solved) == (5, WINDOW, True)
    assert (shown("witnesses_version"), shown("beta")) == (5, second.beta)
    support = list(second.support)
    brought = network_from_bytes(second.network, MODEL, len(support))
    spikes = engine.final_spikes(codes, MODEL.input, engine.prepare(brought))
    assert np.array_equal(spikes, spikes_of(codes, 5)[:, support])


def shown(name: str) -> float | None:
    """What Prometheus is told of the newest readout."""
    return REGISTRY.get_sample_value(f"spikeloom_readout_{name}", {"model": MODEL.model})


@pytest.mark.parametrize("widths", [(), (3,)])
@pytest.mark.parametrize("recurrent", [0.0, 0.5])
def test_a_selection_of_subnetworks_is_their_network(widths: tuple[int, ...], recurrent: float) -> None:
    law = {"name": "gaussian", "widths": widths, "recurrent": recurrent}
    model = small_model(witnesses={"law": law, "count": P})
    codes = np.random.default_rng(0).integers(0, 17, (5, 8, 8))
    whole = engine.final_spikes(codes, model.input, model.network(range(P)))
    part = engine.final_spikes(codes, model.input, select(model.network(range(P)), [3, 0, 9]))
    assert np.array_equal(part, whole[:, [3, 0, 9]])

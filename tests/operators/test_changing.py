"""Witnesses that change: every lane emits what it keeps in the new version, once, whatever crashes; the solver goes on
with the old version until the new one has rows enough; a readout's network answers as its columns were."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from operators.changing import ChangingRollOutOperator, unfit
from operators.keys import flink_keys
from operators.tags import BRAIN_WAVES, DEAD_LETTERS
from snn import engine
from snn.model import ModelSpec
from snn.network import Network, select
from snn.training.on_grid import on_grid
from solver_service.changing_trainer import ChangingTrainer
from tests.models import small_model
from tests.operators.in_memory import Around
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


def rolling_out() -> Around:
    return Around(lambda: ChangingRollOutOperator(MODEL.spec_json, 3600), flink_keys(1)[0])


def spikes_of(codes: np.ndarray, version: int) -> np.ndarray:
    return engine.final_spikes(codes, MODEL.input, engine.prepare(network_of(version)))


EVENTS = ["push", "push", "version", "time", "checkpoint", "crash"]


@given(st.integers(0, 10**6), st.lists(st.sampled_from(EVENTS), max_size=16))
@settings(deadline=None, max_examples=80)
def test_what_is_kept_is_stepped_again_with_each_version(seed: int, events: list[str]) -> None:
    rng = np.random.default_rng(seed)
    codes, classes = rng.integers(0, 17, (99, T, 2)), rng.integers(0, 3, 99).astype(np.int32)
    task, count, version = rolling_out(), 0, 0
    topics: list[tuple[str, bytes]] = []  # what has come, of both sources in one order
    for event in [*events, "push", "time"]:
        if event == "push":
            rows = np.arange(count, count + rng.integers(1, 6))
            piece = Slice(0, rows.astype(np.uint64), 0, codes[rows], Targets.final(classes[rows]), 7)
            topics.append((event, encode_slice(MODEL, piece)))
            count += len(rows)
        elif event == "version":
            version += 1
            topics.append((event, encode_witnesses(MODEL, version, network_of(version))))
        elif event == "time":
            task.pass_time()
        else:
            getattr(task, event)()
        for kind, record in topics[task.read :]:
            (task.process if kind == "push" else task.offer)(record)
        task.read = len(topics)
    assert set(task.beside) <= {BRAIN_WAVES.tag_id}
    seen: dict[int, list[int]] = {}
    for columns in (decode_columns(record, MODEL) for record in task.sent):
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
    task = rolling_out()

    def push(*rows: int) -> None:
        ids, classes = np.array(rows, np.uint64), np.zeros(len(rows), np.int32)
        task.process(encode_slice(MODEL, Slice(0, ids, 0, codes[list(rows)], Targets.final(classes), 7)))

    push(0, 1, 2)
    task.pass_time()
    push(3)
    task.offer(encode_witnesses(MODEL, 1, network_of(1)))
    task.pass_time()
    sent = [decode_columns(record, MODEL) for record in task.sent]
    assert sum(len(columns.ids) for columns in sent if columns.version == 1) == 3 + 1
    push(4)
    assert task.counts["stepped_again"] == 3


def test_records_that_do_not_fit_are_refused() -> None:
    task = rolling_out()
    good = encode_witnesses(MODEL, 3, network_of(1))
    task.offer(encode_witnesses(MODEL, 1, MODEL.network(range(P - 8))))
    assert len(task.side(DEAD_LETTERS)) == 1
    task.offer(good)
    task.offer(encode_witnesses(MODEL, 2, network_of(2)))  # older: passed over
    assert (len(task.side(DEAD_LETTERS)), len(task.beside), len(task.sent)) == (1, 1, 0)
    assert task.broadcast[MODEL.model] == good
    assert "readout.window" in str(unfit(small_model(training={"workers": 1})))
    assert unfit(MODEL) is None


def test_the_solver_changes_over_when_rows_are_enough(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes, classes = rng.integers(0, 17, (WINDOW, T, 2)), rng.integers(0, 3, WINDOW).astype(np.int32)
    task, trainer = rolling_out(), ChangingTrainer(MODEL)

    def push(rows: np.ndarray) -> None:
        piece = Slice(0, rows.astype(np.uint64), 0, codes[rows], Targets.final(classes[rows]), 7)
        task.process(encode_slice(MODEL, piece))
        task.pass_time()

    push(np.arange(WINDOW - 4))
    for record in task.sent:
        trainer.ingest(record)
    first = trainer.solve(1, 60)
    assert first is not None
    assert (first.witnesses_version, first.network, first.rows) == (0, b"", WINDOW - 4)
    assert shown("witnesses_version") == 0
    task.sent.clear()
    witnesses = encode_witnesses(MODEL, 5, network_of(5))
    task.offer(witnesses)
    task.pass_time()
    assert {columns_version(record) for record in task.sent} == {5}
    for record in task.sent:
        trainer.ingest(record)
    assert trainer.version == 0, "not before the witnesses themselves are known"
    waiting = ChangingTrainer(MODEL, trainer.freeze())
    waiting.offer_witnesses(witnesses)
    assert waiting.version == 5
    trainer = ChangingTrainer(MODEL, waiting.freeze())
    task.sent.clear()
    push(np.arange(WINDOW - 4, WINDOW))
    for record in task.sent:
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

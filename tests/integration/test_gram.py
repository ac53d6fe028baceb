"""Sums made by Flink: of every sample once, through a crash and another parallelism, to a certified readout."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from solver_service import snapshot
from spikeloom.client import Client
from spikeloom.local import Stack
from tests.integration.conftest import Solver, eventually, job, offline_spikes
from tests.models import small_model
from wire import messages_pb2 as pb
from wire.codec import decode_readout, decode_sums, sums_model
from wire.idset import IdSet
from wire.registry import read_all

SEQUENCES = 2000
MODEL = small_model(model="gram")


@pytest.fixture
def solver(stack: Stack, tmp_path: Path) -> Iterator[Solver]:
    made = Solver(stack, tmp_path / "solver", gram_models=json.dumps([MODEL.model]))
    yield made
    made.end()


def test_sums_of_every_sample_once(stack: Stack, solver: Solver, project_root: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 17, (SEQUENCES, 8, 8)).astype(np.int32)
    classes = rng.integers(0, 10, SEQUENCES).astype(np.int32)
    gram = project_root / "flink_jobs" / "gram.py"

    def push(first: int, last: int) -> None:
        client.push(MODEL, codes[first:last] / 16, classes[first:last], ids=np.arange(first, last), block=7)

    with Client(stack.connection) as client:
        client.register(MODEL)
        with job(stack, project_root, "roll_out", MODEL):
            running = stack.submit(gram, "--model", MODEL.model)
            solver.start()
            push(0, 800)
            eventually(lambda: summed(tmp_path) > 0, "the first sums")
            push(800, 1200)
            stack.kill_task_manager()
            push(1200, 1600)
            stack.start_task_manager()
            solver.kill()
            solver.start()
            eventually(lambda: summed(tmp_path) == 1600, "the sums of what was pushed", seconds=240)
            push(1600, 1800)
            savepoint = stack.savepoint(running, stop=True)
            running = stack.submit(gram, "--model", MODEL.model, savepoint=savepoint, parallelism=2)
            push(1800, SEQUENCES)
            eventually(lambda: newest(stack).rows == SEQUENCES, "a readout of all samples", seconds=240)
            stack.cancel(running)
            solver.stop()

    d = offline_spikes(codes, MODEL).astype(np.int64)
    first = np.sort(np.unique(d, axis=1, return_index=True)[1])
    loaded = snapshot.load(tmp_path / "solver")
    assert loaded is not None
    arrays = loaded[1][MODEL.model]
    assert np.array_equal(arrays["sums_gram"], d[:, first].T @ d[:, first])
    assert np.array_equal(arrays["sums_counts"], d.sum(axis=0))
    assert np.array_equal(arrays["sums_cross"], d.T @ np.eye(10, dtype=np.int64)[classes])
    parts = [decode_sums(r, MODEL) for r in read_all(stack.connection, "gram") if sums_model(r) == MODEL.model]
    sent = [sample for part in parts if part.head is not None for sample in part.head.ids.tolist()]
    assert sorted(sent) == list(range(SEQUENCES)), "each sample is in the sums once"
    readout = newest(stack)
    assert readout.solved
    trained_on = IdSet((span.first, span.last) for span in readout.trained_on)
    assert trained_on.spans() == [(0, SEQUENCES - 1)]


def summed(folder: Path) -> int:
    """Samples in the solver's newest snapshot of this model."""
    loaded = snapshot.load(folder / "solver")
    return 0 if loaded is None or MODEL.model not in loaded[1] else int(loaded[1][MODEL.model]["sums_rows"])


def newest(stack: Stack) -> pb.Readout:
    found = (decode_readout(record) for record in read_all(stack.connection, "readouts"))
    return max((one for one in found if one.model == MODEL.model), key=lambda one: one.version, default=pb.Readout())

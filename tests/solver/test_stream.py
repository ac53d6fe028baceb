"""A stream without end: what a trainer keeps of it is what one pass over all of it would have given.

Nothing here asks for time; threads meet at events.
"""

import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn.bits import BitMatrix
from snn.model import ModelSpec, parse_model
from solver_service import dictionary
from solver_service.columns import Columns
from solver_service.fit import Samples
from solver_service.losses import LOSSES
from solver_service.solvers import solve
from solver_service.trainer import Trainer
from wire import codec
from wire.codec import encode_columns
from wire.idset import IdSet
from wire.targets import Targets

WITNESSES, SHARDS = 64, 2


def _model(**readout: object) -> ModelSpec:
    return parse_model(
        {
            "model": "stream",
            "input": {"timesteps": 4, "features": 4},
            "witnesses": {"law": {"name": "gaussian"}, "count": WITNESSES, "shards": SHARDS},
            "readout": {"outputs": 3, "relative_beta": 0.05, **readout},
        }
    )


def _data(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ids [n] without order, spikes [n, WITNESSES] of which some columns are equal for a while, classes [n]."""
    rng = np.random.default_rng(seed)
    spikes = rng.integers(0, 2, (n, 20), np.uint8)[:, rng.integers(0, 20, WITNESSES)]
    late = np.arange(n) >= n // 2
    spikes[late, :8] = rng.integers(0, 2, (late.sum(), 8), np.uint8)
    classes = (spikes[:, 0] + spikes[:, 40] + rng.integers(0, 2, n) * spikes[:, 9]).astype(np.int32) % 3
    return rng.permutation(3 * n).astype(np.uint64)[:n], spikes, classes


def _record(model: ModelSpec, shard: int, ids: np.ndarray, spikes: np.ndarray, classes: np.ndarray) -> bytes:
    width = WITNESSES // SHARDS
    bits = np.packbits(spikes[:, shard * width : (shard + 1) * width], axis=1, bitorder="little")
    values = spikes[:, :3].astype(np.float32) if model.readout.target == "values" else None
    targets = Targets.final(classes) if values is None else Targets.final(values)
    return encode_columns(model, codec.Columns.final(shard, shard * width, ids, bits, targets))


def _records(model: ModelSpec, seed: int, chunk: int, data: tuple[np.ndarray, ...]) -> list[bytes]:
    """All pieces in records of up to `chunk` samples, in any order."""
    rng, n = np.random.default_rng(seed), len(data[0])
    order = rng.permutation(n)
    parts = [order[at : at + chunk] for at in range(0, n, chunk)]
    records = [_record(model, shard, *(array[part] for array in data)) for part in parts for shard in range(SHARDS)]
    return [records[k] for k in rng.permutation(len(records))]


@given(
    st.integers(0, 10**6),
    st.integers(1, 90),
    st.integers(1, 30),
    st.lists(st.sampled_from(["add", "add", "again", "solve", "restart"]), max_size=40),
    st.sampled_from([1, 20, 10**6]),
)
@settings(deadline=None, max_examples=60)
def test_any_interleaving_ends_as_one_pass(seed: int, n: int, chunk: int, steps: list[str], most: int) -> None:
    """Counts, D'Y, D'D and the readout: the same bits; a restart loses nothing and doubles nothing."""
    model = _model()
    ids, spikes, classes = data = _data(seed, n)
    records = _records(model, seed, chunk, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dictionary, "COUNT_ROWS", most)  # 1: every row is counted by the stream's thread
        trainer, read = Trainer(model), 0
        for step in [*steps, *["add"] * len(records)]:
            if step == "add" and read < len(records):
                trainer.ingest(records[read])
                read += 1
            elif step == "again" and read:
                trainer.ingest(records[(seed + read) % read])
            elif step == "solve":
                trainer.solve(1, 60)
            elif step == "restart":
                trainer = Trainer(model, trainer.freeze())
    last = Trainer(model, trainer.freeze())
    message, whole = last.solve(1, 60), Trainer(model)
    for record in _records(model, 0, n, data):
        whole.ingest(record)
    expected = whole.solve(1, 60)
    assert message is not None
    assert expected is not None
    ours, theirs = last.freeze(), whole.freeze()
    assert ours.keys() == theirs.keys()
    for name in ours:
        if name != "next_age":
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    for name in ("support", "coefficients", "intercept", "primal", "dual", "rows", "columns", "trained_on"):
        assert getattr(message, name) == getattr(expected, name)
    d, first = spikes.astype(np.int64), np.sort(np.unique(spikes, axis=1, return_index=True)[1])
    assert (ours["sums_gram"] == d[:, first].T @ d[:, first]).all()
    assert (ours["sums_counts"] == d.sum(axis=0)).all()
    assert (ours["sums_cross"] == d.T @ np.eye(3, dtype=np.int64)[classes]).all()
    assert len(ours["ids"]) == 0
    trained_on = IdSet((span.first, span.last) for span in message.trained_on)
    assert len(trained_on) == n
    assert trained_on.contains(ids).all()


@pytest.mark.parametrize(
    ("readout", "rows"),
    [
        ({"half_life": 30}, 200),
        ({"half_life": 30, "loss": "multinomial"}, 200),
        ({"half_life": 2, "loss": "multinomial"}, 40),
        ({"half_life": 30, "target": "values"}, 200),
        ({"class_weight": "balanced"}, 200),
        ({"class_weight": "balanced", "loss": "multinomial"}, 200),
        ({"class_weight": "balanced", "loss": "logistic", "outputs": 1}, 200),
        ({"class_weight": "balanced", "half_life": 30}, 200),
        ({"class_weight": "balanced", "window": 50, "loss": "multinomial"}, 50),
    ],
    ids=str,
)
def test_a_readout_is_the_optimum_of_the_weighted_stream(readout: dict, rows: int) -> None:
    """Certified, and the primal value is that of cvxpy over every row of the stream, weighted by hand."""
    model, n = _model(**readout), 200
    assert parse_model(json.loads(model.spec_json)) == model
    ids, spikes, classes = _data(1, n)
    classes = np.minimum(classes, 1) if "outputs" in readout else classes
    trainer = Trainer(model)
    for at in range(0, n, 10):
        part = slice(at, at + 10)
        for shard in range(SHARDS):
            trainer.ingest(_record(model, shard, ids[part], spikes[part], classes[part]))
        if at % 30 == 0:
            trainer.solve(1, 60)
        if at == 110:
            trainer = Trainer(model, trainer.freeze())
    message = trainer.solve(2, 60)
    assert message is not None
    assert message.solved
    assert (message.rows, message.seen) == (rows, n)
    weights = 0.5 ** (np.arange(n - 1, -1, -1) / readout.get("half_life", np.inf))
    weights[: n - readout.get("window", n)] = 0
    if "class_weight" in readout:
        of_class = np.bincount(classes, weights)
        weights = weights * weights.sum() / (len(of_class) * of_class[classes])
    targets = spikes[:, :3] if "target" in readout else np.eye(3)[classes]
    oracle = solve(
        Samples(
            LOSSES[model.readout.loss],
            BitMatrix.from_dense(spikes),
            classes[:, None].astype(float) if "outputs" in readout else targets.astype(float),
            weights,
        ),
        "group",
        0.05,
        backend="cvxpy",
    )
    forgotten = "half_life" in readout and rows < n  # a millionth of the weight, of rows with a larger loss
    assert message.primal == pytest.approx(oracle.primal, rel=3e-5 if forgotten else 1e-6)
    assert message.beta == pytest.approx(oracle.beta, rel=3e-5 if forgotten else 1e-9)


def test_memory_does_not_grow_with_the_stream() -> None:
    """Ids counted up, in blocks that are solved now and then: what is kept is as large after 40 blocks as after 2."""
    model, trainer, bytes_after = _model(), Trainer(_model()), {}
    for block in range(40):
        ids = np.arange(50 * block, 50 * block + 50, dtype=np.uint64)
        _, spikes, classes = _data(block, 50)
        for shard in range(SHARDS):
            trainer.ingest(_record(model, shard, ids, spikes, classes))
        if block % 2:
            message = trainer.solve(block, 60)
            assert message is not None
            assert message.rows == 50 * (block + 1)
            assert [(span.first, span.last) for span in message.trained_on] == [(0, message.rows - 1)]
            bytes_after[block] = trainer.dictionary.bytes, sum(array.nbytes for array in trainer.freeze().values())
    assert bytes_after[39] == bytes_after[5]


def test_a_snapshot_waits_for_a_count_and_the_stream_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the solver counts rows that it took, they are nowhere; rows still come, and a snapshot has each once."""
    model, data = _model(), _data(0, 60)
    trainer, counting, go_on = Trainer(model), threading.Event(), threading.Event()
    update = Columns.update

    def paused(self: Columns, *changes: object) -> None:
        counting.set()
        assert go_on.wait(60)
        update(self, *changes)  # type: ignore[arg-type]

    def part(chosen: slice) -> None:
        for shard in range(SHARDS):
            trainer.ingest(_record(model, shard, *(array[chosen] for array in data)))

    part(slice(0, 40))
    monkeypatch.setattr(Columns, "update", paused)
    solver = threading.Thread(target=trainer.solve, args=(1, 60))
    solver.start()
    assert counting.wait(60)
    part(slice(40, 60))  # returns while the solver counts
    assert trainer.dictionary.pending == 0
    frozen: list[dict] = []
    snapshot = threading.Thread(target=lambda: frozen.append(trainer.freeze()))
    snapshot.start()
    snapshot.join(0.2)
    assert snapshot.is_alive()
    go_on.set()
    snapshot.join(60)
    solver.join(60)
    (arrays,) = frozen
    assert arrays["sums_rows"] == 40
    assert len(arrays["ids"]) == 20
    restarted = Trainer(model, arrays)
    message = restarted.solve(2, 60)
    assert message is not None
    assert message.rows == 60


def test_a_restart_solves_again_what_was_counted() -> None:
    """The crash may have come before the readout of counted rows was published."""
    model, trainer = _model(), Trainer(_model())
    for record in _records(model, 0, 20, _data(0, 60)):
        trainer.ingest(record)
    assert trainer.fresh == 60
    trainer.solve(1, 60)
    assert trainer.fresh == 0
    assert Trainer(model, trainer.freeze()).fresh == 60

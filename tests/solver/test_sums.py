"""Training from sums: what it ends with is what training from the rows themselves gives, to the bit."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn.bits import BitMatrix
from snn.model import ModelSpec
from snn.readout import encode_targets
from snn.sums import of_rows
from solver_service import columns as columns_module
from solver_service.service import SolverService
from solver_service.settings import SolverSettings
from solver_service.snapshot import SnapshotError
from solver_service.sums_trainer import SumsTrainer
from solver_service.trainer import Trainer
from tests.solver.test_stream import _data, _model, _records
from wire import codec
from wire.connection import KafkaConnection
from wire.idset import IdSet
from wire.reasons import Reason, WireError


def sums_of(model: ModelSpec, ids: np.ndarray, spikes: np.ndarray, classes: np.ndarray) -> list[bytes]:
    """The records of sums over some samples."""
    matrix = BitMatrix.from_dense(spikes)
    sums = of_rows(matrix, ids, encode_targets(classes[:, None], model.readout))
    return list(codec.encode_sums(model, ids, 1, sums, matrix.gram()))


@given(
    st.integers(0, 10**6),
    st.integers(1, 90),
    st.integers(1, 30),
    st.lists(st.sampled_from(["add", "add", "solve", "restart"]), max_size=40),
    st.sampled_from([24, 1024]),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_sums_and_rows_end_in_the_same_readout(
    seed: int, n: int, chunk: int, steps: list[str], band: int, wide: bool
) -> None:
    """Records of all sums in any order, solves and restarts between them; also beyond 32 bits."""
    model, data, rng = _model(), _data(seed, n), np.random.default_rng(seed)
    order = rng.permutation(n)
    parts = [order[at : at + chunk] for at in range(0, n, chunk)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "BAND", band)
        patch.setattr(columns_module, "INT32_ROWS", n // 2 if wide else 2**31)
        records = [record for part in parts for record in sums_of(model, *(array[part] for array in data))]
        records = [records[k] for k in rng.permutation(len(records))]
        trainer = SumsTrainer(model)
        for step in [*steps, *["add"] * len(records)]:
            if step == "add" and records:
                trainer.ingest(records.pop())
            elif step == "solve":
                trainer.solve(1, 60)
            elif step == "restart":
                trainer = SumsTrainer(model, trainer.freeze())
        trainer = SumsTrainer(model, trainer.freeze())
        assert trainer.fresh == n
        rows = Trainer(model)
        for record in _records(model, 0, n, data):
            rows.ingest(record)
        message, expected = trainer.solve(1, 60), rows.solve(1, 60)
        assert message is not None
        assert expected is not None
        ours, theirs = trainer.freeze(), rows.freeze()
    assert not [name for name in ours if name.startswith("waiting")]
    for name in (name for name in theirs if name.startswith("sums_") or name == "seen"):
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    for name in ("support", "coefficients", "intercept", "primal", "dual", "rows", "seen", "columns", "trained_on"):
        assert getattr(message, name) == getattr(expected, name)
    assert trainer.fresh == 0


def test_sums_with_a_known_sample_are_refused_whole() -> None:
    model, (ids, spikes, classes) = _model(), _data(0, 30)
    trainer = SumsTrainer(model)
    for part in (slice(0, 20), slice(19, 30), slice(20, 30)):
        for record in sums_of(model, ids[part], spikes[part], classes[part]):
            if part.start == 19:
                with pytest.raises(WireError, match="counted_twice: expected sums over new samples, got 1 known"):
                    trainer.ingest(record)
            else:
                trainer.ingest(record)
    message = trainer.solve(1, 60)
    assert message is not None
    assert message.rows == 30
    assert len(IdSet((span.first, span.last) for span in message.trained_on)) == 30
    assert (trainer.freeze()["sums_counts"] == spikes.sum(axis=0)).all()


@pytest.mark.parametrize(
    "readout", [{"loss": "multinomial"}, {"window": 9}, {"half_life": 9}, {"relative_beta": "best"}], ids=str
)
def test_a_model_that_needs_rows_is_refused(readout: dict) -> None:
    with pytest.raises(WireError, match="needs_rows"):
        SumsTrainer(_model(**readout))


def test_the_service_reads_rows_for_some_models_and_sums_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters: list[tuple[str, Reason]] = []
    monkeypatch.setattr(
        SolverService, "_dead_letter", lambda self, topic, error, record: letters.append((topic, error.reason))
    )
    data, model = _data(0, 60), _model()
    other = model.model_copy(update={"model": "rows"})
    summed = sums_of(model, *data)
    first = SolverService(SolverSettings(state=tmp_path, gram_models=frozenset({"stream"})), KafkaConnection())
    for one in (model, other):
        first.register(one)
        for record in _records(one, 0, 60, data):
            first.ingest(record)
    assert {name: trainer.fresh for name, trainer in first.trainers.items()} == {"stream": 0, "rows": 60}
    first.save()
    second = SolverService(first.settings, KafkaConnection())
    second.restore()
    for record in [b"\xff", *summed, *summed, *sums_of(model.model_copy(update={"model": "none"}), *data)]:
        second.ingest(record, topic="gram")
    assert letters == [
        ("gram", Reason.NOT_PROTOBUF), ("gram", Reason.COUNTED_TWICE), ("gram", Reason.WRONG_MODEL)
    ]  # fmt: skip
    assert {name: trainer.fresh for name, trainer in second.trainers.items()} == {"stream": 60, "rows": 60}
    second.save()
    for names in (set(), {"stream", "rows"}):
        changed = SolverService(SolverSettings(state=tmp_path, gram_models=frozenset(names)), KafkaConnection())
        with pytest.raises(SnapshotError, match="was trained from"):
            changed.restore()


def test_models_are_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKELOOM_SOLVER_GRAM_MODELS", '["digits", "addition"]')
    assert SolverSettings().gram_models == {"digits", "addition"}

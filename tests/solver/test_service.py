"""The service without a broker: records in, readouts out, restarts that end in the same dictionary."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from snn.model import ModelSpec, parse_model
from solver_service.service import SolverService
from solver_service.settings import SolverSettings
from solver_service.trainer import Trainer
from wire import messages_pb2 as pb
from wire.codec import Columns, decode_readout, encode_columns, encode_readout
from wire.connection import KafkaConnection
from wire.idset import IdSet
from wire.reasons import Reason, WireError
from wire.targets import Targets


def _model(name: str = "tiny", **readout: object) -> ModelSpec:
    return parse_model(
        {
            "model": name,
            "input": {"timesteps": 4, "features": 4},
            "witnesses": {"law": {"name": "gaussian"}, "count": 64, "shards": 2},
            "readout": {"outputs": 3, "relative_beta": 0.05, **readout},
        }
    )


def _records(model: ModelSpec, n: int = 120, batch: int = 16) -> list[bytes]:
    rng = np.random.default_rng(0)
    spikes = rng.integers(0, 2, (n, 64), np.uint8)
    classes = ((spikes[:, 0] + spikes[:, 1]) % (2 if model.readout.loss == "logistic" else 3)).astype(np.int32)
    values = spikes[:, :3].astype(np.float32) if model.readout.target == "values" else None
    records = []
    for at in range(0, n, batch):
        for shard in range(2):
            bits = np.packbits(spikes[at : at + batch, 32 * shard : 32 * shard + 32], axis=1, bitorder="little")
            rows = slice(at, at + batch)
            targets = Targets.final(classes[rows]) if values is None else Targets.final(values[rows])
            ids = np.arange(at, at + len(bits), dtype=np.uint64)
            records.append(encode_columns(model, Columns.final(shard, 32 * shard, ids, bits, targets)))
    return records


@pytest.mark.parametrize(
    "readout",
    [
        {},
        {"penalty": "l1"},
        {"loss": "multinomial"},
        {"loss": "logistic", "outputs": 1},
        {"target": "values"},
        {"window": 50},
    ],
    ids=str,
)
def test_readout_is_certified_and_says_what_it_saw(readout: dict) -> None:
    model = _model(**readout)
    trainer = Trainer(model)
    assert trainer.solve(1, 60) is None
    for record in _records(model):
        trainer.ingest(record)
    trainer.ingest(_records(model)[0])
    message = trainer.solve(1, 60)
    assert message is not None
    message = decode_readout(encode_readout(message))
    rows = readout.get("window", 120)
    assert message.solved
    assert message.relative_gap <= 1e-6
    assert (message.rows, message.seen, message.version, message.digest) == (rows, 120, 1, model.digest)
    assert len(IdSet((span.first, span.last) for span in message.trained_on)) == rows
    assert list(message.support) == sorted(message.support)
    w = np.frombuffer(message.coefficients).reshape(-1, message.outputs)
    assert w.any(axis=1).all()
    again = trainer.solve(2, 60)
    assert again is not None
    assert again.primal == pytest.approx(message.primal, rel=1e-6)


def test_a_readout_says_that_it_was_trained_on_a_sample() -> None:
    model = _model(loss="multinomial")
    trainer = Trainer(model, budget=5000)
    for record in _records(model):
        trainer.ingest(record)
    message = trainer.solve(1, 60)
    assert message is not None
    message = decode_readout(encode_readout(message))
    assert 10 < message.rows == trainer.dictionary.rows < message.seen == 120
    assert message.solved
    # a sequence that came may be in the sample: none of them counts for test-then-train
    assert [(span.first, span.last) for span in message.trained_on] == [(0, 119)]


def test_readouts_of_before_the_field_are_accepted() -> None:
    old = pb.Readout(model="tiny", version=3, outputs=1, intercept=bytes(8), rows=7)
    assert decode_readout(encode_readout(old)).seen == 0


@pytest.fixture
def service(tmp_path: Path) -> SolverService:
    return SolverService(SolverSettings(state=tmp_path), KafkaConnection())


def test_restart_ends_in_the_identical_dictionary(service: SolverService, tmp_path: Path) -> None:
    model = _model(window=70)
    records = _records(model)
    service.register(model)
    for record in records:
        service.ingest(record)
    whole = service.trainers["tiny"].freeze()

    first = SolverService(SolverSettings(state=tmp_path / "b"), KafkaConnection())
    first.register(model)
    for offset, record in enumerate(records[:7]):
        first.ingest(record)
        if offset == 4:
            first.offsets["spike-columns"][0] = offset + 1
            first.versions["tiny"] = 9
            first.save()
    second = SolverService(SolverSettings(state=tmp_path / "b"), KafkaConnection())  # records 5 and 6 were not saved
    second.restore()
    assert second.versions == {"tiny": 9}
    for record in records[second.offsets["spike-columns"][0] :]:
        second.ingest(record)
    for name, array in whole.items():
        np.testing.assert_array_equal(array, second.trainers["tiny"].freeze()[name])


def test_poison_is_a_dead_letter_and_stops_nothing(service: SolverService, monkeypatch: pytest.MonkeyPatch) -> None:
    letters: list[Reason] = []
    monkeypatch.setattr(service, "_dead_letter", lambda topic, error, record: letters.append(error.reason))
    model = _model()
    good = _records(model)
    other = _records(_model(relative_beta=0.5))
    service.ingest(good[0])  # no such model yet
    service.register(model)
    unlabelled = pb.SpikeColumns.FromString(good[0])
    unlabelled.ClearField("classes")
    cut = pb.SpikeColumns.FromString(good[0])
    cut.spikes = cut.spikes[:-1]
    for record in (b"\xff\xff", other[0], unlabelled.SerializeToString(), cut.SerializeToString(), *good):
        service.ingest(record)
    assert letters == [
        Reason.WRONG_MODEL,
        Reason.NOT_PROTOBUF,
        Reason.WRONG_MODEL,
        Reason.BAD_TARGET,
        Reason.WRONG_SHAPE,
    ]
    assert service.trainers["tiny"].dictionary.rows == 120


def test_a_window_that_does_not_fit_is_refused(service: SolverService, tmp_path: Path) -> None:
    small = SolverService(SolverSettings(state=tmp_path, rows_mib=1), KafkaConnection())
    model = _model(window=100_000)
    with pytest.raises(WireError, match=r"too_large: readout.window: expected at most [\d,]+ samples .*got 100,000"):
        small.register(model)
    assert small.trainers == {}
    service.register(model)
    service.save()
    with pytest.raises(WireError, match="too_large"):
        small.restore()


def test_a_changed_model_starts_again(service: SolverService) -> None:
    service.register(_model())
    service.ingest(_records(_model())[0])
    service.register(_model())
    assert service.trainers["tiny"].dictionary.pending == 16
    service.register(_model(relative_beta=0.5))
    assert service.trainers["tiny"].dictionary.pending == 0
    with pytest.raises(WireError, match="expected columns of tiny"):
        service.trainers["tiny"].ingest(_records(_model())[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_models_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """However fast rows of a model arrive, the others are solved as often; and never one model twice at a time."""
    settings = SolverSettings(state=tmp_path, threads=threads, every_rows=1, every_seconds=1e-6)
    service, names = SolverService(settings, KafkaConnection()), ["a", "b", "c"]
    for name in names:
        service.register(_model(name))
        for record in _records(service.trainers[name].model):
            service.ingest(record)
    begun: list[str] = []
    at_once: list[int] = []
    running: set[str] = set()
    lock = threading.Lock()

    def solve(name: str) -> None:  # never trained: all three stay due
        with lock:
            assert name not in running
            running.add(name)
            begun.append(name)
            at_once.append(len(running))
        time.sleep(0.01)
        with lock:
            running.remove(name)

    monkeypatch.setattr(service, "_solve", solve)
    while len(begun) < 30:
        service._solve_due()
    assert max(at_once) == threads
    assert set(begun) == set(names)
    if threads == 1:  # else one that solves for long may begin less often
        assert begun[:30] == names * 10

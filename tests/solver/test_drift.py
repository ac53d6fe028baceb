"""A model that forgets on drift: a changed rule empties the window of older rows, an unchanged one never does."""

import numpy as np
import pytest

from snn.model import ModelError
from solver_service.drift import Drift
from solver_service.trainer import Trainer
from tests.models import small_model
from tests.solver.test_service import encode_columns
from wire.codec import Columns, pack
from wire.targets import Targets

P, PORTION = 64, 60


def model_of(**readout: object):
    witnesses = {"law": {"name": "gaussian"}, "count": P}
    return small_model(witnesses=witnesses, readout={"outputs": 3, "window": 1000, "relative_beta": 0.05, **readout})


def portions(seed: int, changes: tuple[int, ...], count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(spikes, classes) whose classes depend on other columns from each of `changes` on; a tenth are at random."""
    rng, rule, made = np.random.default_rng(seed), 0, []
    for number in range(count):
        rule += number in changes
        spikes = rng.integers(0, 2, (PORTION, P)).astype(bool)
        classes = spikes[:, 2 * rule].astype(int) + spikes[:, 2 * rule + 1]
        classes[: PORTION // 10] = rng.integers(0, 3, PORTION // 10)
        made.append((spikes, classes.astype(np.int32)))
    return made


def rows_after_each(model, data: list[tuple[np.ndarray, np.ndarray]]) -> list[int]:
    trainer, rows = Trainer(model), []
    for number, (spikes, classes) in enumerate(data):
        ids = np.arange(number * PORTION, (number + 1) * PORTION, dtype=np.uint64)
        trainer.ingest(encode_columns(model, Columns.final(0, 0, ids, pack(spikes), Targets.final(classes))))
        message = trainer.solve(number + 1, 60)
        assert message is not None
        assert message.solved
        rows.append(message.rows)
    return rows


@pytest.mark.parametrize("loss", ["squared", "multinomial"])
def test_older_rows_go_when_the_rule_changes(loss: str) -> None:
    data = portions(0, (8, 16), 24)
    kept = rows_after_each(model_of(loss=loss, on_drift="forget"), data)
    assert kept == [PORTION * (at % 8 + 1) for at in range(24)]
    assert rows_after_each(model_of(loss=loss), data)[-1] == 1000


def test_nothing_goes_while_the_rule_stays() -> None:
    for seed in range(5):
        assert rows_after_each(model_of(on_drift="forget"), portions(seed, (), 16))[-1] == 16 * PORTION


def test_few_rows_prove_nothing() -> None:
    drift = Drift()
    assert not any(drift.happened(1, 100) for _ in range(10))
    assert not drift.happened(1, 1)
    assert not drift.happened(4, 100)
    assert drift.happened(60, 100)
    assert not drift.happened(60, 100), "the readout of few rows is still learning"


def test_it_needs_a_window_of_classes() -> None:
    with pytest.raises(ModelError, match="on_drift needs target: class and a window"):
        model_of(on_drift="forget", window=None)

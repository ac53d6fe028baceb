"""Beta chosen by the stream itself: which rows choose, and that the readout is that of the beta they chose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snn.bits import BitMatrix
from snn.model import ModelSpec, parse_model
from solver_service.fit import Samples
from solver_service.held_out import FEWEST, FIRST, is_held_out
from solver_service.losses import LOSSES
from solver_service.path import warm_path
from solver_service.solvers import solve
from solver_service.trainer import Trainer
from wire import messages_pb2 as pb
from wire.codec import Columns, encode_columns
from wire.idset import IdSet
from wire.targets import Targets

WITNESSES = 40


def model(**readout: object) -> ModelSpec:
    return parse_model(
        {
            "model": "held",
            "input": {"timesteps": 4, "features": 4},
            "witnesses": {"law": {"name": "gaussian"}, "count": WITNESSES},
            "readout": {"outputs": 3, "relative_beta": "best", **readout},
        }
    )


def data(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ids [n], spikes [n, WITNESSES] with neither duplicates nor constants among the columns, classes [n]: noisy."""
    rng = np.random.default_rng(n)
    spikes = rng.random((n, WITNESSES)) < 0.4
    classes = (spikes[:, :3].sum(axis=1) + (rng.random(n) < 0.3) * rng.integers(0, 3, n)) % 3
    return rng.permutation(5 * n)[:n].astype(np.uint64), spikes, classes.astype(np.int32)


def record(spec: ModelSpec, ids: np.ndarray, spikes: np.ndarray, classes: np.ndarray) -> bytes:
    bits = np.packbits(spikes, axis=1, bitorder="little")
    return encode_columns(spec, Columns.final(0, 0, ids, bits, Targets.final(classes)))


def trained_on(message: pb.Readout) -> IdSet:
    return IdSet((span.first, span.last) for span in message.trained_on)


@given(st.integers(0, 2**63))
def test_a_tenth_is_held_out(first: int) -> None:
    ids = np.uint64(first) + np.arange(20_000, dtype=np.uint64)
    assert 0.085 < is_held_out(ids).mean() < 0.115


@pytest.mark.parametrize("rule", ["best", "sparsest"])
@pytest.mark.parametrize("loss", ["squared", "multinomial"])
def test_the_readout_is_that_of_the_beta_which_held_out_rows_choose(loss: str, rule: str) -> None:
    spec, n = model(loss=loss, relative_beta=rule), 1500
    ids, spikes, classes = data(n)
    trainer = Trainer(spec)
    for at in range(0, n, 100):
        part = slice(at, at + 100)
        trainer.ingest(record(spec, ids[part], spikes[part], classes[part]))
        if at == 700:
            trainer = Trainer(spec, trainer.freeze())  # a restart keeps both kinds of rows
    trainer.ingest(record(spec, ids[:100], spikes[:100], classes[:100]))
    message = trainer.solve(1, 60)
    assert message is not None
    assert message.solved
    held = is_held_out(ids)
    assert held.sum() >= FEWEST
    seen = trained_on(message)
    assert (seen.contains(ids) == ~held).all()
    assert message.rows == message.seen == (~held).sum()

    def samples(rows: np.ndarray) -> Samples:
        return Samples(LOSSES[loss], BitMatrix.from_dense(spikes[rows]), np.eye(3)[classes[rows]])

    path = warm_path(samples(~held), samples(held), "group")
    beta = float(path.relative_betas[path.chosen(rule)])
    oracle = solve(samples(~held), "group", beta, 1e-9)
    assert message.beta == pytest.approx(oracle.beta, rel=1e-9)
    assert message.primal == pytest.approx(oracle.primal, abs=2e-6)


def test_few_rows_choose_nothing_and_the_choice_lasts_until_there_are_twice_as_many() -> None:
    spec, n = model(), 3000
    ids, spikes, classes = data(n)
    trainer, betas = Trainer(spec), []
    for rows in (slice(0, 60), slice(60, 1000), slice(1000, 1100), slice(1100, 3000)):
        trainer.ingest(record(spec, ids[rows], spikes[rows], classes[rows]))
        message = trainer.solve(len(betas) + 1, 60)
        assert message is not None
        so_far = np.arange(rows.stop)[~is_held_out(ids[: rows.stop])]
        fit = Samples(LOSSES["squared"], BitMatrix.from_dense(spikes[so_far]), np.eye(3)[classes[so_far]])
        betas.append(message.beta / solve(fit, "group", 1.0).beta)
    assert betas[0] == pytest.approx(FIRST, rel=1e-6)
    assert betas[1] > 2 * FIRST  # the labels are noisy: much of the dictionary is of no use
    assert betas[2] == pytest.approx(betas[1], rel=1e-6)
    assert betas[3] == pytest.approx(betas[1], rel=1e-6) or betas[3] < betas[1]  # more rows bear a smaller penalty


@pytest.mark.parametrize("penalty", ["ridge", "none"])
def test_penalties_that_keep_every_column(penalty: str) -> None:
    spec = model(penalty=penalty, relative_beta=0.1)
    ids, spikes, classes = data(400)
    trainer = Trainer(spec)
    trainer.ingest(record(spec, ids, spikes, classes))
    message = trainer.solve(1, 60)
    assert message is not None
    assert message.solved
    assert len(message.support) == WITNESSES

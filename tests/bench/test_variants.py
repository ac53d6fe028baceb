"""The five variants on a task that some of them solve: each does what its name says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.paper import relayed
from bench.variants import Rows, Trained, cvx, likeliest, sg, sg_by_portions, spikes_of
from snn import lif
from snn.laws import Gaussian
from snn.network import Network
from snn.training.local import deal
from snn.training.on_grid import is_exact
from snn.training.spec import TrainingSpec
from spikeloom.tasks.sequences import addition, first_last_xor

TRAINING = TrainingSpec(rounds=60, local_steps=1, learning_rate=0.03)


def xor(count: int, seed: int) -> Rows:
    data = first_last_xor(count, 3, seed)
    return Rows.of(data.inputs, data.targets, 2)


def sampled(rows: Rows, count: int = 32) -> Network:
    return Gaussian().sample(1, range(count), rows.grid.timesteps, rows.grid.features)


@pytest.fixture(scope="module")
def trained() -> Trained:
    rows = xor(256, 0)
    return sg(sampled(rows), rows, TRAINING)


def same(one: Network, other: Network) -> bool:
    return all(
        torch.equal(a, b) for mine, its in zip(one, other, strict=True) for a, b in zip(mine[:4], its[:4], strict=True)
    )


def test_the_variants_feed_each_other(trained: Trained) -> None:
    rows, held_out = xor(256, 0), xor(128, 1)
    assert not same(trained.network, sampled(rows))
    frozen = cvx(trained, rows, 1e-3)
    assert frozen.relative_gap is not None
    assert frozen.relative_gap <= 1e-6
    assert frozen.accuracy(held_out) >= trained.accuracy(held_out) - 0.1
    fewer = TRAINING.model_copy(update={"rounds": 5, "learning_rate": 1e-4})
    for start in (trained, cvx(sampled(rows), rows, 1e-3)):
        tuned = sg(start, rows, fewer)
        assert not same(tuned.network, start.network)
        torch.testing.assert_close(tuned.readout, start.readout, rtol=0, atol=5e-3)  # it went on from there


def test_training_learns_and_repeats(trained: Trained) -> None:
    rows = xor(256, 0)
    untrained = sg(sampled(rows), rows, TRAINING.model_copy(update={"learning_rate": 1e-9}))
    assert trained.accuracy(rows) > untrained.accuracy(rows) + 0.1
    again = sg(sampled(rows), rows, TRAINING)
    assert same(again.network, trained.network)
    assert torch.equal(again.readout, trained.readout)


def test_heads_and_timesteps() -> None:
    """Base 2 with the carry as input is memoryless: every token, digit and carry, from 64 hidden neurons."""
    data = addition(200, 2, 4, seed=0)
    rows = Rows.of(data.inputs, data.targets, 2, 2)
    network = sampled(rows, 64)
    solved = cvx(network, rows, 1e-4)
    spikes = spikes_of(solved.network, rows)
    assert torch.equal(
        spikes, lif.roll_out(rows.inputs, lif.initial_state(solved.network, 200), solved.network, True).spikes
    )
    assert solved.readout.shape == (64, 4)
    by_hand = spikes.float() @ solved.readout + solved.intercept
    both = (by_hand[..., :2].argmax(-1).numpy() == data.targets[..., 0]) & (
        by_hand[..., 2:].argmax(-1).numpy() == data.targets[..., 1]
    )
    assert solved.accuracy(rows) == pytest.approx(np.mean(both))
    assert sg(network, rows, TRAINING).accuracy(rows) > 0.4


def test_a_class_without_rows_is_refused() -> None:
    rows = xor(64, 0)
    with pytest.raises(ValueError, match="expected rows of all 3 classes"):
        cvx(sampled(rows), rows._replace(outputs=(3,)), 1e-3)


def test_portions_are_one_training_in_pieces() -> None:
    rows = xor(128, 0)
    training = TRAINING.model_copy(update={"rounds": 6})
    order = deal(128, 6, training.batch, training.seed)
    whole = sg(sampled(rows), rows, training)
    *_, last = pieces = list(sg_by_portions(sampled(rows), rows, training, np.split(order, [1, 3])))
    assert len(pieces) == 3
    assert same(last.network, whole.network)
    assert torch.equal(last.readout, whole.readout)


@pytest.mark.parametrize("exact", [True, False])
def test_the_carry_that_goes_in_is_the_one_that_came_out(exact: bool) -> None:
    """Beside the whole sequence answered again from its start at every timestep, with the carries said so far."""
    data = addition(40, 3, 4, seed=0)
    rows = Rows.of(data.inputs, data.targets, 3, 2)
    solved = cvx(sampled(rows, 24), rows, 1e-2)
    if not exact:
        off_grid = solved.network[0]._replace(weights=solved.network[0].weights + 1e-4)
        solved = solved._replace(network=(off_grid,))
    heard, right = rows.inputs.clone(), []
    for t in range(4):
        said = likeliest(solved.scores(rows._replace(inputs=heard)), rows)[:, t]
        right.append((said == data.targets[:, t]).all(axis=1))
        if t < 3:
            heard[:, t + 1, 2] = torch.from_numpy(said[:, 1])
    assert np.array_equal(solved.right_with_own_carry(rows), np.stack(right, axis=1))
    assert not np.array_equal(heard, rows.inputs)  # it was wrong somewhere, and went on from there


@given(st.integers(0, 2**32), st.integers(1, 5), st.sampled_from([(), (3,)]))
@settings(max_examples=20, deadline=None)
def test_relays_copy_every_spike_at_once(seed: int, more: int, widths: tuple[int, ...]) -> None:
    rows = xor(16, seed)._replace(classes=np.zeros((16, 3, 1), np.int64))
    network = Gaussian(widths=widths, threshold=0.25, leak=0.5).sample(seed, range(8), 3, 1)
    deeper = relayed(network, len(network) + more)
    assert len(deeper) == len(network) + more
    assert is_exact(deeper, rows.grid, 8)
    assert torch.equal(spikes_of(deeper, rows), spikes_of(network, rows))

"""Trained weights on the grid: exact whatever they were, and the same network but for rounding."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn import fused, lif
from snn.model import InputSpec
from snn.network import Network
from snn.training.on_grid import is_exact, on_grid
from tests.snn.cases import random_network

GRID = InputSpec(timesteps=6, features=5)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    widths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    network = random_network(draw(st.integers(0, 2**20)), 5, widths, draw(st.integers(1, 5)), draw(st.booleans()))
    largest = 2.0 ** draw(st.integers(-12, 12))  # far below and far above what the grid holds
    return tuple(
        layer._replace(
            weights=layer.weights * largest,
            bias=layer.bias * largest,
            threshold=layer.threshold * largest,
            recurrent=None if layer.recurrent is None else layer.recurrent * largest,
        )
        for layer in network
    )


def inputs(seed: int) -> torch.Tensor:
    codes = np.random.default_rng(seed).integers(0, 257, (9, GRID.timesteps, GRID.features))
    return torch.tensor(codes / 256, dtype=torch.float32)


@given(networks(), st.integers(0, 100))
@settings(deadline=None)
def test_every_network_becomes_exact(network: Network, seed: int) -> None:
    put = on_grid(network, GRID, 8)
    assert is_exact(put, GRID, 8)
    x = inputs(seed)
    expected = lif.roll_out(x, lif.initial_state(put, len(x)), put)
    assert torch.equal(fused.roll_out(x, lif.initial_state(put, len(x)), put).spikes, expected.spikes)
    wide = tuple(layer._replace(weights=layer.weights.double(), bias=layer.bias.double()) for layer in put)
    product = x.double() @ wide[0].weights + wide[0].bias
    assert torch.equal((x @ put[0].weights + put[0].bias).double(), product), "a current of the first layer was rounded"


@given(networks(), st.integers(0, 100))
@settings(deadline=None)
def test_only_rounding_changes_a_network(network: Network, seed: int) -> None:
    """With a grid so fine that nothing is rounded, the spikes are those of the network as it was."""
    coarse = tuple(
        layer._replace(weights=torch.round(layer.weights * 2**4) / 2**4, bias=torch.round(layer.bias * 2**4) / 2**4)
        for layer in random_network(seed, 5, [2, 1], 3, recurrent=False)
    )
    put, x = on_grid(coarse, GRID, 8), inputs(seed)
    before, after = (lif.roll_out(x, lif.initial_state(n, len(x)), n, every_step=True) for n in (coarse, put))
    assert torch.equal(before.spikes, after.spikes)


def test_what_lies_off_the_grid_or_beyond_the_bound_is_not_exact() -> None:
    put = on_grid(random_network(1, 5, [2, 1], 3, recurrent=True), GRID, 8)
    (first, second) = put
    assert not is_exact((first._replace(bias=first.bias + 2**-9), second), GRID, 8)
    assert not is_exact((first._replace(weights=first.weights + 256), second), GRID, 8)
    assert not is_exact((first, second._replace(recurrent=second.recurrent * 2.0**16)), GRID, 8)

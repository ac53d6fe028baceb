"""Networks and inputs that the tests of every backend draw from, and what it is for two results to be the same."""

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from snn.lif import RollOut
from snn.network import Layer, Network

Case = tuple[Tensor, Network]


def one_neuron(leak: float, threshold: float, weight: float = 1.0, bias: float = 0.0) -> Network:
    parts = ([[weight]], [bias], [leak], [threshold])
    return (Layer(*(torch.tensor(part, dtype=torch.float32) for part in parts)),)


@st.composite
def cases(draw: st.DrawFn, batch: int = 20, steps: int = 12, subnetworks: int = 40) -> Case:
    """Up to so many sequences, timesteps and subnetworks, on grids of 1/4 where ties at zero are common. Some have a
    trunk, of layers in groups of neurons."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(1, batch)), draw(st.integers(1, steps)), draw(st.integers(1, 9))
    count = draw(st.integers(1, subnetworks))
    widths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=10))

    def grid(*shape: int) -> Tensor:
        return torch.tensor(rng.integers(-8, 9, shape) / 4, dtype=torch.float32)

    groups = draw(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 4)), max_size=3))
    layers, below = [], shape[2]
    for number, (parts, width) in enumerate(groups + [(count, width) for width in widths]):
        n = parts * width
        weights = grid(below, n) if number <= len(groups) else grid(count, below, width)
        leak = torch.tensor(rng.choice([0, 0.5, 0.9, 1], n), dtype=torch.float32)
        threshold = torch.tensor(rng.choice([0, 0.25, 1, 3.3], n), dtype=torch.float32)
        recurrent = grid(parts, width, width) if draw(st.booleans()) else None
        layers.append(Layer(weights, grid(n), leak, threshold, recurrent))
        below = n if number < len(groups) else width
    inputs = grid(*shape) * torch.tensor(rng.random(shape) < draw(st.sampled_from([0.05, 0.7, 1])))
    if draw(st.booleans()):
        inputs[0, 0, 0] = 9000.25  # a code of the grid that 16 bits do not hold
    return inputs, tuple(layers)


def assert_same_bits(got: RollOut, expected: RollOut) -> None:
    assert torch.equal(got.spikes, expected.spikes)
    for mine, theirs in ((got.state, expected.state), (got.active, expected.active)):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))

"""The complete dictionary: nothing that weights can do is missing, and every witness does what it stands for.

Oracles that share nothing with the cones: random weights on coarse grids (ties are common there), every breakpoint of a
neuron of one weight, and Cover's count of linear dichotomies.
"""

from fractions import Fraction
from functools import partial
from itertools import pairwise, product
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn.exact import Exact, Hidden, exact, fired
from tests.models import drawn_network

LEAKS = st.sampled_from([0.0, 0.5, 0.75, 1.0])


def column_set(columns: np.ndarray) -> set[bytes]:
    return {column.tobytes() for column in np.ascontiguousarray(columns.T)}


def assert_complete(x: np.ndarray, layers: list[Hidden], every_step: bool, seed: int, count: int = 3000) -> Exact:
    found = exact(x, layers, every_step)
    assert np.array_equal(fired(x, found.network, layers[-1].width, every_step), found.columns)
    assert len(column_set(found.columns)) == found.columns.shape[1]
    assert all((layer.threshold > 0).all() for layer in found.network)
    rng = np.random.default_rng(seed)
    other = drawn_network(count, layers, x.shape[2], partial(rng.integers, -3, 4), partial(rng.integers, 1, 4))
    assert column_set(fired(x, other, layers[-1].width, every_step)) <= column_set(found.columns)
    return found


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(2, 5), st.integers(1, 4), st.integers(1, 2)),
    LEAKS,
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_random_weights_never_find_a_column_of_one_neuron_that_is_missing(
    seed: int, shape: tuple[int, int, int], leak: float, bias: bool, recurrent: bool, every_step: bool
) -> None:
    x = np.random.default_rng(seed).integers(-2, 3, shape) / 2
    assert_complete(x, [Hidden(1, leak, bias, recurrent)], every_step, seed)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), LEAKS, st.booleans(), st.booleans())
def test_nor_of_neurons_that_hear_each_other(seed: int, leak: float, bias: bool, every_step: bool) -> None:
    x = np.random.default_rng(seed).integers(-1, 2, (2, 3, 1))
    assert_complete(x, [Hidden(2, leak, bias, recurrent=True)], every_step, seed)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32), st.tuples(LEAKS, LEAKS), st.tuples(st.booleans(), st.booleans()), st.booleans())
def test_nor_of_two_layers(
    seed: int, leaks: tuple[float, float], recurrent: tuple[bool, bool], every_step: bool
) -> None:
    x = np.random.default_rng(seed).integers(-1, 2, (2, 3, 1))
    layers = [Hidden(2, leaks[0], True, recurrent[0]), Hidden(1, leaks[1], True, recurrent[1])]
    assert_complete(x, layers, every_step, seed)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("samples", "features"), [(5, 1), (6, 2), (6, 3), (7, 2)])
def test_one_timestep_without_leak_has_covers_number_of_dichotomies(samples: int, features: int, bias: bool) -> None:
    """Cover 1965: 2 sum_{k<d} C(N-1, k) for N points in general position and d free parameters, plus, without a bias,
    w = 0, where every sample is at the threshold and fires."""
    x = np.random.default_rng(samples).integers(-999, 1000, (samples, 1, features)) / 64
    count = 2 * sum(comb(samples - 1, k) for k in range(features + bias))
    columns = exact(x, [Hidden(bias=bias)]).columns
    all_fire = columns.all(axis=0).sum()
    assert all_fire == 1
    positive = exact(np.concatenate([x, np.ones_like(x[..., :1])], axis=2), [Hidden(bias=False)]).columns
    assert columns.shape[1] == count or (not bias and columns.shape[1] == count + 1)
    if bias:
        assert column_set(positive) == column_set(columns)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 4), LEAKS, st.booleans())
def test_a_neuron_of_one_weight_has_the_columns_of_every_breakpoint(
    seed: int, samples: int, steps: int, leak: float, every_step: bool
) -> None:
    """u = A w - theta c, and c has a value for each history: between and on all c / A, by fractions."""
    x = np.random.default_rng(seed).integers(-4, 5, (samples, steps, 1))
    decay, breaks = Fraction(leak), {Fraction(0)}
    for row in x[:, :, 0].tolist():
        for history in product((0, 1), repeat=steps - 1):
            a, c = Fraction(0), Fraction(1)
            for value, last in zip(row, (0, *history), strict=True):
                a, c = decay * a + value, decay * c + last
                if a:
                    breaks.add(c / a)
    ordered = sorted(breaks)
    middle = [(low + high) / 2 for low, high in pairwise(ordered)]
    columns = set()
    for w in [*ordered, *middle, ordered[0] - 1, ordered[-1] + 1]:
        column = []
        for row in x[:, :, 0].tolist():
            u, spike = Fraction(-1), 0
            fires = []
            for value in row:
                u = decay * u + w * value - spike
                spike = int(u >= 0)
                fires.append(spike)
            column += fires if every_step else fires[-1:]
        columns.add(np.array(column, np.bool_).tobytes())
    found = exact(x, [Hidden(leak=leak, bias=False)], every_step)
    assert column_set(found.columns) == columns


def test_columns_that_exist_on_a_boundary_alone() -> None:
    """Without leak, bias or memory x = 1 and x = -1 fire together at w = 0 only."""
    x = np.array([[[1.0]], [[-1.0]]])
    found = exact(x, [Hidden(bias=False)])
    assert sorted(found.columns.T.tolist()) == [[False, True], [True, False], [True, True]]
    both = found.columns.all(axis=0)
    assert found.network[0].weights[0, torch.from_numpy(both)].tolist() == [0.0]


def test_a_leaky_neuron_by_hand() -> None:
    """x = 1 at every step, leak 1, no bias: u[t] = t w - theta (1 + spikes so far), so it has fired floor(t w / theta)
    times, at most once a step. With w >= theta it fires at once and ever after; below, at t = 3 for w in [1/3, 1/2)
    and [2/3, 1)."""
    found = exact(np.ones((1, 3, 1)), [Hidden(leak=1.0, bias=False)], every_step=True)
    trains = {"".join(str(int(spike)) for spike in column) for column in found.columns.T}
    assert trains == {"000", "001", "010", "011", "111"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inputs": np.zeros((2, 3))}, r"inputs: expected finite numbers \[N, T, m\].*got \[2, 3\]"),
        ({"inputs": np.full((1, 1, 1), 0.1)}, "inputs: expected numbers that float32 holds"),
        ({"layers": []}, "layers: expected at least one"),
        ({"layers": [Hidden(leak=1.5)]}, r"a leak in \[0, 1\]"),
        ({"layers": [Hidden(width=2)]}, "layers: expected width 1 at the top"),
    ],
)
def test_refuses(change: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        exact(**({"inputs": np.zeros((1, 1, 1)), "layers": [Hidden()]} | change))

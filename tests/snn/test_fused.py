"""The fused CPU kernel gives the reference's bits however its work is cut; its machine code rounds where it must."""

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snn import fused, lif
from snn.engine import advance, final_spikes, on_device, resting
from snn.lif import State
from snn.network import Layer
from tests.models import small_model
from tests.snn.cases import Case, assert_same_bits, cases, one_neuron
from tests.snn.laws import LAWS


@settings(max_examples=60, deadline=None)
@given(cases(), st.booleans(), st.booleans())
def test_fused_gives_the_bits_of_the_reference(case: Case, every_step: bool, prepared: bool) -> None:
    inputs, network = case
    state = lif.initial_state(network, len(inputs))
    expected = lif.roll_out(inputs, state, network, every_step)
    ready = fused.Prepared(network) if prepared else network
    assert_same_bits(fused.roll_out(inputs, state, ready, every_step), expected)


@settings(max_examples=40, deadline=None)
@given(cases(), st.data())
def test_chunks_of_time_and_batch_change_no_bit(case: Case, data: st.DataObject) -> None:
    inputs, network = case
    batch, steps, _ = inputs.shape
    ready = fused.Prepared(network)
    whole = fused.roll_out(inputs, lif.initial_state(network, batch), ready, every_step=True)
    first = data.draw(st.integers(0, batch - 1))
    rows = slice(first, data.draw(st.integers(first + 1, batch)))
    cuts = data.draw(st.sets(st.integers(1, steps))) | {steps}
    state: State = lif.initial_state(network, len(inputs[rows]))
    start = 0
    for end in sorted(cuts):
        before = tuple(u.clone() for u in state)
        result = fused.roll_out(inputs[rows, start:end], state, ready, every_step=True)
        assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True)), "the state given was changed"
        assert torch.equal(result.spikes, whole.spikes[rows, start:end])
        state, start = result.state, end
    assert all(torch.equal(u, w[rows]) for u, w in zip(state, whole.state, strict=True))


@settings(max_examples=20, deadline=None)
@given(cases(batch=7, steps=5), st.integers(1, 60))
def test_the_trunk_may_be_stepped_for_a_few_sequences_at_a_time(case: Case, spikes: int) -> None:
    inputs, network = case
    state = lif.initial_state(network, len(inputs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "TRUNK_SPIKES", spikes)
        assert_same_bits(fused.roll_out(inputs, state, network, True), lif.roll_out(inputs, state, network, True))


def test_a_trunk_without_subnetworks_is_stepped() -> None:
    model = small_model(witnesses={"law": {"name": "stored_taps"}, "count": 8})
    network = model.network([])
    inputs, state = torch.ones(3, 8, 9), lif.initial_state(network, 3)
    assert_same_bits(fused.roll_out(inputs, state, network), lif.roll_out(inputs, state, network))


def random_grid(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.tensor(rng.integers(-128, 129, shape) / 256, dtype=torch.float32)


@pytest.mark.parametrize(("subnetworks", "widths"), [(2500, [1]), (600, [3, 2, 1])])
@pytest.mark.parametrize("features", [1, 28, 401])
def test_more_tiles_and_chunks_than_one(subnetworks: int, widths: list[int], features: int) -> None:
    rng, layers, below = np.random.default_rng(0), [], features
    for number, width in enumerate(widths):
        n = subnetworks * width
        shape = (subnetworks, below, width) if number else (below, n)
        neuron = random_grid(rng, n), torch.full((n,), 0.9), torch.ones(n)
        layers.append(Layer(random_grid(rng, *shape), *neuron, random_grid(rng, subnetworks, width, width)))
        below = width
    network = tuple(layers)
    inputs = random_grid(rng, 3, 31, features)
    state = lif.initial_state(network, 3)
    assert_same_bits(fused.roll_out(inputs, state, network), lif.roll_out(inputs, state, network))


def test_numbers_on_no_common_grid_are_refused() -> None:
    network = one_neuron(1, 1)
    state = lif.initial_state(network, 1)
    with pytest.raises(ValueError, match="inputs: expected currents below 2\\^24"):
        fused.roll_out(torch.full((1, 1, 1), 2.0**24), state, network)
    with pytest.raises(ValueError, match="inputs: expected currents below 2\\^24"):
        fused.roll_out(torch.full((1, 1, 1), 2.0**-40), state, network)
    recurrent = network[0]._replace(recurrent=torch.full((1, 1, 1), 2.0**24))
    with pytest.raises(ValueError, match="layer 1: expected currents below 2\\^24"):
        fused.Prepared((recurrent,))


@given(st.integers(1, 3 * fused.STRIP), st.integers(0, 30), st.data())
def test_the_grid_is_found_wherever_its_finest_number_lies(size: int, bits: int, data: st.DataObject) -> None:
    values = np.arange(size, dtype=np.float32)
    at = data.draw(st.integers(0, size - 1))
    values[at] = -(2.0**-bits)
    largest = max(np.delete(values, at), default=0)
    assert fused.measure(values) == (2.0**-bits, max(largest, 2.0**-bits))
    assert fused.finite(values)
    values[at] = 2.0**-31
    assert fused.measure(values) == (0, np.inf)
    values[at] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    assert not fused.finite(values)


def test_the_membrane_rounds_after_each_operation() -> None:
    """A fused multiply-add in `_step` would change bits. Compiled anew: a cached function keeps no machine code."""
    options = {name: value for name, value in fused._step.targetoptions.items() if name != "nopython"}
    compiled = numba.njit(**options)(fused._step.py_func)
    vector = np.ones(64, np.float32)
    compiled(vector, vector, vector, vector.copy(), vector.copy(), True)
    (code,) = compiled.inspect_asm().values()
    assert "mul" in code
    assert not any(name in code for name in ("vfmadd", "vfmsub", "vfnmadd", "fmla", "fmadd"))


GAUSSIAN = {"law": {"name": "gaussian"}, "count": 64}
NO_PULSE = small_model(input={"timesteps": 8, "features": 8, "bits": 4}, witnesses=GAUSSIAN).input
CODES = np.random.default_rng(0).integers(0, 17, (3, 8, 8)).astype(np.int32)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64])
def test_advance_takes_codes_of_any_integer_type_and_any_slice(kind: type) -> None:
    model = small_model()
    network = on_device(model, range(64))
    whole, sliced = (np.tile(resting(network), (3, 1)) for _ in range(2))
    expected = advance(CODES, 0, whole, network, model.input)
    first = advance(CODES[:, :5].astype(kind), 0, sliced, model.network(range(64)), model.input)
    second = advance(CODES[:, 5:].astype(kind), 5, sliced, network, model.input)
    assert np.array_equal(second.spikes, expected.spikes)
    assert np.array_equal(sliced, whole)
    assert np.array_equal(np.hstack([first.active, second.active]), expected.active)
    assert (first.first, second.first) == (0, 5)


@pytest.mark.parametrize("law", LAWS)
def test_every_law_is_stepped_in_slices_of_any_start(law: str) -> None:
    model = small_model(witnesses={"law": LAWS[law], "seed": 2, "count": 32})
    network = on_device(model, range(32))
    expected = final_spikes(CODES, model.input, network)
    membranes = np.tile(resting(network), (3, 1))
    advance(CODES[:1, :3], 0, membranes[:1], network, model.input)
    advance(CODES[1:, :1], 0, membranes[1:], network, model.input)
    starts = np.array([3, 1, 1])
    together = np.stack([CODES[row, start : start + 5] for row, start in enumerate(starts)])
    result = advance(together, starts, membranes, network, model.input)
    assert result.active.shape == (len(network), 7)
    last = advance(CODES[1:, 6:], 6, membranes[1:], network, model.input)
    assert np.array_equal(np.concatenate([result.spikes[:1], last.spikes]), expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12))
def test_sequences_at_different_timesteps_are_stepped_together(starts: list[int]) -> None:
    model = small_model()
    network = on_device(model, range(64))
    codes = np.random.default_rng(len(starts)).integers(0, 17, (len(starts), 2, 8))
    alone, active = [], np.zeros((2, 8), np.int64)
    for row, start in enumerate(starts):
        membranes = resting(network)[None].copy()
        result = advance(codes[row : row + 1], start, membranes, network, model.input)
        active[:, start : start + 2] += result.active
        alone.append((result.spikes[0], membranes[0]))
    membranes = np.tile(resting(network), (len(starts), 1))
    together = advance(codes, np.array(starts), membranes, network, model.input)
    assert np.array_equal(together.spikes, np.stack([spikes for spikes, _ in alone]))
    assert np.array_equal(membranes, np.stack([after for _, after in alone]))
    end = together.first + together.active.shape[1]
    assert np.array_equal(together.active, active[:, together.first : end])
    assert (together.first, end) == (min(starts), max(starts) + 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"codes": CODES[:, :, :7]}, r"codes: expected integers of shape \[B, k, 8\], got int32 of \[3, 8, 7\]"),
        ({"codes": CODES / 16}, "codes: expected integers"),
        ({"codes": CODES + 1}, r"codes: expected numbers in \[0, 16\]"),
        ({"start": 1}, "timesteps within 0 .. 7, got 8 from 1 .. 1"),
        ({"start": np.array([0, -1, 0])}, "timesteps within 0 .. 7, got 8 from -1 .. 0"),
        ({"membranes": np.zeros((3, 5), np.float32)}, r"membranes: expected float32 of shape \[3, 256\]"),
        ({"membranes": np.full((3, 256), np.nan, np.float32)}, "membranes: expected finite"),
        ({"grid": NO_PULSE}, "network: expected one that reads 8 inputs, got 9"),
    ],
)
def test_advance_refuses_what_the_grid_does_not_hold(change: dict, words: str) -> None:
    model = small_model()
    network = on_device(model, range(64))
    call = {"codes": CODES, "start": 0, "membranes": np.tile(resting(network), (3, 1)), "network": network}
    with pytest.raises(ValueError, match=words):
        advance(**(call | {"grid": model.input} | change))

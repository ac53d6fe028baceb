"""Neurons of SpikingJelly, snnTorch and Norse, translated as `docs/conventions.md` says, fire at the same timesteps as
ours; and where the conventions cannot agree, the documented difference is there.

Leaks are 1 - 2^-k and everything lies on dyadic grids with so few timesteps that no float32 operation rounds: the
libraries order their operations differently, and only then must they give the same bits.
"""

import inspect
import warnings
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import neuron
from torch import Tensor

from snn import lif
from snn.network import Layer

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # torch.jit.script, at Norse's import
    import snntorch
    from norse.torch.functional.lif import LIFParameters
    from norse.torch.functional.lif_box import LIFBoxParameters
    from norse.torch.functional.reset import reset_subtract
    from norse.torch.module.lif_box import LIFBoxCell

FEATURES = 3
STEPS = {0.5: 12, 0.75: 6}  # the grid of a membrane gets 1 or 2 bits finer a timestep: 23 of float32's 24 at the last


class Case(NamedTuple):
    """currents: [T, B, n], multiples of 1/4, what x @ weights gives; inputs: [B, T, m]."""

    inputs: Tensor
    weights: Tensor
    leak: float
    threshold: float

    @property
    def currents(self) -> Tensor:
        return (self.inputs @ self.weights).transpose(0, 1)


class Trace(NamedTuple):
    """spikes: [T, B, n] bool; membranes: [T, B, n] before the reset."""

    spikes: Tensor
    membranes: Tensor


def halves(*shape: int) -> st.SearchStrategy[Tensor]:
    """Multiples of 1/2 in [-2, 2]."""
    count = torch.Size(shape).numel()
    codes = st.lists(st.integers(-4, 4), min_size=count, max_size=count)
    return codes.map(lambda drawn: torch.tensor(drawn, dtype=torch.float32).view(shape) / 2)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    leak = draw(st.sampled_from(sorted(STEPS)))
    inputs = draw(halves(2, STEPS[leak], FEATURES)).clamp(-1, 1)
    return Case(inputs, draw(halves(FEATURES, 4)), leak, draw(st.sampled_from([0.25, 0.5, 1.0, 1.5])))


def ours(inputs: Tensor, weights: Tensor, leak: float, reset: float, level: float) -> Trace:
    """Our neuron for one that decays by `leak`, fires from `level` on and loses `reset` at the next timestep."""
    every = torch.ones(weights.shape[1])
    layer = Layer(weights, bias=-(1 - leak) * level * every, leak=leak * every, threshold=reset * every)
    state = (torch.full((len(inputs), len(every)), -level),)
    spikes, membranes = [], []
    for t in range(inputs.shape[1]):
        result = lif.roll_out(inputs[:, t : t + 1], state, (layer,))
        state = result.state
        spikes.append(result.spikes)
        membranes.append(state[0] + level)
    return Trace(torch.stack(spikes), torch.stack(membranes))


def finest(case: Case, decayed_input: bool) -> float:
    """The grid on which every membrane of the case lies: 1/4 for the currents, 1 - leak finer at every timestep."""
    return 0.25 * (1 - case.leak) ** (len(case.currents) + decayed_input)


def check(peer: Trace, us: Trace) -> None:
    assert torch.equal(us.spikes, peer.spikes)
    assert torch.equal(us.membranes, peer.membranes)


@torch.no_grad()
def spikingjelly(case: Case, decay_input: bool) -> Trace:
    node = neuron.LIFNode(
        tau=1 / (1 - case.leak), decay_input=decay_input, v_threshold=case.threshold, v_reset=None, step_mode="m"
    )
    node.store_v_seq = True
    spikes = node(case.currents)
    return Trace(spikes.bool(), node.v_seq + case.threshold * spikes)


@torch.no_grad()
def snn_torch(case: Case) -> Trace:
    node = snntorch.Leaky(beta=case.leak, threshold=case.threshold, reset_mechanism="subtract")
    mem, spikes, membranes = node.reset_mem(), [], []
    for current in case.currents:
        fired, mem = node(current, mem)
        spikes.append(fired)
        membranes.append(mem)
    return Trace(torch.stack(spikes).bool(), torch.stack(membranes))


@torch.no_grad()
def norse(case: Case) -> Trace:
    parameters = LIFBoxParameters(
        tau_mem_inv=torch.tensor(1 - case.leak), v_th=torch.tensor(case.threshold), reset_method=reset_subtract
    )
    cell, state, spikes, membranes = LIFBoxCell(parameters, dt=1.0), None, [], []
    for current in case.currents:
        fired, state = cell(current, state)
        spikes.append(fired)
        membranes.append(state.v + case.threshold * fired)
    return Trace(torch.stack(spikes).bool(), torch.stack(membranes))


@pytest.mark.parametrize("decay_input", [False, True])
@given(cases())
@settings(deadline=None, max_examples=50)
def test_spikingjelly_subtracts_before_the_decay(decay_input: bool, case: Case) -> None:
    weights = case.weights * (1 - case.leak) if decay_input else case.weights
    translated = ours(case.inputs, weights, case.leak, reset=case.leak * case.threshold, level=case.threshold)
    check(spikingjelly(case, decay_input), translated)


@given(cases())
@settings(deadline=None, max_examples=50)
def test_snntorch_resets_as_we_do_and_fires_above_the_threshold(case: Case) -> None:
    level = case.threshold + finest(case, decayed_input=False)
    check(snn_torch(case), ours(case.inputs, case.weights, case.leak, reset=case.threshold, level=level))


@given(cases())
@settings(deadline=None, max_examples=50)
def test_norse_decays_its_input_and_fires_above_the_threshold(case: Case) -> None:
    level = case.threshold + finest(case, decayed_input=True)
    weights = case.weights * (1 - case.leak)
    check(norse(case), ours(case.inputs, weights, case.leak, reset=case.leak * case.threshold, level=level))


@given(cases())
@settings(deadline=None, max_examples=50)
def test_a_start_pulse_stands_in_for_the_start_of_the_membrane(case: Case) -> None:
    """A registered model starts at u = -threshold. A feature that is 1 at the first timestep makes up for it."""
    leak, reset, level = case.leak, case.leak * case.threshold, case.threshold
    pulse = torch.zeros(*case.inputs.shape[:2], 1)
    pulse[:, 0] = 1
    every = torch.ones(case.weights.shape[1])
    weights = torch.cat([case.weights, -leak * (level - reset) * every[None]])
    layer = Layer(weights, bias=-(1 - leak) * level * every, leak=leak * every, threshold=reset * every)
    inputs = torch.cat([case.inputs, pulse], dim=2)
    result = lif.roll_out(inputs, lif.initial_state((layer,), len(inputs)), (layer,))
    peer = spikingjelly(case, decay_input=False)
    assert torch.equal(result.spikes, peer.spikes[-1])
    assert torch.equal(result.state[0] + level, peer.membranes[-1])


def one_neuron(*drive: float, threshold: float = 1.0) -> Case:
    return Case(torch.tensor(drive).view(1, -1, 1), torch.ones(1, 1), 0.5, threshold)


def fired(trace: Trace) -> list[bool]:
    return trace.spikes.flatten().tolist()


def test_the_order_of_soft_reset_and_decay_shows_in_the_spikes() -> None:
    """leak 1/2, threshold 1, drives 3/2 and 3/4. Ours, undecayed: v = 3/2 fires, then 3/4 + 3/4 - 1 = 1/2 does not.
    SpikingJelly, subtracting first: h = 3/2 fires and leaves 1/2, then 1/4 + 3/4 = 1 fires again."""
    case = one_neuron(1.5, 0.75)
    assert fired(ours(case.inputs, case.weights, 0.5, reset=1.0, level=1.0)) == [True, False]
    assert fired(snn_torch(case)) == [True, False]
    assert fired(spikingjelly(case, decay_input=False)) == [True, True]


def test_a_membrane_at_the_threshold_fires_here_and_in_spikingjelly_only() -> None:
    tie = one_neuron(1.0)
    assert fired(ours(tie.inputs, tie.weights, 0.5, reset=1.0, level=1.0)) == [True]
    assert fired(spikingjelly(tie, decay_input=False)) == [True]
    assert fired(snn_torch(tie)) == [False]
    assert fired(norse(one_neuron(2.0))) == [False]  # its input is halved: 1 > 1 is false


def test_a_hard_reset_forgets_what_was_above_the_threshold() -> None:
    """Drives 4 and 1/2, SpikingJelly's input not decayed. A hard reset goes on from 0: 1/2, silent. Ours goes on from
    4/2 + 1/2 - 1 = 3/2, SpikingJelly's soft reset from (4 - 1)/2 + 1/2 = 2, and both fire."""
    drive = torch.tensor([4.0, 0.5]).view(2, 1, 1)
    hard = neuron.LIFNode(tau=2.0, decay_input=False, v_reset=0.0, step_mode="m")
    assert hard(drive).flatten().tolist() == [1.0, 0.0]
    case = one_neuron(4.0, 0.5)
    assert fired(ours(case.inputs, case.weights, 0.5, reset=1.0, level=1.0)) == [True, True]
    assert fired(spikingjelly(case, decay_input=False)) == [True, True]


def test_the_defaults_are_the_documented_ones() -> None:
    jelly = inspect.signature(neuron.LIFNode).parameters
    chosen = {name: jelly[name].default for name in ("tau", "decay_input", "v_threshold", "v_reset")}
    assert chosen == {"tau": 2.0, "decay_input": True, "v_threshold": 1.0, "v_reset": 0.0}
    leaky = inspect.signature(snntorch.Leaky).parameters
    assert (leaky["threshold"].default, leaky["reset_mechanism"].default, leaky["reset_delay"].default) == (
        1.0,
        "subtract",
        True,
    )
    assert LIFBoxParameters().reset_method is not reset_subtract
    assert not hasattr(LIFParameters(), "reset_method")

"""The surrogate roll-out: the definition's spikes forward, the stated derivative backward, as libraries have it."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn import lif
from snn.network import Layer
from snn.training.surrogate import DERIVATIVES, Surrogate, roll_out
from tests.snn.cases import Case, cases, one_neuron, random_network

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    import snntorch
    from spikingjelly.activation_based import neuron
    from spikingjelly.activation_based import surrogate as jelly

ARCTANGENT = Surrogate("arctangent", 2.0)


@given(cases(), st.sampled_from(sorted(DERIVATIVES)))
@settings(deadline=None)
def test_spikes_are_those_of_the_definition(case: Case, name: str) -> None:
    inputs, network = case
    state = lif.initial_state(network, len(inputs))
    for every_step in (False, True):
        expected = lif.roll_out(inputs, state, network, every_step).spikes
        got = roll_out(inputs, network, Surrogate(name, 2.0), every_step)  # type: ignore[arg-type]
        assert torch.equal(got.bool(), expected)


@pytest.mark.parametrize(("name", "slope"), [("fast_sigmoid", 25.0), ("arctangent", 2.0), ("sigmoid", 4.0)])
def test_gradients_are_snntorchs(name: str, slope: float) -> None:
    """The same two layers there and here: v = u + threshold, a standard neuron by its bias, and no ties."""
    inputs = torch.tensor(np.random.default_rng(1).random((16, 7, 5)), dtype=torch.float32)
    mine = random_network(2, 5, [3, 1], 4, recurrent=False)
    mine = tuple(layer._replace(bias=-(1 - layer.leak) * layer.threshold) for layer in mine)
    weights = [layer.weights.clone().requires_grad_() for layer in mine]
    spikes = roll_out(
        inputs, tuple(la._replace(weights=w) for la, w in zip(mine, weights, strict=True)), Surrogate(name, slope)
    )  # type: ignore[arg-type]
    towards = torch.tensor(np.random.default_rng(3).normal(size=spikes.shape), dtype=torch.float32)
    ours = torch.autograd.grad((spikes * towards).sum(), weights)

    kind = {"fast_sigmoid": "fast_sigmoid", "arctangent": "atan", "sigmoid": "sigmoid"}[name]
    function = getattr(snntorch.surrogate, kind)(slope)
    theirs = [layer.weights.clone().requires_grad_() for layer in mine]
    blocks = torch.block_diag(*theirs[1])
    nodes = [snntorch.Leaky(beta=la.leak, threshold=la.threshold, spike_grad=function) for la in mine]
    membranes = [node.reset_mem() for node in nodes]
    for t in range(inputs.shape[1]):
        fired = inputs[:, t]
        for number, (node, matrix) in enumerate(zip(nodes, (theirs[0], blocks), strict=True)):
            fired, membranes[number] = node(fired @ matrix, membranes[number])
    assert torch.equal(fired, spikes)
    for own, peer in zip(ours, torch.autograd.grad((fired * towards).sum(), theirs), strict=True):
        torch.testing.assert_close(own, peer, rtol=1e-4, atol=1e-6)


def test_gradients_are_spikingjellys_with_its_reset_detached() -> None:
    """Its soft reset comes before the decay: what we subtract is leak times its threshold (docs/conventions.md)."""
    leak, level = 0.75, 1.0
    inputs = torch.tensor(np.random.default_rng(5).random((16, 9, 6)), dtype=torch.float32)
    drawn = torch.tensor(np.random.default_rng(6).normal(size=(6, 8)), dtype=torch.float32)
    own = drawn.clone().requires_grad_()
    every = torch.ones(8)
    bias, pulse = -(1 - leak) * level * every, -leak * (level - leak * level) * every[None]
    with_pulse = torch.cat([inputs, torch.zeros(16, 9, 1)], dim=2)
    with_pulse[:, 0, -1] = 1
    layer = Layer(torch.cat([own, pulse]), bias, leak * every, leak * level * every)
    spikes = roll_out(with_pulse, (layer,), ARCTANGENT, every_step=True)

    peer = drawn.clone().requires_grad_()
    node = neuron.LIFNode(
        tau=1 / (1 - leak), decay_input=False, v_threshold=level, v_reset=None, surrogate_function=jelly.ATan(2.0),
        detach_reset=True, step_mode="m",
    )  # fmt: skip
    fired = node((inputs @ peer).transpose(0, 1)).transpose(0, 1)
    towards = torch.tensor(np.random.default_rng(7).normal(size=spikes.shape), dtype=torch.float32)
    assert torch.equal(fired, spikes)
    (ours,), (theirs,) = (
        torch.autograd.grad((some * towards).sum(), weights) for some, weights in ((spikes, own), (fired, peer))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_gradient_by_hand() -> None:
    """leak 1/2, threshold 1, bias -1/2, weight w = 1, inputs 3/2 and 3/4: u = -1/2 + 3/2 - 1/2 = 1/2 fires, then
    u = 1/4 + 3/4 - 1/2 - 1 = -1/2 does not. The reset is a constant: du/dw = 3/2, then 3/4 + 3/4; and
    ds/du = 1 / (1 + (pi u)^2)."""
    (layer,) = one_neuron(0.5, 1.0, bias=-0.5)
    w = torch.tensor([[1.0]], requires_grad=True)
    spikes = roll_out(torch.tensor([[[1.5], [0.75]]]), (layer._replace(weights=w),), ARCTANGENT, every_step=True)
    assert spikes.flatten().tolist() == [1, 0]
    gradients = [torch.autograd.grad(spikes[0, t, 0], w, retain_graph=True)[0].item() for t in (0, 1)]
    assert gradients == pytest.approx([1.5 / (1 + (math.pi / 2) ** 2)] * 2)


@pytest.mark.parametrize(
    ("name", "slope", "primitive"),
    [
        ("fast_sigmoid", 5.0, lambda u: u / (1 + 5 * u.abs())),
        ("arctangent", 2.0, lambda u: torch.atan(math.pi * u) / math.pi),
        ("sigmoid", 4.0, lambda u: torch.sigmoid(4 * u)),
        ("triangle", 1.0, lambda u: torch.where(u.abs() < 1, u - u * u.abs() / 2, u.sign() / 2)),
    ],
)
def test_a_derivative_is_that_of_its_primitive(name: str, slope: float, primitive: object) -> None:
    u, h = torch.linspace(-3, 3, 121, dtype=torch.float64) + 0.0123, 1e-5
    differences = (primitive(u + h) - primitive(u - h)) / (2 * h)  # type: ignore[operator]
    torch.testing.assert_close(DERIVATIVES[name](u, slope), differences, rtol=1e-5, atol=1e-7)  # type: ignore[index]

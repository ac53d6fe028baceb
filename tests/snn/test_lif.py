"""The dynamics against voltages worked by hand, against plain loops, and the exactness promise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snn import fused, lif
from snn.network import Layer, Network
from tests.snn.cases import Case, cases, one_neuron

ENGINES = pytest.mark.parametrize("roll_out", [lif.roll_out, fused.roll_out], ids=["reference", "fused"])


@ENGINES
def test_membrane_by_hand(roll_out) -> None:
    """leak 1/2, theta 1, input 1 1 0 2: u = -1, then
    u1 = -.5 + 1 = .5       s 1
    u2 = .25 + 1 - 1 = .25  s 1
    u3 = .125 + 0 - 1 = -.875  s 0
    u4 = -.4375 + 2 = 1.5625   s 1
    """
    network = one_neuron(leak=0.5, threshold=1)
    inputs = torch.tensor([1.0, 1, 0, 2]).reshape(1, 4, 1)
    result = roll_out(inputs, lif.initial_state(network, 1), network)
    assert result.active[0].tolist() == [1, 1, 0, 1]
    assert result.state[0].item() == 1.5625
    assert result.spikes.item() is True


@ENGINES
def test_a_membrane_at_zero_fires(roll_out) -> None:
    """u1 = 1 * -1 + 1 = 0: a tie is a spike."""
    network = one_neuron(leak=1, threshold=1)
    result = roll_out(torch.ones(1, 1, 1), lif.initial_state(network, 1), network)
    assert result.spikes.item() is True


@ENGINES
def test_bias_turns_the_centred_neuron_into_the_standard_one(roll_out) -> None:
    """With bias = -(1 - lambda) * theta, v = u + theta follows v[t] = lambda v[t-1] + I - theta s[t-1] from v = 0."""
    leak, theta = 0.75, 2.0
    network = one_neuron(leak, theta, bias=-(1 - leak) * theta)
    inputs = torch.tensor([0.5, 1.5, 1.0, 0.25, 2.0, 0.0])
    v, s, fired = 0.0, 0, []
    for x in inputs.tolist():
        v = leak * v + x - theta * s
        s = int(v >= theta)
        fired.append(s)
    result = roll_out(inputs.reshape(1, -1, 1), lif.initial_state(network, 1), network)
    assert result.active[0].tolist() == fired
    assert result.state[0].item() + theta == pytest.approx(v)


@ENGINES
def test_recurrence_by_hand(roll_out) -> None:
    """Two neurons that excite and inhibit each other: V = [[-1, 2], [1, 0]], leak 1/2, theta 1, inputs (2, 0) 0 0:
    u1 = (-.5 + 2, -.5 + 0) = (1.5, -.5)                       s (1, 0)
    u2 = (.75 - 1 - 1, -.25 + 2) = (-1.25, 1.75)               s (0, 1)   V's first row came
    u3 = (-.625 + 1, .875 + 0 - 1) = (.375, -.125)             s (1, 0)   and its second
    """
    half, one = torch.full((2,), 0.5), torch.ones(2)
    network = (Layer(torch.eye(2), 0 * one, half, one, torch.tensor([[[-1.0, 2], [1, 0]]])),)
    inputs = torch.tensor([[[2.0, 0], [0, 0], [0, 0]]])
    result = roll_out(inputs, lif.initial_state(network, 1), network, every_step=True)
    assert result.spikes.int().tolist() == [[[1, 0], [0, 1], [1, 0]]]
    assert result.state[0].tolist() == [[0.375, -0.125]]
    last = roll_out(inputs, lif.initial_state(network, 1), network)
    assert last.spikes.int().tolist() == [[1, 0]]


@ENGINES
def test_a_subnetwork_hears_only_itself(roll_out) -> None:
    """Of two subnetworks of one neuron each, only the first fires; its V = 1 lifts it alone, theta 1, leak 1:
    u1 = (-1 + 1, -1)      s (1, 0)
    u2 = (0 + 1 - 1, -1)   s (1, 0)
    """
    one = torch.ones(2)
    network = (Layer(torch.tensor([[1.0, 0]]), 0 * one, one, one, torch.ones(2, 1, 1)),)
    result = roll_out(torch.tensor([[[1.0], [0]]]), lif.initial_state(network, 1), network, every_step=True)
    assert result.spikes.int().tolist() == [[[1, 0], [1, 0]]]
    assert result.state[0].tolist() == [[0, -1]]


def plain_loops(inputs: Tensor, network: Network) -> tuple[np.ndarray, list[np.ndarray], list[list[int]]]:
    """One neuron and one timestep at a time, every operation rounded to float32; spikes [B, k, n]."""
    f = np.float32
    batch, steps, _ = inputs.shape
    membranes = [np.tile(-layer.threshold.numpy(), (batch, 1)) for layer in network]
    active = [[0] * steps for _ in network]
    out = np.zeros((batch, steps, len(network[-1].bias)), bool)
    for b in range(batch):
        for t in range(steps):
            below = inputs[b, t].numpy()
            for number, layer in enumerate(network):
                weights, n = layer.weights.numpy(), len(layer.bias)
                last = membranes[number][b] >= 0
                spikes = np.zeros(n, np.float32)
                for j in range(n):
                    if weights.ndim == 2:
                        drive = f(below.astype(float) @ weights[:, j].astype(float))
                    else:
                        p, o = divmod(j, weights.shape[2])
                        heard = below[p * weights.shape[1] : (p + 1) * weights.shape[1]]
                        drive = f(heard.astype(float) @ weights[p, :, o].astype(float))
                    current = f(drive + layer.bias.numpy()[j])
                    if layer.recurrent is not None:
                        p, o = divmod(j, layer.recurrent.shape[2])
                        peers = last[p * layer.recurrent.shape[2] : (p + 1) * layer.recurrent.shape[2]]
                        current = f(current + f(peers.astype(float) @ layer.recurrent.numpy()[p, :, o].astype(float)))
                    u, theta = membranes[number][b, j], layer.threshold.numpy()[j]
                    u = f(f(f(layer.leak.numpy()[j] * u) + current) - (theta if last[j] else f(0)))
                    membranes[number][b, j] = u
                    spikes[j] = u >= 0
                active[number][t] += int(spikes.sum())
                below = spikes
            out[b, t] = below
    return out, membranes, active


@settings(max_examples=20, deadline=None)
@given(cases(batch=4, steps=5, subnetworks=6), st.booleans())
def test_engines_agree_with_plain_loops_bit_for_bit(case: Case, every_step: bool) -> None:
    inputs, network = case
    spikes, membranes, active = plain_loops(inputs, network)
    for roll_out in (lif.roll_out, fused.roll_out):
        result = roll_out(inputs, lif.initial_state(network, len(inputs)), network, every_step)
        assert np.array_equal(result.spikes.numpy(), spikes if every_step else spikes[:, -1])
        assert [wave.tolist() for wave in result.active] == active
        for got, expected in zip(result.state, membranes, strict=True):
            assert np.array_equal(got.numpy(), expected)


@ENGINES
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": torch.zeros(2, 3, 4)}, r"inputs: expected shape \[B, k >= 1, 1\], got \[2, 3, 4\]"),
        ({"inputs": torch.zeros(2, 0, 1)}, r"inputs: expected shape"),
        ({"inputs": torch.zeros(2, 3, 1, dtype=torch.float64)}, "inputs: expected torch.float32, got torch.float64"),
        ({"inputs": torch.full((2, 3, 1), torch.nan)}, "inputs: expected finite numbers"),
        ({"state": (torch.zeros(3, 1),)}, r"state of layer 1: expected shape \[2, 1\], got \[3, 1\]"),
        ({"state": (torch.full((2, 1), -torch.inf),)}, "state of layer 1: expected finite numbers"),
        ({"state": ()}, "state: expected membranes of 1 layers, got 0"),
        ({"network": ()}, "network: expected at least one layer"),
        ({"network": one_neuron(1, torch.inf)}, "layer 1, threshold: expected finite numbers"),
        (
            {"network": (one_neuron(1, 1)[0]._replace(recurrent=torch.zeros(1, 1, 2)),)},
            r"layer 1, recurrent: expected shape \[1, 1, 1\], got \[1, 1, 2\]",
        ),
        ({"network": (one_neuron(1, 1)[0]._replace(leak=torch.ones(2)),)}, r"layer 1, leak: expected shape \[1\]"),
    ],
)
def test_a_kernel_never_sees_what_it_could_not_step(roll_out, change: dict, words: str) -> None:
    call = {"inputs": torch.zeros(2, 3, 1), "state": (torch.zeros(2, 1),), "network": one_neuron(1, 1)} | change
    with pytest.raises(ValueError, match=words):
        roll_out(**call)

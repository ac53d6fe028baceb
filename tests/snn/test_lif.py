"""The dynamics against voltages worked by hand, against plain loops, and the exactness promise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snn import fused, lif
from snn.lif import State
from snn.network import Layer, Network

ENGINES = pytest.mark.parametrize("roll_out", [lif.roll_out, fused.roll_out], ids=["reference", "fused"])


def one_neuron(leak: float, threshold: float, weight: float = 1.0, bias: float = 0.0) -> Network:
    parts = ([[weight]], [bias], [leak], [threshold])
    return (Layer(*(torch.tensor(part, dtype=torch.float32) for part in parts)),)


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


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Network]:
    """Inputs and networks on coarse grids, where ties at zero are common."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    batch, steps, m = draw(st.integers(1, 20)), draw(st.integers(1, 12)), draw(st.integers(1, 9))
    subnetworks, depth = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    widths = [draw(st.integers(1, 3)) for _ in range(depth)]

    def grid(*shape: int) -> Tensor:
        return torch.tensor(rng.integers(-8, 9, shape) / 4, dtype=torch.float32)

    layers = []
    for number, width in enumerate(widths):
        n = subnetworks * width
        weights = grid(m, n) if number == 0 else grid(subnetworks, widths[number - 1], width)
        leak = torch.tensor(rng.choice([0, 0.5, 0.9, 1], n), dtype=torch.float32)
        threshold = torch.tensor(rng.choice([0.25, 1, 3.3], n), dtype=torch.float32)
        layers.append(Layer(weights, grid(n), leak, threshold))
    inputs = grid(batch, steps, m) * torch.tensor(rng.random((batch, steps, m)) < 0.7)
    return inputs, tuple(layers)


def plain_loops(inputs: Tensor, network: Network) -> tuple[np.ndarray, list[np.ndarray], list[list[int]]]:
    """One neuron and one timestep at a time, every operation rounded to float32."""
    f = np.float32
    batch, steps, _ = inputs.shape
    membranes = [np.tile(-layer.threshold.numpy(), (batch, 1)) for layer in network]
    active = [[0] * steps for _ in network]
    for b in range(batch):
        for t in range(steps):
            below = inputs[b, t].numpy()
            for number, layer in enumerate(network):
                weights, n = layer.weights.numpy(), len(layer.bias)
                spikes = np.zeros(n, np.float32)
                for j in range(n):
                    if number == 0:
                        drive = f(below.astype(float) @ weights[:, j].astype(float))
                    else:
                        width = weights.shape[2]
                        p, o = divmod(j, width)
                        heard = below[p * weights.shape[1] : (p + 1) * weights.shape[1]]
                        drive = f(heard.astype(float) @ weights[p, :, o].astype(float))
                    u, theta = membranes[number][b, j], layer.threshold.numpy()[j]
                    reset = theta if u >= 0 else f(0)
                    u = f(f(f(layer.leak.numpy()[j] * u) + f(drive + layer.bias.numpy()[j])) - reset)
                    membranes[number][b, j] = u
                    spikes[j] = u >= 0
                active[number][t] += int(spikes.sum())
                below = spikes
    return membranes[-1] >= 0, membranes, active


@settings(max_examples=25, deadline=None)
@given(cases())
def test_engines_agree_with_plain_loops_bit_for_bit(case: tuple[Tensor, Network]) -> None:
    inputs, network = case
    spikes, membranes, active = plain_loops(inputs, network)
    for roll_out in (lif.roll_out, fused.roll_out):
        result = roll_out(inputs, lif.initial_state(network, len(inputs)), network)
        assert np.array_equal(result.spikes.numpy(), spikes)
        assert [wave.tolist() for wave in result.active] == active
        for got, expected in zip(result.state, membranes, strict=True):
            assert np.array_equal(got.numpy(), expected)


@settings(max_examples=50, deadline=None)
@given(cases(), st.data())
def test_chunks_of_time_and_batch_change_no_bit(case: tuple[Tensor, Network], data: st.DataObject) -> None:
    inputs, network = case
    whole = fused.roll_out(inputs, lif.initial_state(network, len(inputs)), network)
    row = data.draw(st.integers(0, len(inputs) - 1))
    cuts = data.draw(st.sets(st.integers(1, inputs.shape[1]))) | {inputs.shape[1]}
    state: State = lif.initial_state(network, 1)
    start = 0
    for end in sorted(cuts):
        before = tuple(u.clone() for u in state)
        result = fused.roll_out(inputs[row : row + 1, start:end], state, network)
        assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True)), "the state given was changed"
        state, start = result.state, end
    assert torch.equal(result.spikes[0], whole.spikes[row])
    assert all(torch.equal(u[0], w[row]) for u, w in zip(state, whole.state, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@settings(max_examples=25, deadline=None)
@given(cases())
def test_gpu_gives_the_bits_of_the_cpu(case: tuple[Tensor, Network]) -> None:
    from snn.engine import roll_out_on_gpu

    inputs, network = case
    state = lif.initial_state(network, len(inputs))
    on_cpu, on_gpu = fused.roll_out(inputs, state, network), roll_out_on_gpu(inputs, state, network)
    assert torch.equal(on_cpu.spikes, on_gpu.spikes)
    assert all(torch.equal(a, b) for a, b in zip(on_cpu.state, on_gpu.state, strict=True))

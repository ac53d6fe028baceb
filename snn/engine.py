"""Stepping a network, arrays in and arrays out: on CUDA with torch where the machine has a GPU, else fused on the CPU.

Both give the same bits (`tests/snn/test_lif.py`); the reference in `snn.lif` defines them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn import fused, lif
from snn.lif import RollOut, State
from snn.model import InputSpec, ModelSpec
from snn.network import Layer, Network

Codes = npt.NDArray[np.integer]
Membranes = npt.NDArray[np.float32]


class Advanced(NamedTuple):
    """spikes: [B, P] bool of the last layer at the last timestep; membranes: [B, n] of all layers side by side;
    active: per layer, the neurons that fired at each timestep, summed over the batch."""

    spikes: npt.NDArray[np.bool_]
    membranes: Membranes
    active: list[list[int]]


def on_device(model: ModelSpec, ids: Sequence[int]) -> Network:
    """The network of the witnesses `ids`, where this machine steps it."""
    network = model.network(ids)
    return _on_gpu(network) if torch.cuda.is_available() else network


def resting(network: Network) -> Membranes:
    """[n] membranes of one sequence before its first timestep."""
    return torch.cat(lif.initial_state(network, 1), dim=1)[0].cpu().numpy()


def advance(codes: Codes, start: int, membranes: Membranes, network: Network, grid: InputSpec) -> Advanced:
    """Step through grid codes [B, k, m] of the timesteps start .. start+k-1 from membranes [B, n]."""
    state = torch.split(torch.from_numpy(membranes), [len(layer.bias) for layer in network], dim=1)
    step = roll_out_on_gpu if torch.cuda.is_available() else fused.roll_out
    result = step(to_inputs(codes, start, grid), state, network)
    return Advanced(
        result.spikes.numpy(), torch.cat(result.state, dim=1).numpy(), [wave.tolist() for wave in result.active]
    )


def final_spikes(codes: Codes, grid: InputSpec, network: Network) -> npt.NDArray[np.bool_]:
    """[B, P] spikes at the last timestep of whole sequences of grid codes [B, T, m]."""
    return advance(codes, 0, np.tile(resting(network), (len(codes), 1)), network, grid).spikes


def to_inputs(codes: Codes, start: int, grid: InputSpec) -> Tensor:
    """[B, k, channels] float32: codes * 2^-bits, and the end pulse behind the features where the model has one."""
    batch, steps, _ = codes.shape
    inputs = torch.zeros(batch, steps, grid.channels)
    inputs[:, :, : grid.features] = torch.from_numpy(codes.astype(np.float32)) * 2.0**-grid.bits
    if grid.end_pulse and start + steps == grid.timesteps:
        inputs[:, -1, -1] = 1
    return inputs


def roll_out_on_gpu(inputs: Tensor, state: State, network: Network) -> RollOut:
    """`snn.lif.roll_out` on the GPU; tensors come from and return to the CPU, `network` may be there already."""
    torch.backends.cuda.matmul.allow_tf32 = False  # 10 bits of mantissa would break the exactness bound
    result = lif.roll_out(inputs.cuda(), tuple(u.cuda() for u in state), _on_gpu(network))
    return RollOut(
        result.spikes.cpu(), tuple(u.cpu() for u in result.state), tuple(wave.cpu() for wave in result.active)
    )


def _on_gpu(network: Network) -> Network:
    return tuple(Layer(*(part.cuda() for part in layer)) for layer in network)

"""Where a network is stepped: on CUDA with torch where the machine has a GPU, else in one fused pass on the CPU.

Both give the same bits (`tests/snn/test_lif.py`); torch's reference in `snn.lif` defines them.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn import fused, lif
from snn.encoding import to_inputs
from snn.lif import Layer, Network, RollOut, State
from snn.model import InputSpec, ModelSpec


class Engine(Protocol):
    def __call__(self, inputs: Tensor, state: State, network: Network) -> RollOut: ...


def roll_out_on_cuda(inputs: Tensor, state: State, network: Network) -> RollOut:
    """`snn.lif.roll_out` on the GPU; tensors come from and return to the CPU, `network` may already be there."""
    torch.backends.cuda.matmul.allow_tf32 = False  # 10 bits of mantissa would break the exactness bound
    on_gpu = tuple(Layer(*(part.cuda() for part in layer)) for layer in network)
    result = lif.roll_out(inputs.cuda(), tuple(u.cuda() for u in state), on_gpu)
    return RollOut(
        result.spikes.cpu(), tuple(u.cpu() for u in result.state), tuple(wave.cpu() for wave in result.active)
    )


def engine() -> Engine:
    """The fastest engine of this machine."""
    return roll_out_on_cuda if torch.cuda.is_available() else fused.roll_out


def final_spikes(codes: npt.NDArray[np.integer], grid: InputSpec, network: Network) -> npt.NDArray[np.bool_]:
    """[B, P] spikes at the last timestep for whole sequences of grid codes [B, T, m]."""
    inputs = to_inputs(codes, 0, grid)
    return engine()(inputs, lif.initial_state(network, len(codes)), network).spikes.numpy()


def on_device(model: ModelSpec, ids: range | list[int]) -> Network:
    """The network of the witnesses `ids`, where the engine of this machine wants it."""
    network = model.network(ids)
    if torch.cuda.is_available():
        return tuple(Layer(*(part.cuda() for part in layer)) for layer in network)
    return network

"""Stepping a network, arrays in and arrays out, with the backend that suits where the network is and what it is.

    snn.lif        the reference, in plain torch: for readers and tests
    snn.fused      compiled for the CPU: where there is no GPU
    snn.fused_gpu  Triton, on CUDA; a subnetwork larger than it takes (`fused_gpu.LARGEST`) runs the reference there

All give the same bits (`tests/snn`); the reference defines them. `on_device` prepares a network once, and the calls
that follow only step it. The public functions refuse, with a ValueError, what a kernel must never see.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn import fused
from snn.model import InputSpec, ModelSpec
from snn.network import Network, finite

Codes = npt.NDArray[np.integer]
Membranes = npt.NDArray[np.float32]


class Advanced(NamedTuple):
    """spikes: [B, P] bool of the last layer at the last timestep; membranes: [B, n] of all layers side by side;
    active: per layer, the neurons that fired at each timestep, summed over the batch."""

    spikes: npt.NDArray[np.bool_]
    membranes: Membranes
    active: list[list[int]]


def on_device(model: ModelSpec, ids: Sequence[int]) -> Network:
    """The network of the witnesses `ids`, laid out where and how this machine steps it."""
    network = model.network(ids)
    if torch.cuda.is_available():
        from snn import fused_gpu

        return fused_gpu.Prepared(network, torch.device("cuda"))
    return fused.Prepared(network)


def resting(network: Network) -> Membranes:
    """[n] membranes of one sequence before its first timestep."""
    return torch.cat([-layer.threshold for layer in network]).cpu().numpy()


def advance(codes: Codes, start: int, membranes: Membranes, network: Network, grid: InputSpec) -> Advanced:
    """Step through grid codes [B, k, m] of the timesteps start .. start+k-1 from float32 membranes [B, n].

    A network from `on_device` saves laying it out anew. Raises ValueError where shapes, dtypes or timesteps disagree
    with the network and the grid, a code is off the grid's range or a membrane is not finite.
    """
    _validate(codes, start, membranes, network, grid)
    if torch.cuda.is_available():
        return _advance_on_gpu(to_inputs(codes, start, grid), membranes, network)
    ready = network if isinstance(network, fused.Prepared) else fused.Prepared(network)
    after = membranes.copy()
    if ready.whole and _fits_int16(grid):
        x, unit = _with_pulse(codes, start, grid, np.int16, 2**grid.bits), 2.0**-grid.bits
    else:
        x, unit = to_inputs(codes, start, grid).numpy(), 1.0
    result = fused.step(x, unit, after, ready)
    return Advanced(result.spikes[:, 0], after, result.active.tolist())


def final_spikes(codes: Codes, grid: InputSpec, network: Network) -> npt.NDArray[np.bool_]:
    """[B, P] spikes at the last timestep of whole sequences of grid codes [B, T, m]. Refuses as `advance` does."""
    return advance(codes, 0, np.tile(resting(network), (len(codes), 1)), network, grid).spikes


def to_inputs(codes: Codes, start: int, grid: InputSpec) -> Tensor:
    """[B, k, channels] float32: codes * 2^-bits, and the end pulse behind the features where the model has one."""
    return torch.from_numpy(_with_pulse(codes, start, grid, np.float32, 2**grid.bits) * np.float32(2.0**-grid.bits))


def _with_pulse(codes: Codes, start: int, grid: InputSpec, dtype: npt.DTypeLike, one: int) -> npt.NDArray:
    """Contiguous codes with the end pulse, of `one`, behind the features where the model has one."""
    if not grid.end_pulse:
        return np.ascontiguousarray(codes, dtype)
    batch, steps, features = codes.shape
    with_pulse = np.zeros((batch, steps, features + 1), dtype)
    with_pulse[:, :, :features] = codes
    if start + steps == grid.timesteps:
        with_pulse[:, -1, -1] = one
    return with_pulse


def _fits_int16(grid: InputSpec) -> bool:
    low, high = grid.codes
    return low >= -(2**15) and max(high, 2**grid.bits) < 2**15


def _advance_on_gpu(inputs: Tensor, membranes: Membranes, network: Network) -> Advanced:
    from snn import fused_gpu

    state = torch.split(torch.from_numpy(membranes).cuda(), [len(layer.bias) for layer in network], dim=1)
    result = fused_gpu.roll_out(inputs.cuda(), state, network)
    return Advanced(
        result.spikes.cpu().numpy(),
        torch.cat(result.state, dim=1).cpu().numpy(),
        [wave.tolist() for wave in result.active],
    )


def _validate(codes: Codes, start: int, membranes: Membranes, network: Network, grid: InputSpec) -> None:
    if codes.ndim != 3 or codes.shape[2] != grid.features or codes.dtype.kind not in "iu":
        raise ValueError(
            f"codes: expected integers of shape [B, k, {grid.features}], got {codes.dtype} of {list(codes.shape)}"
        )
    batch, steps, _ = codes.shape
    if not (start >= 0 and 1 <= steps <= grid.timesteps - start):
        raise ValueError(f"expected timesteps within 0 .. {grid.timesteps - 1}, got {steps} from {start}")
    if len(network[0].weights) != grid.channels:
        raise ValueError(f"network: expected one that reads {grid.channels} inputs, got {len(network[0].weights)}")
    shape = (batch, sum(len(layer.bias) for layer in network))
    if membranes.shape != shape or membranes.dtype != np.float32:
        raise ValueError(
            f"membranes: expected float32 of shape {list(shape)}, got {membranes.dtype} of {list(membranes.shape)}"
        )
    low, high = grid.codes
    if batch and (codes.min() < low or codes.max() > high):
        raise ValueError(f"codes: expected numbers in [{low}, {high}], got {codes.min()} .. {codes.max()}")
    if not finite(torch.from_numpy(membranes)):
        raise ValueError("membranes: expected finite numbers")

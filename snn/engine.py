"""Stepping a network, arrays in and arrays out, with the backend that suits where the network is and what it is.

    snn.lif        the reference, in plain torch: for readers and tests
    snn.fused      compiled for the CPU: where there is no GPU
    snn.fused_gpu  Triton, on CUDA; a subnetwork larger than it takes (`fused_gpu.LARGEST`) runs the reference there

All give the same bits (`tests/snn`); the reference defines them. `on_device` prepares a network once, and the calls
that follow only step it. The public functions refuse, with a ValueError, what a kernel must never see.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn import fused
from snn.model import InputSpec, ModelSpec
from snn.network import Network

Codes = npt.NDArray[np.integer]
Membranes = npt.NDArray[np.float32]


class Advanced(NamedTuple):
    """spikes: bool of the last layer, [B, P] at the last timestep or [B, k, P] at every one; active: [depth, span]
    neurons of each layer that fired at the timesteps first, first + 1, ..., summed over the sequences that were
    stepped there."""

    spikes: npt.NDArray[np.bool_]
    first: int
    active: npt.NDArray[np.int64]


def on_device(model: ModelSpec, ids: Sequence[int]) -> Network:
    """The network of the witnesses `ids`, laid out where and how this machine steps it."""
    network = model.network(ids)
    if _on_gpu():
        from snn import fused_gpu

        return fused_gpu.Prepared(network, torch.device("cuda"))
    return fused.Prepared(network)


@cache
def _on_gpu() -> bool:
    return torch.cuda.is_available()


def resting(network: Network) -> Membranes:
    """[n] membranes of one sequence before its first timestep."""
    return torch.cat([-layer.threshold for layer in network]).cpu().numpy()


def advance(
    codes: Codes,
    start: int | npt.NDArray[np.int64],
    membranes: Membranes,
    network: Network,
    grid: InputSpec,
    every_step: bool = False,
    ends: npt.NDArray[np.bool_] | None = None,
) -> Advanced:
    """Step through grid codes [B, k, m] of the timesteps start .. start+k-1, one start for all or one a sequence [B].

    ends: [B] whether a sequence is over with them, which is when the end pulse comes; if left out, where they reach the
    grid's last timestep. membranes: float32 [B, n], all layers side by side; changed in place. A network from
    `on_device` saves laying it out anew. Raises ValueError where shapes, dtypes or timesteps disagree with the network
    and the grid, a code is off the grid's range or a membrane is not finite.
    """
    starts = np.full(len(codes), start, np.int64)
    first, last = int(starts.min(initial=grid.timesteps)), int(starts.max(initial=0))
    _validate_codes(codes, first, last, network, grid)
    _validate_membranes(membranes, len(codes), network)
    ends = starts + codes.shape[1] == grid.timesteps if ends is None else ends
    return _advance(codes, starts, first, ends, membranes, network, grid, every_step)


def final_spikes(codes: Codes, grid: InputSpec, network: Network) -> npt.NDArray[np.bool_]:
    """[B, P] spikes at the last timestep of whole sequences of grid codes [B, k, m]. Refuses as `advance` does."""
    _validate_codes(codes, 0, 0, network, grid)
    rest = network.resting if isinstance(network, fused.Prepared) else resting(network)
    starts, membranes = np.zeros(len(codes), np.int64), np.repeat(rest[None], len(codes), axis=0)
    return _advance(codes, starts, 0, np.ones(len(codes), np.bool_), membranes, network, grid).spikes


def _advance(
    codes: Codes,
    starts: npt.NDArray[np.int64],
    first: int,
    ends: npt.NDArray[np.bool_],
    membranes: Membranes,
    network: Network,
    grid: InputSpec,
    every_step: bool = False,
) -> Advanced:
    if _on_gpu():
        return _advance_on_gpu(codes, starts, first, ends, membranes, network, grid, every_step)
    ready = network if isinstance(network, fused.Prepared) else fused.Prepared(network)
    if ready.whole and _fits_int16(grid):
        x, unit = _with_pulse(codes, ends, grid, np.int16, 2**grid.bits), 2.0**-grid.bits
    else:
        x, unit = to_inputs(codes, ends, grid).numpy(), 1.0
    result = fused.step(x, unit, membranes, ready, every_step, starts - first)
    return Advanced(result.spikes if every_step else result.spikes[:, 0], first, result.active)


def to_inputs(codes: Codes, ends: npt.NDArray[np.bool_], grid: InputSpec) -> Tensor:
    """[B, k, channels] float32: codes * 2^-bits, and the end pulse behind the features where the model has one.

    ends: [B] whether a sequence is over with them.
    """
    return torch.from_numpy(_with_pulse(codes, ends, grid, np.float32, 2**grid.bits) * np.float32(2.0**-grid.bits))


def _with_pulse(
    codes: Codes, ends: npt.NDArray[np.bool_], grid: InputSpec, dtype: npt.DTypeLike, one: int
) -> npt.NDArray:
    """Contiguous codes with the end pulse, of `one`, behind the features where the model has one."""
    if not grid.end_pulse:
        return np.ascontiguousarray(codes, dtype)
    batch, steps, features = codes.shape
    with_pulse = np.zeros((batch, steps, features + 1), dtype)
    with_pulse[:, :, :features] = codes
    with_pulse[:, -1, -1] = np.where(ends, one, 0)
    return with_pulse


def _fits_int16(grid: InputSpec) -> bool:
    low, high = grid.codes
    return low >= -(2**15) and max(high, 2**grid.bits) < 2**15


def _advance_on_gpu(
    codes: Codes,
    starts: npt.NDArray[np.int64],
    first: int,
    ends: npt.NDArray[np.bool_],
    membranes: Membranes,
    network: Network,
    grid: InputSpec,
    every_step: bool,
) -> Advanced:
    from snn import fused_gpu

    columns, steps = [len(layer.bias) for layer in network], codes.shape[1]
    spikes = np.empty((len(codes), *([steps] if every_step else []), columns[-1]), np.bool_)
    active = np.zeros((len(network), int((starts - first).max(initial=0)) + steps), np.int64)
    for start in np.unique(starts).tolist():  # the kernel sums over sequences that begin together
        rows = np.flatnonzero(starts == start)
        state = torch.split(torch.from_numpy(membranes[rows]).cuda(), columns, dim=1)
        result = fused_gpu.roll_out(to_inputs(codes[rows], ends[rows], grid).cuda(), state, network, every_step)
        spikes[rows] = result.spikes.cpu().numpy()
        membranes[rows] = torch.cat(result.state, dim=1).cpu().numpy()
        active[:, start - first : start - first + steps] += torch.stack(result.active).cpu().numpy()
    return Advanced(spikes, first, active)


@cache
def _span(dtype: np.dtype) -> tuple[int, int]:
    """The smallest and the largest integer of a type."""
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _validate_codes(codes: Codes, first: int, last: int, network: Network, grid: InputSpec) -> None:
    if codes.ndim != 3 or codes.shape[2] != grid.features or codes.dtype.kind not in "iu":
        raise ValueError(
            f"codes: expected integers of shape [B, k, {grid.features}], got {codes.dtype} of {list(codes.shape)}"
        )
    batch, steps, _ = codes.shape
    if steps < 1 or first < 0 or last + steps > grid.timesteps:
        raise ValueError(f"expected timesteps within 0 .. {grid.timesteps - 1}, got {steps} from {first} .. {last}")
    if len(network[0].weights) != grid.channels:
        raise ValueError(f"network: expected one that reads {grid.channels} inputs, got {len(network[0].weights)}")
    low, high = grid.codes
    least, most = _span(codes.dtype)
    if batch and (least < low or most > high) and (codes.min() < low or codes.max() > high):
        raise ValueError(f"codes: expected numbers in [{low}, {high}], got {codes.min()} .. {codes.max()}")


def _validate_membranes(membranes: Membranes, batch: int, network: Network) -> None:
    shape = (batch, sum(len(layer.bias) for layer in network))
    if membranes.shape != shape or membranes.dtype != np.float32:
        raise ValueError(
            f"membranes: expected float32 of shape {list(shape)}, got {membranes.dtype} of {list(membranes.shape)}"
        )
    if not fused.finite(membranes.ravel()):
        raise ValueError("membranes: expected finite numbers")

"""The dynamics of `snn.lif` as one compiled pass on the CPU: the same bits, without currents leaving the cache.

A tile of neurons is driven through all timesteps while its weights and membranes stay in the L2 cache. Inputs and
spikes that are zero cost nothing: within the exactness bound the order and number of additions to a current do
not matter. Numba contracts no multiply-add unless asked to, so the membrane update rounds as `snn.lif` does.
"""

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn.lif import RollOut, State
from snn.network import Network

TILE = 512  # neurons: 29 rows of weights are 59 KB, half of a small L2 cache
CHUNK = 8  # sequences whose hidden spikes are held at once

Float = npt.NDArray[np.float32]
Spikes = npt.NDArray[np.uint8]


def roll_out(inputs: Tensor, state: State, network: Network) -> RollOut:
    """`snn.lif.roll_out` for tensors on the CPU."""
    batch, steps, _ = inputs.shape
    x = np.ascontiguousarray(inputs.numpy())
    membranes = tuple(u.clone() for u in state)
    active = [np.zeros(steps, np.int64) for _ in network]
    last = np.empty((batch, network[-1].bias.numel()), np.bool_)
    for begin in range(0, batch, CHUNK):
        rows = slice(begin, min(begin + CHUNK, batch))
        below: Float | Spikes = x[rows]
        for depth, layer in enumerate(network):
            step = _dense if depth == 0 else _disjoint
            neuron = (layer.bias.numpy(), layer.leak.numpy(), layer.threshold.numpy())
            spikes = np.empty((len(below), steps, len(neuron[0])), np.uint8)
            step(below, layer.weights.numpy(), *neuron, membranes[depth].numpy()[rows], spikes, active[depth])
            below = spikes
        last[rows] = below[:, -1]
    return RollOut(torch.from_numpy(last), membranes, tuple(torch.from_numpy(wave) for wave in active))


@numba.njit(nogil=True, cache=True, inline="always")
def _scan(current: Float, leak: Float, threshold: Float, u: Float, spikes: Spikes) -> int:
    fired = 0
    for j in range(len(current)):
        membrane = u[j]
        reset = threshold[j] if membrane >= 0 else np.float32(0)
        membrane = ((leak[j] * membrane) + current[j]) - reset
        u[j] = membrane
        spikes[j] = membrane >= 0
        fired += membrane >= 0
    return fired


@numba.njit(nogil=True, cache=True)
def _dense(
    x: Float, weights: Float, bias: Float, leak: Float, threshold: Float, u: Float, spikes: Spikes, active: npt.NDArray
) -> None:
    batch, steps, features = x.shape
    n = len(bias)
    current = np.empty(TILE, np.float32)
    for begin in range(0, n, TILE):
        end = min(begin + TILE, n)
        drive = current[: end - begin]
        for b in range(batch):
            for t in range(steps):
                drive[:] = bias[begin:end]
                for f in range(features):
                    value = x[b, t, f]
                    if value != 0:
                        row = weights[f, begin:end]
                        for j in range(end - begin):
                            drive[j] += value * row[j]
                active[t] += _scan(
                    drive, leak[begin:end], threshold[begin:end], u[b, begin:end], spikes[b, t, begin:end]
                )


@numba.njit(nogil=True, cache=True)
def _disjoint(
    below: Spikes,
    weights: Float,
    bias: Float,
    leak: Float,
    threshold: Float,
    u: Float,
    spikes: Spikes,
    active: npt.NDArray,
) -> None:
    batch, steps, _ = below.shape
    subnetworks, fan_in, width = weights.shape
    drive = np.empty(len(bias), np.float32)
    for b in range(batch):
        for t in range(steps):
            heard = below[b, t]
            for p in range(subnetworks):
                for o in range(width):
                    total = bias[p * width + o]
                    for i in range(fan_in):
                        total += np.float32(heard[p * fan_in + i]) * weights[p, i, o]
                    drive[p * width + o] = total
            active[t] += _scan(drive, leak, threshold, u[b], spikes[b, t])

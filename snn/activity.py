"""What witnesses do on some sequences: how often each layer fires, which neurons never or always do, distinct columns.

For the n neurons of a layer over N sequences of T timesteps:

    rate        spikes / (N T n)
    silent      share of the neurons without a spike          saturated   share of those that fired at every timestep

and the same of the spike columns, the last layer at the last timestep alone: a column that is constant tells a readout
nothing, nor does a second one that is equal (`snn.fingerprint`).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn import fingerprint, fused, lif
from snn.network import Network

SPIKES = 2**26  # held at a time

Bits = npt.NDArray[np.bool_]


class Activity(NamedTuple):
    """Of a layer, or of the columns."""

    neurons: int
    rate: float
    silent: float
    saturated: float


class Report(NamedTuple):
    """layers: over all timesteps. columns: at the last one; `distinct` counts those neither constant nor repeated."""

    layers: list[Activity]
    columns: Activity
    distinct: int


def report(inputs: Tensor, network: Network) -> Report:
    """Of inputs [N, T, m], N >= 1, float32 on the CPU. Raises ValueError as `fused.roll_out` does."""
    every = [_counts(inputs, network[: depth + 1]) for depth in range(len(network))]
    opportunities = len(inputs) * inputs.shape[1]
    columns = _final(inputs, network)
    counts = columns.sum(axis=0)
    return Report(
        [_activity(fired, opportunities) for fired in every],
        _activity(counts, len(columns)),
        distinct(columns[:, (counts > 0) & (counts < len(columns))]),
    )


def distinct(columns: Bits) -> int:
    """How many different ones there are among columns [N, P]."""
    limbs = fingerprint.words(np.arange(len(columns), dtype=np.uint64))
    first, _ = fingerprint.distinct(fingerprint.from_limbs(columns.T.astype(np.uint64) @ limbs))
    return len(first)


def _activity(fired: npt.NDArray[np.int64], opportunities: int) -> Activity:
    if not len(fired):
        return Activity(0, 0.0, 0.0, 0.0)
    rate = float(fired.mean() / opportunities)
    return Activity(len(fired), rate, float((fired == 0).mean()), float((fired == opportunities).mean()))


def _counts(inputs: Tensor, network: Network) -> npt.NDArray[np.int64]:
    """[n] spikes of the last layer of a network, over all sequences and timesteps."""
    ready, fired = fused.Prepared(network), np.zeros(len(network[-1].bias), np.int64)
    for some in torch.split(inputs, max(1, SPIKES // max(1, inputs.shape[1] * len(fired)))):
        result = fused.roll_out(some, lif.initial_state(ready, len(some)), ready, every_step=True)
        fired += result.spikes.sum(dim=(0, 1)).numpy()
    return fired


def _final(inputs: Tensor, network: Network) -> Bits:
    ready = fused.Prepared(network)
    neurons = sum(len(layer.bias) for layer in network)
    parts = torch.split(inputs, max(1, SPIKES // (4 * max(1, neurons))))
    return torch.cat(
        [fused.roll_out(some, lif.initial_state(ready, len(some)), ready).spikes for some in parts]
    ).numpy()

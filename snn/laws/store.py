"""A stored sequence: relays, timers and gates that hold the bits x[1..T] >= a; integrators that ask of all of them.

The trunk, which the witnesses share, two layers of neurons with soft reset, for one level a or several (1/2):

    relay (j, a)     leak 0, weight 1 on input j, bias -a, threshold 1 and V = 1 on itself, which cancels the reset:
                     u[t] = x_j[t] - a, so that it fires iff x_j[t] >= a
    timer k          leak 1, bias 1, threshold k, V_kk = -T: u[t] = t - k up to its spike at t = k, then
                     u[t] = (t - k) - (T + k) < 0 up to T, so that it fires at k and never again
    gate (k, j, a)   leak 0, weight 1 on timer k and on relay (j, a), bias -3/2, threshold 1/4: it fires iff t = k and
                     x_j[k] >= a (u = 1/2, less 1/4 after a spike, or at most -1/2)
    end              leak 0, weight 1 on timer T, bias -1/2, threshold 1/4: fires at T

An integrator of leak 1 with weights v on the gates, weight H - b on the end and threshold H = sum|v| + 1:

    u[t] = -H + sum over k <= t, j, a of v_kja z_kja  < 0  for t < T        z_kja = [x_j[k] >= a]
    u[T] = v.z - b

It fires at T iff v.z >= b, and never before. All of it is exact: v and b are multiples of 1/2 below 2^22, levels of
2^-LEVEL_BITS.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from snn.laws.base import Floats, Reach, tensor
from snn.network import Layer, Network

BITS = 1  # the grid of all weights but levels is 1/2
LEVEL_BITS = 6
MOST_GATES = 4096  # timesteps * features * levels: the integrators' weights of 4,096 witnesses take 64 MB then
HALF = (0.5,)


def check(levels: Sequence[float]) -> None:
    """Raises ValueError unless the levels rise and lie on the grid."""
    rise = all(low < high for low, high in itertools.pairwise(levels))
    if not rise or any(level * 2**LEVEL_BITS % 1 for level in levels):
        raise ValueError(f"levels: expected rising multiples of 2^-{LEVEL_BITS}, got {list(levels)}")


def reach(timesteps: int, features: int, levels: Sequence[float] = HALF) -> list[Reach]:
    """Of the trunk. Raises ValueError where there is more to store than MOST_GATES."""
    gates = timesteps * features * len(levels)
    if gates > MOST_GATES:
        by_levels = f" * {len(levels)} levels" if len(levels) > 1 else ""
        raise ValueError(
            f"a stored sequence: expected timesteps * features{' * levels' if by_levels else ''} <= {MOST_GATES}, got "
            f"{timesteps} * {features}{by_levels} = {gates}"
        )
    largest = max(1, *np.abs(levels))
    relays = Reach(1, 1, largest, feedback=1, max_feedback=timesteps, bits=_bits(levels))
    return [relays, Reach(2, 1, 1.5, bits=BITS)]


def _bits(levels: Sequence[float]) -> int:
    """Of the coarsest grid, not above 1/2, that the levels lie on."""
    return next(bits for bits in range(BITS, LEVEL_BITS + 1) if all(level * 2**bits % 1 == 0 for level in levels))


def trunk(timesteps: int, features: int, levels: Sequence[float] = HALF) -> Network:
    """Relays beside timers, then gates [timesteps, features, levels] in this order and the end."""
    timers = np.arange(1, timesteps + 1)
    held = features * len(levels)  # bits of a timestep
    first = np.zeros((features, held + timesteps))
    first[:, :held] = np.repeat(np.eye(features), len(levels), axis=1)
    relays = np.ones(held)
    clocks = Layer(
        tensor(first),
        tensor(np.concatenate([-np.tile(levels, features), np.ones(timesteps)])),
        tensor(np.concatenate([0 * relays, np.ones(timesteps)])),
        tensor(np.concatenate([relays, timers])),
        tensor(np.concatenate([relays, np.full(timesteps, -timesteps)])[:, None, None]),
    )
    count = timesteps * held
    second = np.zeros((held + timesteps, count + 1), np.float32)
    gate = np.arange(count)
    second[held + gate // held, gate] = 1
    second[gate % held, gate] = 1
    second[-1, -1] = 1
    gates = Layer(
        tensor(second),
        tensor(np.append(np.full(count, -1.5), -0.5)),
        tensor(np.zeros(count + 1)),
        tensor(np.full(count + 1, 0.25)),
    )
    return clocks, gates


def integrators(v: npt.NDArray, b: Floats) -> Layer:
    """Neurons that fire at the end iff v.z >= b, for v [n, gates] and b [n], multiples of 1/2."""
    height = np.abs(v).sum(axis=1, dtype=np.float64) + 1
    weights = np.empty((v.shape[1] + 1, len(v)), np.float32)
    weights[:-1] = v.T
    weights[-1] = height - b
    return Layer(tensor(weights), tensor(np.zeros(len(v))), tensor(np.ones(len(v))), tensor(height))

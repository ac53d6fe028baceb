"""A stored sequence: relays, timers and gates that hold the bits x[1..T] >= 1/2; integrators that ask of all of them.

The trunk, which the witnesses share, two layers of neurons with soft reset:

    relay j      leak 0, weight 1 on input j, bias -1/2, threshold 1 and V_jj = 1, which cancels the reset:
                 u[t] = x_j[t] - 1/2, so that it fires iff x_j[t] >= 1/2
    timer k      leak 1, bias 1, threshold k, V_kk = -T: u[t] = t - k up to its spike at t = k, then
                 u[t] = (t - k) - (T + k) < 0 up to T, so that it fires at k and never again
    gate (k, j)  leak 0, weight 1 on timer k and on relay j, bias -3/2, threshold 1/4: it fires iff t = k and
                 x_j[k] >= 1/2 (u = 1/2, less 1/4 after a spike, or at most -1/2)
    end          leak 0, weight 1 on timer T, bias -1/2, threshold 1/4: fires at T

An integrator of leak 1 with weights v on the gates, weight H - b on the end and threshold H = sum|v| + 1:

    u[t] = -H + sum over k <= t, j of v_kj z_kj  < 0  for t < T        z_kj = [x_j[k] >= 1/2]
    u[T] = v.z - b

It fires at T iff v.z >= b, and never before. All of it is exact: v and b are multiples of 1/2 below 2^22.
"""

import numpy as np
import numpy.typing as npt

from snn.laws.base import Floats, Reach, tensor
from snn.network import Layer, Network

BITS = 1  # the grid of all weights is 1/2
MOST_GATES = 4096  # timesteps * features: the integrators' weights of 4,096 witnesses take 64 MB then


def reach(timesteps: int, features: int) -> list[Reach]:
    """Of the trunk. Raises ValueError where there is more to store than MOST_GATES."""
    if timesteps * features > MOST_GATES:
        raise ValueError(
            f"a stored sequence: expected timesteps * features <= {MOST_GATES}, got {timesteps} * {features} = "
            f"{timesteps * features}"
        )
    return [Reach(1, 1, 1, feedback=1, max_feedback=timesteps, bits=BITS), Reach(2, 1, 1.5, bits=BITS)]


def trunk(timesteps: int, features: int) -> Network:
    """Relays beside timers, then gates [timesteps, features] in this order and the end."""
    timers = np.arange(1, timesteps + 1)
    first = np.zeros((features, features + timesteps))
    first[:, :features] = np.eye(features)
    relays = np.ones(features)
    clocks = Layer(
        tensor(first),
        tensor(np.concatenate([-0.5 * relays, np.ones(timesteps)])),
        tensor(np.concatenate([0 * relays, np.ones(timesteps)])),
        tensor(np.concatenate([relays, timers])),
        tensor(np.concatenate([relays, np.full(timesteps, -timesteps)])[:, None, None]),
    )
    count = timesteps * features
    second = np.zeros((features + timesteps, count + 1), np.float32)
    gate = np.arange(count)
    second[features + gate // features, gate] = 1
    second[gate % features, gate] = 1
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

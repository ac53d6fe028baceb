"""Step rules: (gradient, state) -> (update, state), pure functions on vectors.

    sgd            v = momentum v + g,                      update = -eta v            Polyak 1964, as torch.optim.SGD
    adam           m = .9 m + .1 g,  s = .999 s + .001 g^2,  update = -eta m' / (sqrt(s') + 1e-8)   Kingma & Ba 2015,
                   m' = m / (1 - .9^k), s' = s / (1 - .999^k) at the k-th step
    fixed_length   update = -eta g / ||g||: every step is eta long, the minimum-time step B of seed 000

and two factors on eta (design, section 2.6):

    linear decay    1 - k / steps, from 1 before the first step to 0 after the last
    soft clipping   1 / (L0 + L1 ||g||), for losses whose curvature grows with their gradient
"""

from typing import NamedTuple

import torch
from torch import Tensor

from snn.training.spec import TrainingSpec

FIRST, SECOND, TINY = 0.9, 0.999, 1e-8  # Adam's, as published


class Moments(NamedTuple):
    """first, second: what a rule remembers of past gradients, [d] each; steps: how many there were."""

    first: Tensor
    second: Tensor
    steps: int = 0


def at_rest(parameters: Tensor) -> Moments:
    """Before the first step."""
    return Moments(torch.zeros_like(parameters), torch.zeros_like(parameters))


def decayed(training: TrainingSpec, done: int) -> float:
    """eta after `done` of `training.steps` steps."""
    return training.learning_rate * (max(0.0, 1 - done / training.steps) if training.decay == "linear" else 1)


def step(training: TrainingSpec, gradient: Tensor, moments: Moments, done: int) -> tuple[Tensor, Moments]:
    """What to add to the parameters, for a gradient [d], after `done` of `training.steps` steps."""
    norm = float(gradient.norm())
    rate = decayed(training, done)
    if training.soft_clipping is not None:
        low, slope = training.soft_clipping
        rate /= low + slope * norm
    first, second, steps = moments.first, moments.second, moments.steps + 1
    if training.rule == "fixed_length":
        direction = gradient / norm if norm > 0 else gradient
    elif training.rule == "sgd":
        first = training.momentum * first + gradient
        direction = first
    else:
        first = FIRST * first + (1 - FIRST) * gradient
        second = SECOND * second + (1 - SECOND) * gradient**2
        direction = first / (1 - FIRST**steps) / ((second / (1 - SECOND**steps)).sqrt() + TINY)
    return -rate * direction, Moments(first, second, steps)

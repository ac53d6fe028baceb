"""Steps of one trainer on arrays: what a worker does in a round, and what training on one machine repeats."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn.training.objective import Objective
from snn.training.rules import Moments, step
from snn.training.spec import TrainingSpec


class Steps(NamedTuple):
    """theta and moments after some steps; loss and gradient norm are means over them."""

    theta: Tensor
    moments: Moments
    loss: float
    gradient_norm: float


def take_steps(
    objective: Objective,
    training: TrainingSpec,
    theta: Tensor,
    moments: Moments,
    inputs: Tensor,
    targets: Tensor,
    order: npt.NDArray[np.int64],
    done: int,
) -> Steps:
    """One step on each row of `order` [H, batch], places in inputs [N, T, m] and targets [N, C] (or [N, T, C]), after
    `done` steps of `training.steps`."""
    losses, norms = [], []
    for number, rows in enumerate(torch.from_numpy(order)):
        loss, gradient = objective.gradient(theta, inputs[rows], targets[rows], training.gradient_regularisation)
        update, moments = step(training, gradient, moments, done + number)
        theta = theta + update
        losses.append(loss)
        norms.append(float(gradient.norm()))
    return Steps(theta, moments, float(np.mean(losses)), float(np.mean(norms)))


def deal(count: int, steps: int, batch: int, *seed: int) -> npt.NDArray[np.int64]:
    """[steps, batch] places among `count` rows, drawn by `seed`: each row once before any comes again."""
    rng = np.random.default_rng(seed)
    passes = -(-steps * batch // count)
    drawn = np.concatenate([rng.permutation(count) for _ in range(passes)])
    return drawn[: steps * batch].reshape(steps, batch)

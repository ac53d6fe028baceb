"""Small problems that many tests share."""

from collections.abc import Callable

import numpy as np
import pytest

from snn.bits import BitMatrix
from solver_service.fit import Moments, Samples
from solver_service.losses import LOSSES, Array

Draw = Callable[[str, int], tuple[Array, Array]]


@pytest.fixture
def draw() -> Draw:
    """draw(loss, seed) -> spikes [N, P], with a duplicate, an empty and a full column, and targets [N, C]."""

    def make(loss: str, seed: int) -> tuple[Array, Array]:
        rng = np.random.default_rng(seed)
        n, p, c = int(rng.integers(20, 60)), int(rng.integers(8, 40)), int(rng.integers(2, 5))
        spikes = (rng.random((n, p)) < rng.uniform(0.1, 0.9, p)).astype(float)
        spikes[:, 1], spikes[:, 2], spikes[:, 3] = spikes[:, 0], 0, 1
        classes = (spikes[:, :3].sum(axis=1) + rng.integers(0, 2, n)).astype(int) % c
        return spikes, (classes % 2)[:, None].astype(float) if loss == "logistic" else np.eye(c)[classes]

    return make


def moments_of(spikes: Array, targets: Array, weights: Array | None = None) -> Moments:
    s = np.ones(len(spikes)) if weights is None else weights
    return Moments(
        len(spikes),
        spikes.T @ (s[:, None] * spikes),
        s @ spikes,
        spikes.T @ (s[:, None] * targets),
        s @ targets,
        s @ np.square(targets),
        s.sum(),
    )


def samples_of(loss: str, spikes: Array, targets: Array, weights: Array | None = None) -> Samples:
    return Samples(LOSSES[loss], BitMatrix.from_dense(spikes), targets, weights)

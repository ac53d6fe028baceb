"""The preconditioner is the system's inverse where its model is exact, and serves other systems as well."""

import gc
import time

import numpy as np
import pytest

from solver_service.fit import Samples
from solver_service.losses import LOSSES, Array
from solver_service.penalties import NORMS
from solver_service.solvers import solve
from solver_service.solvers.base import Stop
from solver_service.solvers.newton_system import Bend, Blocks, Preconditioner, System
from tests.solver.conftest import Draw, samples_of

NEVER = Stop(0.0, np.inf)


def _system(fit: Samples, penalty: str, w: Array, rows: np.ndarray, beta: float = 0.1) -> System:
    norm = NORMS[penalty]
    scores = fit.times(w) + fit.intercept(w)
    gradient = fit.share * fit.loss.gradient(scores, fit.targets)
    n = norm.sizes(w[rows])
    unit = w[rows] / n
    ones = np.ones_like(w[rows], bool)
    bend = Bend(beta * unit, beta / n, 0.8 * beta / n, unit, norm.inner, ones)
    c = -fit.transpose_times(gradient)[rows]
    return System(fit.restricted(rows), rows, scores, gradient, c, bend, 1e-6, np.float64)


@pytest.mark.parametrize("penalty", NORMS)
@pytest.mark.parametrize("seed", range(4))
def test_inverts_a_system_of_blocks(draw: Draw, penalty: str, seed: int) -> None:
    """The squared loss has no products across outputs."""
    spikes, targets = draw("squared", seed)
    rng = np.random.default_rng(seed)
    fit = samples_of("squared", spikes, targets)
    w = rng.standard_normal((fit.columns, fit.outputs))
    system = _system(fit, penalty, w, np.arange(fit.columns))
    v = rng.standard_normal((fit.columns + 1, fit.outputs))
    again = Preconditioner(system, Blocks(system, NEVER), NEVER).solve(system.product(v), system.bend.active)
    np.testing.assert_allclose(again, v, atol=2e-3 * np.abs(v).max())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("penalty", NORMS)
@pytest.mark.parametrize("seed", range(4))
def test_blocks_of_another_point_serve(draw: Draw, loss: str, penalty: str, seed: int) -> None:
    """Coefficients up to 100 times smaller or larger, columns that left and came: still positive, still solved."""
    spikes, targets = draw(loss, seed)
    rng = np.random.default_rng(seed)
    fit = samples_of(loss, spikes, targets)
    w = rng.standard_normal((fit.columns, fit.outputs))
    blocks = Blocks(_system(fit, penalty, w, np.arange(1, fit.columns)), NEVER)
    rows = np.arange(0, fit.columns - 1)
    system = _system(fit, penalty, w * 10 ** rng.uniform(-2, 2, (len(w), 1)), rows)
    preconditioner = Preconditioner(system, blocks, NEVER)
    v = rng.standard_normal((len(rows) + 1, fit.outputs))
    active = system.bend.active
    assert float((v * preconditioner.solve(v, active)).sum()) > 0
    direction, _ = system.solve(blocks, Stop(0.0, time.monotonic() + 10))
    slope = float((system.right * direction).sum())
    assert slope > 0
    left = system.right - system.product(direction)
    fresh = Preconditioner(system, Blocks(system, NEVER), NEVER)
    whole = system.right * fresh.solve(system.right, active)
    assert float((left * fresh.solve(left, active)).sum()) < 0.1 * float(whole.sum())


@pytest.mark.parametrize("penalty", ["ridge", "group"])
def test_the_blocks_memory_is_free_after_a_solve(draw: Draw, penalty: str) -> None:
    """Without the collector of cycles, which may not run for hours."""

    def blocks() -> int:
        return sum(type(thing) is Blocks for thing in gc.get_objects())  # isinstance asks dead proxies, too

    fit = samples_of("multinomial", *draw("multinomial", 0))
    gc.collect()
    before = blocks()
    gc.disable()
    try:
        assert solve(fit, penalty, 0.01).relative_gap <= 1e-6
        assert blocks() == before
    finally:
        gc.enable()

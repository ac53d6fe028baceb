"""Over the complete dictionary the readout is truly global: no sampled dictionary reaches less, by the certificates of
both, and few columns are enough (paper, theorems 3.4 and 3.6)."""

from functools import partial
from typing import NamedTuple

import numpy as np
import pytest

from snn.exact import Hidden, exact, fired
from solver_service.caratheodory import few_columns
from solver_service.certificate import beta_max, certify
from solver_service.fit import Samples
from solver_service.losses import LOSSES, Array, Heads
from solver_service.penalties import PENALTIES
from solver_service.solvers import solve
from tests.models import drawn_network
from tests.solver.conftest import samples_of

TOLERANCE = 1e-9
SAMPLED = 300


class Case(NamedTuple):
    layers: list[Hidden]
    shape: tuple[int, int, int]
    every_step: bool
    loss: str
    outputs: int


CASES = {
    "LIF": Case([Hidden(leak=0.5)], (6, 3, 1), False, "squared", 1),
    "LIF without bias": Case([Hidden(leak=0.75, bias=False)], (6, 3, 2), False, "logistic", 1),
    "LIF, every timestep": Case([Hidden(leak=0.5)], (4, 3, 1), True, "squared", 1),
    "LIF, heads": Case([Hidden(leak=0.5)], (4, 3, 1), True, "heads", 3),
    "LIF, classes": Case([Hidden(leak=0.5)], (6, 2, 2), False, "multinomial", 3),
    "recurrent": Case([Hidden(recurrent=True)], (5, 3, 1), False, "squared", 1),
    "two recurrent, every timestep": Case([Hidden(2, recurrent=True)], (3, 2, 1), True, "multinomial", 3),
    "two layers of LIF": Case([Hidden(2, 0.5), Hidden(leak=0.5)], (4, 2, 1), False, "logistic", 1),
    "recurrent below LIF": Case([Hidden(1, recurrent=True), Hidden(leak=0.5)], (4, 3, 1), True, "squared", 2),
}


@pytest.mark.parametrize("name", CASES)
def test_no_sampled_dictionary_has_a_smaller_objective_and_few_columns_reach_it(name: str) -> None:
    case = CASES[name]
    rng = np.random.default_rng(7)
    x = rng.integers(-4, 5, case.shape) / 4
    complete = exact(x, case.layers, case.every_step)
    targets = drawn_targets(rng, case.loss, len(complete.columns), case.outputs)
    fit = samples(case.loss, complete.columns, targets)
    optimum = solve(fit, "group", 0.02, TOLERANCE)
    assert optimum.relative_gap <= TOLERANCE

    def gaussian(shape: tuple[int, ...]) -> Array:
        return np.round(rng.standard_normal(shape) * 2**10) / 2**10

    smallest = np.inf
    for _ in range(5):
        network = drawn_network(SAMPLED, case.layers, x.shape[2], gaussian, partial(rng.choice, [0.125, 0.5, 1.0]))
        columns = fired(x, network, case.layers[-1].width, case.every_step)
        sampled = samples(case.loss, np.unique(columns, axis=1), targets)
        relative = optimum.beta / beta_max(sampled, PENALTIES["group"])
        if relative >= 1:  # no coefficients: nobody's best
            continue
        best = solve(sampled, "group", relative, TOLERANCE)
        assert best.relative_gap <= TOLERANCE
        assert optimum.primal <= best.dual + 2 * TOLERANCE * max(1.0, best.primal)
        smallest = min(smallest, best.primal)
    assert np.isfinite(smallest)

    reduced = few_columns(complete.columns.astype(float), optimum.coefficients)
    gap = certify(fit, PENALTIES["group"], optimum.beta, reduced, optimum.intercept).relative_gap
    assert gap <= 2 * TOLERANCE
    assert np.count_nonzero(reduced.any(axis=1)) <= len(complete.columns) * targets.shape[1]


def samples(loss: str, columns: np.ndarray, targets: Array) -> Samples:
    if loss != "heads":
        return samples_of(loss, columns, targets)
    heads = Heads([(LOSSES["multinomial"], targets.shape[1] - 1), (LOSSES["logistic"], 1)])
    return Samples(heads, samples_of("squared", columns, targets).spikes, targets)


def drawn_targets(rng: np.random.Generator, loss: str, rows: int, outputs: int) -> Array:
    if loss == "squared":
        return rng.standard_normal((rows, outputs))
    classes = np.arange(rows) % max(2, outputs)
    if loss == "logistic":
        return classes[:, None].astype(float)
    one_hot = np.eye(outputs)[classes]
    return np.hstack([one_hot, rng.integers(0, 2, (rows, 1))]) if loss == "heads" else one_hot

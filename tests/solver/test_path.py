"""The path against an oracle, and the two rules."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from solver_service.path import Path, warm_path
from solver_service.solvers import solve
from tests.solver.conftest import Draw, samples_of


@pytest.mark.parametrize("loss", ["squared", "logistic", "multinomial"])
def test_every_point_is_that_of_a_cold_solve(draw: Draw, loss: str) -> None:
    spikes, targets = draw(loss, 3)
    fit, held_out = samples_of(loss, spikes, targets), samples_of(loss, spikes[::3], targets[::3])
    path = warm_path(fit, held_out, "group", (0.03, 1.0, 0.3), 1e-8)
    assert path.relative_betas.tolist() == [1.0, 0.3, 0.03]
    for beta, solution, loss_there in zip(path.relative_betas, path.solutions, path.losses, strict=True):
        cold = solve(fit, "group", float(beta), 1e-8)
        assert solution.relative_gap <= 1e-8
        assert solution.primal == pytest.approx(cold.primal, abs=2e-8)
        scores = spikes[::3] @ solution.coefficients + solution.intercept
        assert loss_there == pytest.approx(fit.loss.value(scores, targets[::3]).mean(), abs=1e-9)


def test_the_rules() -> None:
    path = Path(np.array([1, 0.5, 0.2, 0.1]), [], np.array([3, 1.4, 1.0, 1.1]), np.array([0.5, 0.5, 0.5, 0.5]))
    assert path.chosen("best") == 2
    assert path.chosen("sparsest") == 1


def test_errors_are_those_of_a_mean(draw: Draw) -> None:
    spikes, targets = draw("logistic", 5)
    weights = np.arange(1.0, len(spikes) + 1)
    path = warm_path(
        samples_of("logistic", spikes, targets), samples_of("logistic", spikes, targets, weights), "l1", (0.5,)
    )
    solution, share = path.solutions[0], weights / weights.sum()
    scores = spikes @ solution.coefficients + solution.intercept
    losses = np.logaddexp(0, scores[:, 0]) - targets[:, 0] * scores[:, 0]
    assert path.losses[0] == pytest.approx(share @ losses)
    assert_allclose(path.errors[0] ** 2, (share**2) @ (losses - share @ losses) ** 2)


def test_what_cannot_be_used(draw: Draw) -> None:
    spikes, targets = draw("logistic", 7)
    fit = samples_of("logistic", spikes, targets)
    with pytest.raises(ValueError, match="held_out: expected rows of"):
        warm_path(fit, samples_of("logistic", spikes[:, 1:], targets), "l1")
    with pytest.raises(ValueError, match="relative_betas: expected at least one"):
        warm_path(fit, fit, "l1", ())

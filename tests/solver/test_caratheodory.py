"""An optimal readout of few columns; optimality is the certificate's word, before and after."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver_service.caratheodory import few_columns
from solver_service.certificate import certify
from solver_service.fit import Samples
from solver_service.losses import LOSSES
from solver_service.penalties import PENALTIES
from solver_service.solvers import solve
from tests.solver.conftest import Draw, samples_of


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 40), st.integers(1, 3))
def test_predicts_the_same_at_no_larger_penalty_with_few_columns(seed: int, rows: int, columns: int, out: int) -> None:
    rng = np.random.default_rng(seed)
    spikes = (rng.random((rows, columns)) < rng.uniform(0, 1, columns)).astype(float)
    w = rng.standard_normal((columns, out)) * (rng.random((columns, 1)) < 0.8)
    reduced = few_columns(spikes, w)
    assert spikes @ reduced == pytest.approx(spikes @ w, abs=1e-9)
    assert PENALTIES["group"].value(reduced) <= PENALTIES["group"].value(w) + 1e-9
    used = reduced.any(axis=1)
    assert used.sum() <= rows * out
    assert not (used & ~w.any(axis=1)).any()


@pytest.mark.parametrize("loss", LOSSES)
def test_an_optimum_that_uses_every_copy_becomes_one_of_few_columns(draw: Draw, loss: str) -> None:
    spikes, targets = (part[:8] for part in draw(loss, 2))
    one = solve(samples_of(loss, spikes, targets), "group", 0.01, tolerance=1e-9)
    copies = 40
    every = np.tile(spikes, (1, copies))
    fit = samples_of(loss, every, targets)
    dense = np.tile(one.coefficients / copies, (copies, 1))
    reduced = few_columns(every, dense)
    most = len(spikes) * targets.shape[1]
    assert np.count_nonzero(dense.any(axis=1)) > most
    assert np.count_nonzero(reduced.any(axis=1)) <= min(most, len(one.support))
    _solved(fit, one.beta, dense, one.intercept)
    _solved(fit, one.beta, reduced, one.intercept)


def _solved(fit: Samples, beta: float, w: np.ndarray, b: np.ndarray) -> None:
    assert certify(fit, PENALTIES["group"], beta, w, b).relative_gap <= 2e-9


def test_refuses_shapes_that_disagree() -> None:
    with pytest.raises(ValueError, match=r"expected spikes \[N, P\] and W \[P, C\], got \[3, 4\] and \[5, 2\]"):
        few_columns(np.zeros((3, 4)), np.zeros((5, 2)))

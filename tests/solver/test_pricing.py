"""Prices against solves that have the candidate, gains against solves of every choice."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn import sums
from snn.bits import BitMatrix
from solver_service import pricing
from solver_service.certificate import beta_max
from solver_service.growing import Rows, Rules, grow
from solver_service.losses import LOSSES, Array
from solver_service.penalties import NORMS
from solver_service.solvers import solve
from tests.solver.conftest import Draw, samples_of


def sums_of(spikes: Array, targets: Array, weights: Array | None = None) -> sums.Sums:
    ids = np.arange(len(spikes), dtype=np.uint64)
    return sums.of_rows(BitMatrix.from_dense(spikes), ids, targets, weights)


@pytest.mark.parametrize("penalty", NORMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_candidate_lowers_the_optimum_if_and_only_if_its_price_exceeds_beta(
    draw: Draw, loss: str, penalty: str
) -> None:
    beyond = set()
    for seed in range(4):
        spikes, targets = draw(loss, seed)
        kept, candidates = spikes[:, ::3], spikes[:, 1::3]
        fit = samples_of(loss, kept, targets)
        optimum = solve(fit, penalty, 0.3, tolerance=1e-10)
        scores = kept @ optimum.coefficients + optimum.intercept
        found = sums_of(candidates, pricing.residuals(LOSSES[loss], scores, targets))
        for column, price in zip(candidates.T, pricing.prices(found, NORMS[penalty]), strict=True):
            if abs(price / optimum.beta - 1) < 0.02:  # too close for solvers to tell
                continue
            more = samples_of(loss, np.column_stack([kept, column]), targets)
            relative = optimum.beta / beta_max(more, NORMS[penalty])
            lower = solve(more, penalty, relative, tolerance=1e-10).primal < optimum.primal - 1e-8
            assert lower == (price > optimum.beta)
            beyond.add(bool(lower))
    assert beyond == {False, True}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(1, 3), st.booleans())
def test_sums_of_shards_price_as_all_rows_do(seed: int, rows: int, outputs: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    spikes = (rng.random((rows, 7)) < 0.4).astype(float)
    r = rng.standard_normal((rows, outputs))
    s = rng.uniform(0.1, 2, rows) if weighted else np.ones(rows)
    at = int(rng.integers(1, rows))
    ids = np.arange(rows, dtype=np.uint64)
    parts = [
        sums.of_rows(BitMatrix.from_dense(spikes[part]), ids[part], r[part], s[part])
        for part in (slice(at, None), slice(at))
    ]
    share = (s / s.sum())[:, None]
    c = spikes.T @ (share * (r - (share * r).sum(axis=0)))
    merged, whole = sums.add(*parts), sums_of(spikes, r, s)
    assert pricing.correlations(merged) == pytest.approx(c, abs=1e-12)
    assert pricing.prices(merged, NORMS["group"]) == pytest.approx(np.linalg.norm(c, axis=1), abs=1e-12)
    assert pricing.prices(merged, NORMS["l1"]) == pytest.approx(np.abs(c).max(axis=1), abs=1e-12)
    assert np.array_equal(merged.fingerprints, whole.fingerprints)
    assert np.array_equal(merged.everything, whole.everything)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 6))
def test_the_largest_gain_is_chosen_each_time(seed: int, kept: int) -> None:
    """The ridge objective with each candidate in turn, by the normal equations, says which gains most."""
    rng = np.random.default_rng(seed)
    spikes = (rng.random((200, kept + 10)) < rng.uniform(0.2, 0.8, kept + 10)).astype(float)
    y = rng.standard_normal((200, 2))
    d, y = spikes - spikes.mean(axis=0), y - y.mean(axis=0)
    h, b = d.T @ d / 200, d.T @ y / 200

    def objective(columns: list[int]) -> float:
        inner = np.linalg.solve(h[np.ix_(columns, columns)] + pricing.RIDGE * np.eye(len(columns)), b[columns])
        return -float((b[columns] * inner).sum())

    have = list(range(kept))
    w = np.linalg.solve(h[:kept, :kept] + pricing.RIDGE * np.eye(kept), b[:kept])
    chosen = pricing.choose(h, b[kept:] - h[kept:, :kept] @ w, 4)
    assert len(chosen) == 4
    for pick in chosen:
        others = [j for j in range(len(spikes.T)) if j not in have]
        best = min(objective([*have, j]) for j in others)
        have.append(kept + int(pick))
        assert objective(have) == pytest.approx(best, abs=1e-12)


def test_copies_and_constants_are_never_taken() -> None:
    rng = np.random.default_rng(3)
    one, other = (rng.random((2, 300)) < 0.5).astype(float)
    spikes = np.column_stack([one, one, 1 - one, other, other, np.ones(300), np.zeros(300)])
    r = rng.standard_normal((300, 2)) + spikes[:, [0, 3]]
    found = sums_of(spikes, r)
    assert set(pricing.shortlist(found, 99)) == {0, 1, 2, 3, 4}
    d = spikes[:, :5] - spikes[:, :5].mean(axis=0)
    chosen = pricing.choose(d.T @ d / 300, pricing.correlations(found)[1:5], 4)  # the first is kept
    assert chosen.tolist() == [2]


def columns_of(bits: np.ndarray) -> Rows:
    """Witness j is column j."""
    return Rows(lambda witnesses: BitMatrix.from_dense(bits[:, witnesses]), np.zeros((len(bits), 1)))


def test_a_dictionary_finds_the_witnesses_that_matter() -> None:
    """Three of 9,000 random columns make the target: with 60 columns it has them, where 60 blind ones have none."""
    rng = np.random.default_rng(5)
    bits = rng.random((1200, 9000)) < 0.5
    matter = [700, 900, 1100]
    y = bits[:, matter] @ np.array([[1.0, 0.5], [-1.0, 0.5], [0.5, 1.0]]) + 0.1 * rng.standard_normal((1200, 2))
    train, fresh = (columns_of(bits[rows])._replace(targets=y[rows]) for rows in (slice(0, 800), slice(800, None)))
    rules = Rules(columns=60, start=20, relative_beta=0.1, patience=1, candidates=40)
    states = list(grow(train, fresh, LOSSES["squared"], rules))
    last = states[-1]
    assert set(matter) <= set(last.witnesses[last.solution.support].tolist())
    assert len(last.witnesses) <= 60
    assert len(set(last.witnesses.tolist())) == len(last.witnesses)
    assert all(state.tried > before.tried for before, state in pairwise(states))
    worth = [state.best > state.solution.beta for state in states]
    assert worth[0]
    assert not worth[-1]


def test_noise_is_not_worth_a_column() -> None:
    rng = np.random.default_rng(6)
    bits, y = rng.random((3000, 2000)) < 0.5, rng.standard_normal((3000, 1))
    train, fresh = (columns_of(bits[rows])._replace(targets=y[rows]) for rows in (slice(1500), slice(1500, None)))
    rules = Rules(columns=300, start=20, relative_beta=0.9)
    states = list(grow(train, fresh, LOSSES["squared"], rules._replace(slack=1.0)))
    assert len(states) == 1
    assert not pricing.enough(np.array([0.1, 0.3]), 0.2, 0.0)
    assert pricing.enough(np.array([0.1, 0.3]), 0.2, 0.5)

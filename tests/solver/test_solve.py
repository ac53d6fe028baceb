"""Every loss with every penalty: the optimum of cvxpy and Clarabel, with a certificate."""

import itertools

import numpy as np
import pytest

from snn.bits import BitMatrix
from solver_service.certificate import certify
from solver_service.fit import Moments, Samples
from solver_service.losses import LOSSES, Heads
from solver_service.penalties import NORMS, PENALTIES
from solver_service.solvers import Point, solve
from tests.solver.conftest import Draw, moments_of, samples_of

PAIRS = list(itertools.product(LOSSES, PENALTIES))
CASES = list(itertools.product(LOSSES, PENALTIES, (0.3, 0.01), (0, 1)))


def _fits(loss: str, spikes: np.ndarray, targets: np.ndarray) -> list[Moments | Samples]:
    fits: list[Moments | Samples] = [samples_of(loss, spikes, targets)]
    return [*fits, moments_of(spikes, targets)] if loss == "squared" else fits


def _problem(draw: Draw, loss: str, penalty: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As drawn; without a penalty many rows and few columns, or the classes were separable and had no optimum."""
    spikes, targets = draw(loss, seed)
    if penalty == "none":
        rng = np.random.default_rng(seed)
        spikes = rng.integers(0, 2, (300, 6)).astype(float)
        spikes[:, 1], spikes[:, 2], spikes[:, 3] = spikes[:, 0], 0, 1
        targets = targets[rng.integers(0, len(targets), 300)]
    return spikes, targets


@pytest.mark.parametrize(("loss", "penalty", "relative_beta", "seed"), CASES)
def test_agrees_with_cvxpy(draw: Draw, loss: str, penalty: str, relative_beta: float, seed: int) -> None:
    spikes, targets = _problem(draw, loss, penalty, seed)
    oracle = solve(samples_of(loss, spikes, targets), penalty, relative_beta, backend="cvxpy")
    for fit in _fits(loss, spikes, targets):
        ours = solve(fit, penalty, relative_beta)
        assert -1e-13 <= ours.relative_gap <= 1e-6
        assert ours.primal <= oracle.primal + 1e-6 * max(1, oracle.primal)
        assert ours.dual <= oracle.primal + 1e-12  # weak duality, across two solvers
        tight = solve(fit, penalty, relative_beta, tolerance=1e-10)
        assert tight.primal == pytest.approx(oracle.primal, rel=1e-8)
        if isinstance(fit, Moments):
            assert solve(fit, penalty, relative_beta, backend="cvxpy").primal == pytest.approx(oracle.primal, rel=1e-8)


@pytest.mark.parametrize("penalty", ["l1", "group", "none"])
@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "squared"])
def test_progress_is_told_on_the_way(draw: Draw, loss: str, penalty: str) -> None:
    gaps: list[float] = []
    solution = solve(samples_of(loss, *_problem(draw, loss, penalty, 1)), penalty, 0.02, progress=gaps.append)
    assert len(gaps) > 1
    assert min(gaps) <= 1e-6 < gaps[0]
    assert solution.relative_gap <= 1e-6


@pytest.mark.parametrize("loss", ["logistic", "multinomial"])
def test_separable_classes_without_a_penalty_end_with_a_gap_that_says_so(loss: str) -> None:
    """The loss falls without end; the dual bound is that of a large ball, so the gap stays honest."""
    spikes = np.repeat(np.eye(4), 25, axis=0)
    classes = np.arange(100) // 50
    targets = classes[:, None].astype(float) if loss == "logistic" else np.eye(2)[classes]
    solution = solve(samples_of(loss, spikes, targets), "none", 0.01, seconds=20)
    assert np.isfinite(solution.coefficients).all()
    assert 0 <= solution.relative_gap <= 1e-2
    assert solution.primal < 1e-2


@pytest.mark.parametrize(("loss", "penalty"), PAIRS)
def test_certificate_is_of_the_published_numbers(draw: Draw, loss: str, penalty: str) -> None:
    """Primal recomputed from scratch; the dual point, too, is feasible for all columns."""
    spikes, targets = draw(loss, 3)
    for fit in _fits(loss, spikes, targets):
        s = solve(fit, penalty, 0.05)
        scores = spikes @ s.coefficients + s.intercept
        primal = LOSSES[loss].value(scores, targets).mean() + s.beta * PENALTIES[penalty].value(s.coefficients)
        assert s.primal == pytest.approx(primal, abs=1e-13)
        assert set(s.support) == set(np.flatnonzero(np.abs(s.coefficients).sum(axis=1)))
        assert len(s.support) <= fit.columns


@pytest.mark.parametrize(("loss", "penalty"), PAIRS)
def test_corruption_enlarges_the_gap(draw: Draw, loss: str, penalty: str) -> None:
    spikes, targets = _problem(draw, loss, penalty, 4)
    rng = np.random.default_rng(0)
    for fit in _fits(loss, spikes, targets):
        s = solve(fit, penalty, 0.05, tolerance=1e-10)
        chosen = PENALTIES[penalty]
        for size in (1e-2, 1e-1):
            w = s.coefficients + size * rng.standard_normal(s.coefficients.shape)
            b = s.intercept + size * np.eye(fit.outputs)[0]
            for corrupted in (
                certify(fit, chosen, s.beta, w, s.intercept),
                certify(fit, chosen, s.beta, s.coefficients, b),
            ):
                assert corrupted.relative_gap > 100 * s.relative_gap + 1e-6
                assert corrupted.gap >= corrupted.primal - s.primal - 1e-12


@pytest.mark.parametrize(("loss", "penalty"), PAIRS)
@pytest.mark.parametrize(
    "case",
    [
        "no columns",
        "one row",
        "one class",
        "unseen class",
        "empty columns",
        "all columns equal",
        "n < p",
        "complements",
    ],
)
def test_degenerate(loss: str, penalty: str, case: str) -> None:
    rng = np.random.default_rng(5)
    n, p, c = (*{"one row": (1, 6), "n < p": (9, 40)}.get(case, (30, 6)), 3)
    spikes = (rng.random((n, p)) < 0.4).astype(float)
    classes = rng.integers(0, c, n)
    if case == "no columns":
        spikes = spikes[:, :0]
    if case == "one class":
        classes[:] = 1
    if case == "unseen class":
        classes = np.minimum(classes, 1)
    if case == "empty columns":
        spikes[:] = 0
    if case == "complements":
        spikes[:, 3:] = 1 - spikes[:, :3]
    if case == "all columns equal":
        spikes[:] = spikes[:, :1]
    targets = (classes % 2)[:, None].astype(float) if loss == "logistic" else np.eye(c)[classes]
    for fit in _fits(loss, spikes, targets):
        for relative_beta in (1.0, 0.1, 0.001):
            s = solve(fit, penalty, relative_beta, seconds=20)
            assert -1e-12 <= s.relative_gap <= 1e-6
            assert np.isfinite(s.intercept).all()
            if relative_beta == 1.0 and penalty in NORMS:
                assert len(s.support) == 0


def test_regression_with_one_output() -> None:
    rng = np.random.default_rng(6)
    spikes = (rng.random((200, 40)) < 0.3).astype(float)
    targets = 1000 + 50 * spikes[:, :3].sum(axis=1, keepdims=True) + rng.standard_normal((200, 1))
    for fit in _fits("squared", spikes, targets):
        s = solve(fit, "group", 0.01)
        assert s.relative_gap <= 1e-6
        assert {0, 1, 2} <= set(s.support)


@pytest.mark.parametrize("loss", LOSSES)
def test_warm_start_is_quicker_and_ends_at_the_same_value(draw: Draw, loss: str) -> None:
    spikes, targets = draw(loss, 7)
    for fit in _fits(loss, spikes, targets):
        cold = solve(fit, "group", 0.02, tolerance=1e-9)
        warm = solve(fit, "group", 0.02, tolerance=1e-9, start=Point(cold.coefficients, cold.intercept))
        assert warm.primal == pytest.approx(cold.primal, rel=1e-8)


def test_deadline_returns_a_true_gap(draw: Draw) -> None:
    spikes, targets = draw("multinomial", 8)
    s = solve(samples_of("multinomial", spikes, targets), "group", 0.001, seconds=0)
    assert np.isfinite(s.relative_gap)
    assert s.relative_gap > 1e-6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"penalty": "lasso"}, "penalty: expected one of l1, group, ridge, none, got 'lasso'"),
        ({"relative_beta": 0.0}, r"relative_beta: expected a number in \(0, 1\], got 0.0"),
        ({"tolerance": 2.0}, "tolerance: expected"),
        ({"backend": "magic"}, "backend: expected native or cvxpy, got 'magic'"),
        ({"start": Point(np.zeros((1, 1)), np.zeros(1))}, "start: expected shapes"),
    ],
)
def test_refuses(draw: Draw, change: dict, says: str) -> None:
    arguments = {"fit": samples_of("squared", *draw("squared", 0)), "penalty": "group", "relative_beta": 0.1}
    with pytest.raises(ValueError, match=says):
        solve(**{**arguments, **change})


def test_digits_reach_the_tolerance() -> None:
    """scikit-learn's digits through random threshold neurons, 1,200 samples: each loss, certified, and it predicts."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    spikes = (x[:, rng.integers(0, 64, (128, 8))].sum(axis=2) >= rng.integers(20, 80, 128)).astype(float)
    train, test = slice(0, 1200), slice(1200, None)
    for loss in ("squared", "multinomial"):
        fits = _fits(loss, spikes[train], np.eye(10)[y[train]])
        s = solve(fits[-1], "group", 0.01)
        accuracy = ((spikes[test] @ s.coefficients + s.intercept).argmax(axis=1) == y[test]).mean()
        assert s.relative_gap <= 1e-6
        assert accuracy > 0.75


@pytest.mark.parametrize("penalty", ["l1", "group", "ridge"])
@pytest.mark.parametrize("relative_beta", [0.3, 0.02])
def test_heads_share_the_dictionary(draw: Draw, penalty: str, relative_beta: float) -> None:
    """Digit and carry, and a number beside them: cvxpy's optimum, and under the group penalty one support."""
    spikes, digits = draw("multinomial", 4)
    rng = np.random.default_rng(4)
    carry, number = spikes[:, 4:5], spikes[:, 5:7] + rng.standard_normal((len(spikes), 2))
    heads = Heads([(LOSSES["multinomial"], digits.shape[1]), (LOSSES["logistic"], 1), (LOSSES["squared"], 2)])
    fit = Samples(heads, BitMatrix.from_dense(spikes), np.concatenate([digits, carry, number], axis=1))
    oracle = solve(fit, penalty, relative_beta, backend="cvxpy")
    ours = solve(fit, penalty, relative_beta, tolerance=1e-9)
    assert ours.relative_gap <= 1e-9
    assert ours.primal == pytest.approx(oracle.primal, rel=1e-8)
    scores = spikes @ ours.coefficients + ours.intercept
    parts = [LOSSES["multinomial"].value(scores[:, :-3], digits), LOSSES["logistic"].value(scores[:, -3:-2], carry)]
    parts.append(LOSSES["squared"].value(scores[:, -2:], number))
    assert ours.primal == pytest.approx(
        np.sum(parts, axis=0).mean() + ours.beta * PENALTIES[penalty].value(ours.coefficients)
    )


def test_a_head_needs_an_output() -> None:
    for heads in ([], [(LOSSES["squared"], 0)]):
        with pytest.raises(ValueError, match="heads: expected at least one"):
            Heads(heads)

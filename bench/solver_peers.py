"""The peers of the solver benchmark, each where it states our objective, its intercept free (`bench/solver.py`).

min over (W, b):  (1/N) sum_i loss(D_i W + b, y_i) + beta penalty(W)

A peer is prepared for a problem, which is not timed: D in the layout it wants, what it compiles compiled. Then it is
run at rising efforts, each time from zero: limits of its iterations, or tolerances, whatever its users would set.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from snn.bits import BitMatrix
from solver_service.certificate import beta_max
from solver_service.fit import Samples
from solver_service.losses import Array
from solver_service.penalties import Penalty

DENSE = 0.25  # density from which D as an array is the faster layout
LARGEST = 1e9  # bytes of D as a float64 array: the benchmark stays below 6 GB
SMALL_ROWS = 64  # to compile for
SMALL = 1e6  # entries of D: what an interior point method takes a minute for
BLOCK = 4096  # rows or columns made sparse at a time
INTERCEPT = 1e4  # liblinear penalises its intercept, divided by this
PATH = 10  # betas on adelie's way from beta_max
NEVER = 1e-14  # a tolerance that is not reached: the limit of iterations stops

Run = Callable[[float], Array]  # effort -> W [P, C]


class Design:
    """D as peers want it, in float64. A layout is made when it is first asked for."""

    def __init__(self, spikes: BitMatrix) -> None:
        self.shape = spikes.rows, spikes.columns
        self.counts = spikes.transpose_times(np.ones((spikes.rows, 1)))[:, 0].astype(np.int64)
        self.density = float(self.counts.sum()) / (spikes.rows * spikes.columns)
        self.is_dense = self.density >= DENSE
        self.fits = 8 * spikes.rows * spikes.columns <= LARGEST
        self._spikes = spikes

    @cached_property
    def by_column(self) -> Any:
        """A column-major array, or CSC."""
        if self.is_dense:
            return self._array("F")
        return sparse.csc_matrix(self._entries(self._spikes.dense().T), self.shape)

    @cached_property
    def by_row(self) -> Any:
        """A row-major array, or CSR."""
        return self._array("C") if self.is_dense else sparse.csr_matrix(self._entries(self._spikes.dense()), self.shape)

    @cached_property
    def centred(self) -> Array:
        """A column-major array less its columns' means: the free intercept is eliminated."""
        array = self._array("F")
        array -= self.counts / self.shape[0]
        return array

    def _array(self, order: Literal["C", "F"]) -> Array:
        return np.asarray(self._spikes.dense(), np.float64, order=order)

    def _entries(self, lines: Any) -> tuple[Any, Any, Any]:
        tops = range(0, len(lines), BLOCK)
        indices = np.concatenate([np.nonzero(lines[top : top + BLOCK])[1].astype(np.int32) for top in tops])
        ends = np.cumsum(lines.sum(axis=1, dtype=np.int64))
        return self._ones, indices, np.concatenate([[0], ends]).astype(np.int32)

    @cached_property
    def _ones(self) -> Array:
        return np.ones(self.counts.sum())


class Problem(NamedTuple):
    """`fit` certifies; its targets are 0 and 1, one column of them or one for each class."""

    design: Design
    fit: Samples
    penalty: Penalty
    beta: float

    @property
    def kind(self) -> str:
        return f"{self.fit.loss.name} {self.penalty.name}"


def liblinear(problem: Problem) -> Run:
    """Coordinate descent on second-order models (newGLMNET). Its intercept counts little."""
    return _logistic_regression(problem, solver="liblinear", intercept_scaling=INTERCEPT, random_state=0)


def saga(problem: Problem) -> Run:
    """Stochastic, with variance reduction."""
    return _logistic_regression(problem, solver="saga", random_state=0)


def _logistic_regression(problem: Problem, **options: Any) -> Run:
    d, y = problem.design.by_row, problem.fit.targets[:, 0]
    c = 1 / (problem.fit.rows * problem.beta)

    def run(iterations: float) -> Array:
        model = LogisticRegression(l1_ratio=1, C=c, tol=NEVER, max_iter=int(iterations), **options)
        return np.asarray(model.fit(d, y).coef_.T)

    return run


def celer(problem: Problem) -> Run:
    """Coordinate descent on working sets, with dual extrapolation. Its logistic regression has no intercept."""
    from celer.homotopy import celer_path, mtl_path

    y = problem.fit.targets - problem.fit.mean(problem.fit.targets)
    if problem.fit.outputs > 1:
        d = problem.design.centred
        return lambda tolerance: mtl_path(d, y, alphas=[problem.beta], tol=tolerance)[1][:, :, 0].T
    d, centre = _centred(problem.design)

    def run(tolerance: float) -> Array:
        return np.asarray(celer_path(d, y[:, 0], "lasso", alphas=[problem.beta], tol=tolerance, **centre)[1])

    return run


def _centred(design: Design) -> tuple[Any, dict[str, Array]]:
    """Sparse columns are centred as they are read."""
    if design.is_dense:
        return design.centred, {}
    return design.by_column, {"X_offset": design.counts / design.shape[0], "X_scale": np.ones(design.shape[1])}


def skglm(problem: Problem) -> Run:
    """Coordinate descent on working sets, with Anderson acceleration; for the logistic loss inside proximal Newton."""
    from skglm.datafits import Logistic, Quadratic, QuadraticMultiTask
    from skglm.penalties import L1, L2_1
    from skglm.solvers import AndersonCD, MultiTaskBCD, ProxNewton

    solver, datafit, penalty = {
        "squared l1": (AndersonCD, Quadratic, L1),
        "logistic l1": (ProxNewton, Logistic, L1),
        "squared group": (MultiTaskBCD, QuadraticMultiTask, L2_1),
    }[problem.kind]
    y = problem.fit.targets
    if problem.kind == "logistic l1":
        y = 2 * y - 1
    y = np.asfortranarray(y) if problem.fit.outputs > 1 else y[:, 0]

    def on(d: Any, y: Array) -> Run:
        return lambda iterations: solver(max_iter=int(iterations), tol=NEVER).solve(
            d, y, datafit(), penalty(problem.beta)
        )[0][:-1]

    few = slice(SMALL_ROWS)
    on(_contiguous(problem.design.by_column[few]), _contiguous(y[few]))(1)  # compiles
    run = on(problem.design.by_column, y)
    return lambda iterations: run(iterations).reshape(problem.fit.columns, -1)


def _contiguous(d: Any) -> Any:
    """A slice in the layout of the whole: what is compiled depends on it."""
    return d if sparse.issparse(d) else np.asfortranarray(d)


def skglm_gram(problem: Problem) -> Run:
    """Its coordinate descent on D'D, which it multiplies first."""
    from skglm.penalties import L1
    from skglm.solvers import GramCD

    y = (problem.fit.targets - problem.fit.mean(problem.fit.targets))[:, 0]

    def on(d: Array, y: Array) -> Run:
        return lambda iterations: GramCD(max_iter=int(iterations), tol=NEVER, fit_intercept=False).solve(
            d, y, None, L1(problem.beta)
        )[0]

    few = slice(SMALL_ROWS)
    on(_contiguous(problem.design.centred[few]), y[few])(1)  # compiles
    run = on(problem.design.centred, y)
    return lambda iterations: run(iterations)[:, None]


def cyanure(problem: Problem) -> Run:
    """Variance reduction or FISTA under Catalyst or a quasi-Newton method: its choice."""
    from cyanure.estimators import Classifier, Regression

    d, y = problem.design.by_row, problem.fit.targets
    options: dict[str, Any] = {
        "penalty": "l1" if problem.penalty.name == "l1" else "l1l2",
        "lambda_1": problem.beta, "fit_intercept": True, "tol": NEVER, "verbose": False, "n_threads": 1,
    }  # fmt: skip
    labels = y.argmax(axis=1) if problem.fit.loss.name == "multinomial" else y if problem.fit.outputs > 1 else y[:, 0]

    def run(passes: float) -> Array:
        options["max_iter"] = int(passes)
        squared = problem.fit.loss.name == "squared"
        model = Regression(**options) if squared else Classifier(loss="logistic", **options)
        return np.asarray(model.fit(d, labels).coef_).reshape(problem.fit.columns, -1)

    return run


def adelie(problem: Problem) -> Run:
    """Block coordinate descent on screened groups, in Newton steps, along a path of ten betas."""
    from adelie import glm, grpnet, matrix

    y, outputs = problem.fit.targets, problem.fit.outputs
    family = {
        "squared": glm.multigaussian if outputs > 1 else glm.gaussian,
        "logistic": glm.binomial,
        "multinomial": glm.multinomial,
    }[problem.fit.loss.name]
    d = problem.design.by_column
    d = matrix.dense(d, method="naive") if problem.design.is_dense else matrix.sparse(d, method="naive")
    betas = np.geomspace(beta_max(problem.fit, problem.penalty), problem.beta, PATH) / outputs  # its loss has 1/C

    def run(tolerance: float) -> Array:
        state = grpnet(
            d, family(y if outputs > 1 else y[:, 0], dtype=np.float64), lmda_path=betas, early_exit=False,
            penalty=np.ones(problem.fit.columns), tol=tolerance, irls_tol=tolerance, progress_bar=False,
        )  # fmt: skip
        return np.asarray(state.betas[-1].toarray()).reshape(problem.fit.columns, outputs)

    return run


def cvxpy(problem: Problem) -> Run:
    """Clarabel's interior point method, as our own backend states the problem to it."""
    from solver_service.solvers import with_cvxpy

    return lambda _: with_cvxpy.solve(problem.fit, problem.penalty, problem.beta).w


class Peer(NamedTuple):
    """`prepare` makes the run for problems of `kinds`; `efforts` rise."""

    prepare: Callable[[Problem], Run]
    kinds: tuple[str, ...]
    efforts: Sequence[float]
    takes: Callable[[Problem], bool] = lambda _: True
    package: str = "sklearn"
    compiles: bool = False  # for many seconds a problem: trials do without

    @property
    def installed(self) -> bool:
        return find_spec(self.package) is not None


DOUBLED, QUADRUPLED = [2.0**k for k in range(24)], [4.0**k for k in range(12)]
TOLERANCES = [10.0**-k for k in range(1, 13)]
SQUARED, EVERY = ("squared l1", "squared group"), ("squared l1", "logistic l1", "squared group", "multinomial group")
PEERS = {
    "liblinear": Peer(liblinear, ("logistic l1",), QUADRUPLED),
    "saga": Peer(saga, ("logistic l1",), QUADRUPLED),
    "celer": Peer(celer, SQUARED, TOLERANCES, lambda p: p.fit.outputs == 1 or p.design.fits, "celer"),
    "skglm": Peer(skglm, (*SQUARED, "logistic l1"), DOUBLED, package="skglm", compiles=True),
    "skglm, Gram": Peer(skglm_gram, ("squared l1",), QUADRUPLED, lambda p: p.design.fits, "skglm"),
    "cyanure": Peer(cyanure, EVERY, QUADRUPLED, package="cyanure"),
    "adelie": Peer(adelie, EVERY, TOLERANCES, package="adelie"),
    "cvxpy, Clarabel": Peer(cvxpy, SQUARED, (1,), lambda p: p.design.shape[0] * p.design.shape[1] <= SMALL, "cvxpy"),
}

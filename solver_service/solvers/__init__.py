"""Solvers. `solve` is the one public entry: it validates, picks the solver, rounds to the grid and certifies.

The rule, by loss, penalty and number of outputs C (one output: group and L1 are the same problem):

squared      L1              ssnal           moments: cost free of N; the outputs one after the other
squared      group           eta_newton      moments: one factor serves all outputs
squared      ridge, none     direct          moments: one factorisation
any other    L1, C = 1       prox_newton     ssnal on weighted moments
any other    L1, group       newton_cg       Hessian products with the rows, preconditioned
any other    ridge, none     smooth_newton   the same without groups
any          any             with_cvxpy      small problems, backend="cvxpy"
"""

import time
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from solver_service.certificate import beta_max, certify
from solver_service.fit import Moments, Samples
from solver_service.grid import to_grid
from solver_service.linear_algebra import factors_on, one_thread
from solver_service.losses import Array
from solver_service.penalties import PENALTIES, Penalty, PenaltyName, SumOfNorms
from solver_service.solvers import direct, eta_newton, newton_cg, prox_newton, smooth_newton, ssnal
from solver_service.solvers.base import Point, Progress, Stop


class Solution(NamedTuple):
    """A readout on its dyadic grid, with the certificate of exactly these numbers."""

    coefficients: Array  # [P, C]; rows outside the support are exactly zero
    intercept: Array  # [C]
    support: npt.NDArray[np.int64]  # [S] rising
    beta: float
    primal: float
    dual: float
    relative_gap: float
    seconds: float


def solve(
    fit: Moments | Samples,
    penalty: PenaltyName,
    relative_beta: float,
    tolerance: float = 1e-6,
    start: Point | None = None,
    seconds: float = np.inf,
    backend: Literal["native", "cvxpy"] = "native",
    device: str | None = None,
    progress: Progress = lambda gap: None,
) -> Solution:
    """The readout of `fit` at beta = relative_beta * beta_max (`certificate.beta_max`), 0 where the penalty is none;
    from `start` where there is one. `device`: a device of torch ("cuda") for products with D and large factors; None
    for the kernels compiled for this CPU. Only the order of summation differs. `progress` is told the relative gap of
    each point on the way, with the squared loss and L1 that of one output after the other.

    It stops at `tolerance` or after about `seconds`, and says by its gap how far it came. Raises ValueError for an
    argument that cannot be used.
    """
    begun = time.monotonic()
    _validate(fit, penalty, relative_beta, tolerance, start, backend)
    if isinstance(fit, Samples):
        fit = fit.on(device)
    with one_thread(), factors_on(device):
        chosen = PENALTIES["l1" if fit.outputs == 1 and penalty == "group" else penalty]
        beta = relative_beta * beta_max(fit, chosen) if penalty != "none" else 0.0
        zero = np.zeros((fit.columns, fit.outputs))
        point = start or Point(zero, fit.intercept(zero))
        stop = Stop(tolerance / 2, begun + seconds, progress)  # half: room for the rounding
        if not fit.columns or (isinstance(chosen, SumOfNorms) and relative_beta == 1):
            point = Point(zero, fit.intercept(zero))
        elif backend == "cvxpy":
            from solver_service.solvers import with_cvxpy  # here: cvxpy takes seconds and 100 MB to import

            point = with_cvxpy.solve(fit, chosen, beta)
        else:
            point = _native(fit, chosen, beta, point, stop)
        w, b = to_grid(*point)
        certificate = certify(fit, chosen, beta, w, b)
    support = np.flatnonzero(w.any(axis=1))
    gap, elapsed = certificate.relative_gap, time.monotonic() - begun
    return Solution(w, b, support, beta, certificate.primal, certificate.dual, gap, elapsed)


def _native(fit: Moments | Samples, penalty: Penalty, beta: float, start: Point, stop: Stop) -> Point:
    """By the rule above."""
    if fit.loss.name == "squared":
        moments = fit if isinstance(fit, Moments) else fit.moments()
        if not isinstance(penalty, SumOfNorms):
            return direct.solve(moments, beta)
        if penalty.name == "group":
            return eta_newton.solve(moments, beta, start.w, stop)
        return ssnal.solve(moments, beta, start.w, stop)
    assert isinstance(fit, Samples)  # Moments have the squared loss
    if not isinstance(penalty, SumOfNorms):
        return smooth_newton.solve(fit, penalty, beta, start, stop)
    if fit.outputs == 1:
        return prox_newton.solve(fit, beta, start, stop)
    return newton_cg.solve(fit, penalty, beta, start, stop)


def _validate(
    fit: Moments | Samples, penalty: str, relative_beta: float, tolerance: float, start: Point | None, backend: str
) -> None:
    if fit.rows < 1:
        raise ValueError("expected at least one row, got an empty dictionary; wait for data")
    if penalty not in PENALTIES:
        raise ValueError(f"penalty: expected one of {', '.join(PENALTIES)}, got {penalty!r}")
    if not 0 < relative_beta <= 1:
        raise ValueError(f"relative_beta: expected a number in (0, 1], got {relative_beta}")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance: expected a number in (0, 1), got {tolerance}")
    if backend not in ("native", "cvxpy"):
        raise ValueError(f"backend: expected native or cvxpy, got {backend!r}")
    shape = (fit.columns, fit.outputs)
    if start is not None and (start.w.shape != shape or start.b.shape != shape[1:]):
        raise ValueError(f"start: expected shapes {shape} and {shape[1:]}, got {start.w.shape} and {start.b.shape}")


__all__ = ["Point", "Solution", "solve"]

"""The warm path: one readout for each beta, from sparse to dense, and the beta that held-out rows would choose.

loss(beta)  = sum_i s_i loss(D_i W(beta) + b(beta), y_i)  over the held-out rows,  s_i = weight_i / total weight
best        = the beta of the smallest loss
sparsest    = the largest beta whose loss is within one standard error of the smallest (Breiman et al. 1984, 3.4.3)
"""

import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from solver_service.fit import Moments, Samples
from solver_service.losses import Array
from solver_service.penalties import PenaltyName
from solver_service.solvers import Point, Solution, solve

RELATIVE_BETAS = tuple(np.geomspace(1.0, 1e-3, 13))  # four a decade
PATH_TOLERANCE = 1e-4  # of the points that only compare betas
Choice = Literal["best", "sparsest"]


class Path(NamedTuple):
    """Along falling `relative_betas` [B]: solutions, their loss [B] on held-out rows and its standard error [B]."""

    relative_betas: Array
    solutions: list[Solution]
    losses: Array
    errors: Array

    def chosen(self, rule: Choice) -> int:
        """Index of the beta that `rule` takes."""
        best = int(np.argmin(self.losses))
        if rule == "best":
            return best
        return int(np.flatnonzero(self.losses <= self.losses[best] + self.errors[best])[0])


def warm_path(
    fit: Moments | Samples,
    held_out: Samples,
    penalty: PenaltyName,
    relative_betas: Sequence[float] = RELATIVE_BETAS,
    tolerance: float = PATH_TOLERANCE,
    seconds: float = np.inf,
    device: str | None = None,
) -> Path:
    """Readouts of `fit` at each of `relative_betas`, largest first, each started from the one before it, and their loss
    on `held_out`, rows of the same columns and outputs that `fit` has not seen.

    Raises ValueError for arguments that cannot be used. `seconds` bounds the whole path: what is left of them bounds
    each solve, and each says by its gap how far it came. `device` as in `solve`.
    """
    if (held_out.columns, held_out.outputs) != (fit.columns, fit.outputs) or not held_out.rows:
        expected, got = (fit.columns, fit.outputs), (held_out.rows, held_out.columns, held_out.outputs)
        raise ValueError(f"held_out: expected rows of {expected[0]} columns and {expected[1]} outputs, got {got}")
    if not len(relative_betas):
        raise ValueError("relative_betas: expected at least one number in (0, 1], got none")
    deadline = time.monotonic() + seconds
    if isinstance(fit, Samples):
        fit = fit.on(device)
    betas: Array = np.sort(np.asarray(relative_betas, np.float64))[::-1]
    solutions: list[Solution] = []
    for beta in betas:
        start = Point(solutions[-1].coefficients, solutions[-1].intercept) if solutions else None
        left = max(0.0, deadline - time.monotonic())
        solutions.append(solve(fit, penalty, float(beta), tolerance, start, left, device=device))
    scored = [_scored(held_out, solution) for solution in solutions]
    return Path(betas, solutions, *(np.array(figures) for figures in zip(*scored, strict=True)))


def _scored(held_out: Samples, solution: Solution) -> tuple[float, float]:
    """Mean loss and its standard error."""
    losses = held_out.loss.value(held_out.times(solution.coefficients) + solution.intercept, held_out.targets)
    share = held_out.share[:, 0]
    mean = float(share @ losses)
    return mean, float(np.sqrt(np.square(share) @ np.square(losses - mean)))

"""Any smooth loss with one output and L1: proximal Newton around the semismooth Newton method of `ssnal`.

With scores z = D w + b and weights h_i = loss''(z_i), the loss is replaced by its second-order model at (w, b). The
model's best intercept is eliminated, which centres the weighted Gram matrix:

    A = D' diag(h) D / N - m m' / t,   m = D'h/N,   t = mean h
    min over v:  (v - w)' A (v - w) / 2 - c'(v - w) + beta |v|_1,   c = -D' loss'(z) / N

A line search on the objective guards the step to v, so A need not be exact: it is counted on a sample of rows, and
serves the steps that follow, for as long as the gap closes quickly. It runs on a working set: the support and the
worst violators, at most doubling. Lee, Sun and Saunders 2014, "Proximal Newton-type methods for minimizing composite
functions".
"""

from typing import NamedTuple

import numpy as np

from snn.bits import Indices
from solver_service.certificate import Certificate, dual_value
from solver_service.fit import Samples
from solver_service.losses import Array
from solver_service.penalties import NORMS
from solver_service.solvers import ssnal
from solver_service.solvers.base import Point, Stop, worst_violators
from solver_service.solvers.newton_system import sampled_gram

L1 = NORMS["l1"]
FIRST_WORKING_SET = 64
EASIER = 0.1  # the model is solved to this share of the gap
FLAT = 1e-6  # of the loss's largest curvature: a saturated sample counts at least so much
SAMPLE_ROWS = 32768  # counting bits of them takes a tenth of a float product of 60,000
QUICK = 0.25  # a step that leaves more of the gap asks for a new A
LARGEST_STEPS = 200
SMALLEST_STEP = 1e-6


def solve(fit: Samples, beta: float, start: Point, stop: Stop) -> Point:
    """(W, b) from the warm start; fit has one output."""
    w, offsets, b = start.w[:, 0], fit.times(start.w), start.b
    best, best_gap, before = start, np.inf, np.inf
    curvature: _Curvature | None = None
    sample, renewed = SAMPLE_ROWS, False
    for _ in range(LARGEST_STEPS):
        b = fit.loss.intercept(offsets, fit.targets, fit.share, b)
        scores = offsets + b
        ray = fit.dual_ray_at(scores)
        primal = float(fit.mean(fit.loss.value(scores, fit.targets))) + beta * float(np.abs(w).sum())
        now = Certificate(primal, dual_value(ray, L1, beta))
        if now.gap < best_gap:
            best, best_gap = Point(w[:, None], b), now.gap
        if stop.reached(now.relative_gap):
            break
        support = w != 0
        limit = max(FIRST_WORKING_SET, int(support.sum()))
        entering = worst_violators(L1.dual_norms(ray.correlation), beta, ~support, limit)
        inside = np.sort(np.concatenate([np.flatnonzero(support), entering]))
        covered = curvature is not None and bool(np.isin(inside, curvature.columns).all())
        slow = now.gap > QUICK * before
        if covered and slow and renewed:
            sample = fit.rows
        renewed = not covered or slow
        if curvature is None or renewed:
            curvature = _curvature(fit, scores, inside, sample)
        model = _model(fit, beta, curvature, inside, w[inside], scores, ray.correlation[inside, 0])
        target = max(stop.relative_gap / 2, EASIER * now.relative_gap) * max(1.0, abs(primal))
        step = np.zeros_like(w)
        step[inside] = ssnal.proximal_points(model, w[inside], target, stop) - w[inside]
        offset_step = fit.times(step[:, None])
        size, shift = _line_search(fit, beta, w, offsets, b, step, offset_step)
        if size == 0 and renewed and sample >= fit.rows:
            break
        w, offsets, b, before = w + size * step, offsets + size * offset_step, b + size * shift, now.gap
        w[np.abs(w) < 1e-300] = 0
    return best


class _Curvature(NamedTuple):
    """A over some columns, and the h_i / N it was made of."""

    columns: Indices
    share: Array  # [N, 1]
    a: Array  # [k, k]


def _curvature(fit: Samples, scores: Array, columns: Indices, sample: int) -> _Curvature:
    share = fit.share * np.maximum(fit.loss.hessian_diagonal(scores), FLAT * fit.loss.curvature)
    whole = sampled_gram(fit, share[:, 0], columns, sample).astype(np.float64)
    m = whole[:-1, -1]
    return _Curvature(columns, share, whole[:-1, :-1] - np.outer(m, m / whole[-1, -1]))


def _model(
    fit: Samples, beta: float, curvature: _Curvature, inside: Indices, w: Array, scores: Array, c: Array
) -> ssnal.Quadratic:
    columns, share, a = curvature
    if len(inside) < len(columns):
        at = np.searchsorted(columns, inside)
        a = a[np.ix_(at, at)]
    pull = fit.share * fit.loss.gradient(scores, fit.targets)
    response = scores - np.divide(pull, share, out=np.zeros_like(pull), where=share > 0)  # rows may weigh nothing
    centred = response - float((share * response).sum()) / float(share.sum())
    return ssnal.Quadratic(a, c + a @ w, beta, float((share * np.square(centred)).sum()))


def _line_search(
    fit: Samples, beta: float, w: Array, offsets: Array, b: Array, step: Array, offset_step: Array
) -> tuple[float, Array]:
    """The step's size, 0 where no size descends, and the intercept's share of the step."""
    before = float(fit.mean(fit.loss.value(offsets + b, fit.targets))) + beta * float(np.abs(w).sum())
    size = 1.0
    shift = fit.loss.intercept(offsets + offset_step, fit.targets, fit.share, b) - b
    while size > SMALLEST_STEP:
        after = float(fit.mean(fit.loss.value(offsets + size * offset_step + b + size * shift, fit.targets)))
        if after + beta * float(np.abs(w + size * step).sum()) < before:
            return size, shift
        size /= 2
    return 0.0, shift

"""What a witness outside the dictionary is worth, and which of many enter it.

At a readout with scores z, over rows with shares s_i (1/N where all weigh the same):

    R = -gradient(z, y)  [N, C]        c(d) = sum_i s_i d_i (R_i - mean R)        price(d) = the dual norm of c(d)

A column lowers the optimum if and only if its price exceeds beta: for any other the dual point of the certificate stays
feasible. c needs sums over rows alone, those of `snn.sums` with residuals as targets: they add up over shards.

By how much it lowers the squared loss depends on what is there already. With H the centred second moments and K the
columns that are kept:

    gain(d) = ||c(d)||^2 / h(d),    h(d) = H_dd + ridge - H_dK (H_KK + ridge I)^-1 H_Kd

`choose` takes the column of largest gain and deflates c and h of the others by it, again and again (orthogonal least
squares: Chen, Billings, Luo 1989), so that what nearly repeats a kept or chosen column does not enter.
"""

import numpy as np
import numpy.typing as npt

from snn.sums import Sums
from solver_service.linear_algebra import damped_cholesky
from solver_service.losses import Array, Loss
from solver_service.penalties import SumOfNorms

Indices = npt.NDArray[np.intp]
RIDGE = 0.0025  # a hundredth of the variance of a column that fires half of the time


def residuals(loss: Loss, scores: Array, targets: Array) -> Array:
    """R [N, C] of scores and targets [N, C]."""
    return -loss.gradient(scores, targets)


def correlations(sums: Sums) -> Array:
    """c [P, C] of candidates, from their sums with residuals as targets."""
    return np.asarray(sums.cross - np.outer(sums.counts, sums.total / sums.weight)) / sums.weight


def variances(sums: Sums) -> Array:
    """H_dd [P]."""
    frequency = sums.counts / sums.weight
    return np.asarray(frequency * (1 - frequency))


def prices(sums: Sums, penalty: SumOfNorms) -> Array:
    """[P] of candidates; to be held against beta."""
    return penalty.dual_norms(correlations(sums))


def shortlist(sums: Sums, count: int) -> Indices:
    """Up to `count` of the candidates, those first whose gain in an empty dictionary would be largest; none that is
    constant."""
    c, variance = correlations(sums), variances(sums)
    gain = np.divide(np.square(c).sum(axis=1), variance, out=np.zeros(len(c)), where=variance > 0)
    best = np.argsort(-gain, kind="stable")[:count]
    return best[gain[best] > 0]


def choose(curvature: Array, c: Array, count: int) -> Indices:
    """Up to `count` of S candidates by falling gain. curvature: H [K + S, K + S] of the kept columns and then the
    candidates; c: [S, C] of the candidates."""
    kept = len(curvature) - len(c)
    ridged = curvature + RIDGE * np.eye(len(curvature))
    beside, h = ridged[:kept, kept:], ridged[kept:, kept:]
    if kept:
        h = h - beside.T @ damped_cholesky(ridged[:kept, :kept]).solve(beside)
    c, left = c.copy(), np.ones(len(c), np.bool_)
    chosen: list[int] = []
    while len(chosen) < count and (left := left & (h.diagonal() > 2 * RIDGE)).any():
        gain = np.divide(np.square(c).sum(axis=1), h.diagonal(), out=np.full(len(c), -1.0), where=left)
        best = int(np.argmax(gain))
        row = h[best] / h[best, best]
        c -= np.outer(row, c[best])
        h -= np.outer(row, h[best])
        left[best] = False
        chosen.append(best)
    return np.array(chosen, np.intp)


def enough(fresh: Array, beta: float, slack: float) -> bool:
    """Whether no price [P] on rows that no readout was trained on is worth another column: all <= (1 + slack) beta. On
    the rows of the readout itself, chance alone makes prices of about sqrt(sum R^2 / N^2)."""
    return bool((fresh <= (1 + slack) * beta).all())

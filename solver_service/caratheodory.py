"""Caratheodory's bound: no readout needs more active columns than N C (design, section 2.3; paper, appendix B).

    D W = sum_j c_j d_j v_j',   c_j = ||W_j||_2,   v_j = W_j / c_j          (scalar output: v_j is a sign)

While the d_j v_j' of the active columns are dependent, sum_j z_j d_j v_j' = 0, all of c + s z predict the same. Along z
or -z the penalty sum_j c_j does not rise: follow it until a coefficient is 0. So an optimal readout ends as an optimal
readout of at most N C columns, one less than the convex hull of signed columns needs and the paper states, for N rows
(samples; N T with a target at every timestep) and C outputs.
"""

import numpy as np

from solver_service.losses import Array

DEPENDENT = 1e-10  # of the largest singular value: what is smaller is round-off


def few_columns(spikes: Array, w: Array) -> Array:
    """Coefficients [P, C] that predict what W [P, C] does on spikes [N, P], up to round-off, with a group penalty no
    larger than W's and at most N C rows that are not zero. Raises ValueError where the shapes disagree."""
    if spikes.ndim != 2 or w.ndim != 2 or spikes.shape[1] != len(w):
        raise ValueError(f"expected spikes [N, P] and W [P, C], got {list(spikes.shape)} and {list(w.shape)}")
    sizes = np.linalg.norm(w, axis=1)
    active = np.flatnonzero(sizes)
    size, direction = sizes[active], w[active] / sizes[active, None]
    atoms = np.einsum("nj,jc->ncj", spikes[:, active], direction).reshape(spikes.shape[0] * w.shape[1], len(active))
    left = np.arange(len(active))
    while (z := _dependence(atoms[:, some := left[: len(atoms) + 1]])) is not None:
        if z.sum() > 0:
            z = -z
        steps = np.divide(size[some], -z, out=np.full(len(z), np.inf), where=z < 0)
        gone = int(np.argmin(steps))
        size[some] = np.maximum(0.0, size[some] + steps[gone] * z)
        left = np.delete(left, gone)
    reduced = np.zeros_like(w)
    reduced[active[left]] = size[left, None] * direction[left]
    return reduced


def _dependence(atoms: Array) -> Array | None:
    """z [k] with atoms [N C, k] times z = 0, or None where only 0 does it."""
    if not atoms.shape[1]:
        return None
    _, values, right = np.linalg.svd(atoms)
    if len(values) == atoms.shape[1] and values[-1] > DEPENDENT * values[0]:
        return None
    return np.asarray(right[-1])

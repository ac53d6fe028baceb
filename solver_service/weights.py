"""What a row counts for: less the older it is, and as much for a rare class as for a frequent one.

by age:    2^(-a / h), a the number of newer rows, h the half-life
balanced:  W / (K W_c) times as much for the rows of class c, W the weight of all rows, W_c of those of c, K classes
           that occur; without ages it is scikit-learn's class_weight="balanced", n / (K n_c)
"""

import math

import numpy as np

from snn.model import ModelSpec
from solver_service.losses import Array

HALVINGS = 20  # a row of 2^-20, a millionth, of the newest one's weight is forgotten


def lifetime(half_life: int) -> int:
    """Rows until a row has been forgotten."""
    return math.ceil(HALVINGS * half_life)


def half_life_of(model: ModelSpec) -> int | None:
    """In rows, of which a sample may have several."""
    return model.readout.half_life and model.readout.half_life * model.target_steps


def of_rows(targets: Array, model: ModelSpec) -> Array:
    """Weights [N] of rows that are kept, the oldest first, with targets [N, C] as the loss takes them."""
    weights = by_age(len(targets), half_life_of(model))
    return balanced(weights, targets) if model.readout.class_weight == "balanced" else weights


def by_age(rows: int, half_life: int | None) -> Array:
    """Weights [N] of rows, the oldest first."""
    return np.ones(rows) if half_life is None else np.exp2(-np.arange(rows - 1, -1, -1) / half_life)


def balanced(weights: Array, targets: Array) -> Array:
    """Weights [N] with which each class weighs the same, of targets [N, C]: one-hot rows, or a column of 0 and 1."""
    members = np.hstack([1 - targets, targets]) if targets.shape[1] == 1 else targets
    share = weights @ members
    occur = share > 0
    factor = np.divide(weights.sum(), occur.sum() * share, out=np.zeros(len(share)), where=occur)
    return np.asarray(weights * (members @ factor))

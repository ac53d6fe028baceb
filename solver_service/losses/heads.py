"""Several heads over one dictionary, each with a loss of its own; the group penalty keeps or drops a column for all.

loss(z, y) = sum over heads h of loss_h(z_h, y_h)        conjugate(q, y) = sum over heads h of conjugate_h(q_h, y_h)

where z_h, y_h and q_h are the head's columns of z, y and q.
"""

from collections.abc import Callable, Sequence

import numpy as np

from solver_service.losses.base import Array, Floats, Loss


class Heads:
    name = "heads"

    def __init__(self, heads: Sequence[tuple[Loss, int]]) -> None:
        """Each head's loss and how many outputs it has. Raises ValueError without heads or for one without outputs."""
        if not heads or any(outputs < 1 for _, outputs in heads):
            raise ValueError(f"heads: expected at least one, of at least one output, got {[n for _, n in heads]}")
        ends = np.cumsum([outputs for _, outputs in heads]).tolist()
        self.heads = [(loss, slice(end - outputs, end)) for (loss, outputs), end in zip(heads, ends, strict=True)]
        self.curvature = max(loss.curvature for loss, _ in heads)

    def value(self, scores: Array, targets: Array) -> Array:
        return np.sum([loss.value(scores[:, at], targets[:, at]) for loss, at in self.heads], axis=0)

    def gradient(self, scores: Array, targets: Array) -> Array:
        return self._beside(lambda loss, at: loss.gradient(scores[:, at], targets[:, at]))

    def hessian(self, scores: Floats) -> Callable[[Floats], Floats]:
        both = [(loss.hessian(np.ascontiguousarray(scores[:, at])), at) for loss, at in self.heads]
        return lambda direction: np.concatenate(
            [product(np.ascontiguousarray(direction[:, at])) for product, at in both], axis=1
        )

    def hessian_diagonal(self, scores: Array) -> Array:
        return self._beside(lambda loss, at: loss.hessian_diagonal(scores[:, at]))

    def centred(self, values: Floats) -> Floats:
        return self._beside(lambda loss, at: loss.centred(values[:, at]))

    def conjugate(self, dual: Array, targets: Array) -> Array:
        return np.sum([loss.conjugate(dual[:, at], targets[:, at]) for loss, at in self.heads], axis=0)

    def dual_scale(self, gradient: Array, targets: Array, share: Array) -> float:
        return 1.0

    def intercept(self, offsets: Array, targets: Array, share: Array, start: Array) -> Array:
        return np.concatenate(
            [loss.intercept(offsets[:, at], targets[:, at], share, start[at]) for loss, at in self.heads]
        )

    def _beside(self, of_head: Callable[[Loss, slice], Floats]) -> Floats:
        return np.concatenate([of_head(loss, at) for loss, at in self.heads], axis=1)

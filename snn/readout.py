"""The readout's answer to final spikes:  scores = spikes @ W + b.

Published coefficients lie on a dyadic grid on which every float64 partial sum is exact (`solver_service`), so scores
are the same bits in any batch and on any machine.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snn.model import ReadoutSpec


class Readout(NamedTuple):
    """support: [S] witness ids; coefficients: [S, C]; intercept: [C], float64."""

    support: list[int]
    coefficients: npt.NDArray[np.float64]
    intercept: npt.NDArray[np.float64]

    def scores(self, spikes: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """[B, C] for the final spikes [B, S] of the support."""
        return spikes.astype(np.float64) @ self.coefficients + self.intercept


def predicted_classes(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """[B] the class of the largest score, the lowest of equals; with one score (logistic), 1 where it is positive."""
    if scores.shape[1] == 1:
        return (scores[:, 0] > 0).astype(np.int32)
    return scores.argmax(axis=1).astype(np.int32)


def encode_targets(
    targets: npt.NDArray[np.int32] | npt.NDArray[np.float32], readout: ReadoutSpec
) -> npt.NDArray[np.float64]:
    """Targets [N, C] as the loss takes them: values, one-hot rows, or one 0/1 column for the logistic loss."""
    if readout.target == "values":
        return targets.astype(np.float64)
    if readout.loss == "logistic":
        return targets[:, None].astype(np.float64)
    return np.asarray(targets[:, None] == np.arange(readout.outputs), np.float64)

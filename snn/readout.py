"""The readout's answer to spikes,  scores = spikes @ W + b,  and the targets that it is trained on.

Published coefficients lie on a dyadic grid on which every float64 partial sum is exact (`solver_service`), so scores
are the same bits in any batch and on any machine.

A sample has S rows: its final spikes (S = 1), or those of every timestep where the readout answers at each (S = T). A
target is a class for each head, -1 for none, or values, NaN for none.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snn import fingerprint
from snn.model import Head, ReadoutSpec

Numbers = npt.NDArray[Any]  # int32 classes or float32 values


class Readout(NamedTuple):
    """support: [S] witness ids; coefficients: [S, C]; intercept: [C], float64."""

    support: list[int]
    coefficients: npt.NDArray[np.float64]
    intercept: npt.NDArray[np.float64]

    def scores(self, spikes: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """[..., C] for the spikes [..., S] of the support."""
        return spikes.astype(np.float64) @ self.coefficients + self.intercept


class Rows(NamedTuple):
    """Rows with a target: ids [R] that tell them apart; bits [R, P/8]; targets [R, C] as the loss takes them."""

    ids: npt.NDArray[np.uint64]
    bits: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.float64]

    def part(self, rows: slice) -> "Rows":
        return Rows(self.ids[rows], self.bits[rows], self.targets[rows])

    def beside(self, others: "Rows") -> "Rows":
        """These and others."""
        return Rows(
            np.concatenate([self.ids, others.ids]),
            np.concatenate([self.bits, others.bits]),
            np.concatenate([self.targets, others.targets]),
        )


def predicted_classes(scores: npt.NDArray[np.float64], readout: ReadoutSpec) -> npt.NDArray[np.int32]:
    """[..., H] for scores [..., C]: the class of each head's largest score, the lowest of equals; of a head with one
    score (logistic), 1 where it is positive. Nothing, [..., 0], for values."""
    heads = [
        (scores[..., 0] > 0 if head.loss == "logistic" else scores.argmax(axis=-1)).astype(np.int32)
        for head, scores in _beside(scores, readout)
    ]
    return np.stack(heads, axis=-1) if heads else np.zeros((*scores.shape[:-1], 0), np.int32)


def encode_targets(numbers: Numbers, readout: ReadoutSpec) -> npt.NDArray[np.float64]:
    """Targets [R, C] as the loss takes them, of numbers [R, H or C]: the values, or for each head one-hot rows, or one
    0/1 column for the logistic loss."""
    if readout.target == "values":
        return numbers.astype(np.float64)
    columns = [
        number[:, None] if head.loss == "logistic" else number[:, None] == np.arange(head.outputs)
        for head, number in zip(readout.all_heads, numbers.T, strict=True)
    ]
    return np.concatenate(columns, axis=1).astype(np.float64)


def known(numbers: Numbers) -> npt.NDArray[np.bool_]:
    """[N, S] which rows of samples with targets `numbers` [N, S, H or C] have one, for every head."""
    there = numbers >= 0 if numbers.dtype.kind == "i" else ~np.isnan(numbers)
    return np.asarray(there.all(axis=2))


def rows_of(ids: npt.NDArray[np.uint64], bits: npt.NDArray[np.uint8], numbers: Numbers, readout: ReadoutSpec) -> Rows:
    """The rows with a target of samples with ids [N], bits [N, S, P/8] and targets [N, S, H or C].

    A row of a sample that has several is told by a hash of the sample's id plus its timestep.
    """
    steps = bits.shape[1]
    names = ids[:, None] if steps == 1 else fingerprint.mix(ids)[:, None] + np.arange(steps, dtype=np.uint64)
    there = known(numbers)
    return Rows(names[there], bits[there], encode_targets(numbers[there], readout))


def _beside(scores: npt.NDArray[np.float64], readout: ReadoutSpec) -> Iterator[tuple[Head, npt.NDArray[np.float64]]]:
    """Each head with its own scores."""
    begin = 0
    for head in readout.all_heads:
        yield head, scores[..., begin : begin + head.outputs]
        begin += head.outputs

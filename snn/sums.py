"""Sums over the rows of a dictionary: beside D'SD all that the squared loss needs of them (design, section 2.3).

    counts D'S1    cross D'SY    total Y'S1    energy (Y o Y)'S1    fingerprints of the columns of D

for spikes D [N, P], targets Y [N, C] and weights S = diag(s). Without weights, and unless targets are values, all are
integers: the same bits in whatever order rows come and wherever they are counted.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from snn import fingerprint

if TYPE_CHECKING:
    from snn.bits import BitMatrix  # compiled kernels, which who only passes sums on has no use for

Array = npt.NDArray[np.float64]


class Sums(NamedTuple):
    """weight: sum of s. counts: [P], cross: [P, C], total, energy: [C]. fingerprints: [P, 2]; everything: [1, 2], the
    fingerprint of a column of ones."""

    weight: float
    counts: Array
    cross: Array
    total: Array
    energy: Array
    fingerprints: fingerprint.Words
    everything: fingerprint.Words


def of_rows(spikes: "BitMatrix", ids: fingerprint.Words, targets: Array, weights: Array | None = None) -> Sums:
    """Sums over up to 2^21 rows with ids [N], targets [N, C] and weights [N], all 1 where not given."""
    s = np.ones((len(ids), 1)) if weights is None else weights[:, None]
    outputs, words = targets.shape[1], fingerprint.words(ids)
    products = spikes.transpose_times(np.concatenate([s, s * targets, words], axis=1))  # 2^21 limbs: exact in float64
    return Sums(
        float(s.sum()),
        products[:, 0],
        products[:, 1 : 1 + outputs],
        (s * targets).sum(axis=0),
        (s * np.square(targets)).sum(axis=0),
        fingerprint.from_limbs(products[:, 1 + outputs :].astype(np.uint64)),
        fingerprint.from_limbs(words.sum(axis=0, keepdims=True)),
    )


def add(a: Sums, b: Sums) -> Sums:
    """The sums over the rows of both."""
    return Sums(
        a.weight + b.weight,
        a.counts + b.counts,
        a.cross + b.cross,
        a.total + b.total,
        a.energy + b.energy,
        fingerprint.add(a.fingerprints, b.fingerprints),
        fingerprint.add(a.everything, b.everything),
    )

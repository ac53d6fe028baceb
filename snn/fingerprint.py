"""Column fingerprints: equal columns have equal fingerprints, other columns almost surely not (design, section 2.3).

    fingerprint(j) = sum over the samples i at which j spiked of word(i)   mod 2^128

word(i) is a pseudo-random 128-bit function of the sample id. The sum has no order, merges by addition and loses a
sample by subtraction; two different columns collide with probability about 2^-128. A number mod 2^128 is a row
(high, low) of uint64 in an array [P, 2].
"""

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
KEYS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)  # fixed: fingerprints of any process and time can be merged
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def words(ids: Words) -> Words:
    """The 128-bit word of each id [N] as four 32-bit limbs, lowest first [N, 4]."""
    high, low = mix(mix(ids ^ np.uint64(KEYS[0])) + ids), mix(mix(ids ^ np.uint64(KEYS[1])) - ids)
    return np.stack([low & _LOW, low >> _HALF, high & _LOW, high >> _HALF], axis=1)


def mix(x: Words) -> Words:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection without visible structure."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def from_limbs(sums: Words) -> Words:
    """Sums of limbs [P, 4], each below 2^63, as numbers mod 2^128 [P, 2]."""
    carried = sums.copy()
    for limb in range(3):
        carried[:, limb + 1] += carried[:, limb] >> _HALF
    carried &= _LOW
    return np.stack([carried[:, 2] | carried[:, 3] << _HALF, carried[:, 0] | carried[:, 1] << _HALF], axis=1)


def add(a: Words, b: Words) -> Words:
    low = a[:, 1] + b[:, 1]
    return np.stack([a[:, 0] + b[:, 0] + (low < b[:, 1]), low], axis=1)


def subtract(a: Words, b: Words) -> Words:
    return np.stack([a[:, 0] - b[:, 0] - (a[:, 1] < b[:, 1]), a[:, 1] - b[:, 1]], axis=1)


def distinct(fingerprints: Words) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The lowest column of each class of equal fingerprints [K], rising, and the class of each column [P]."""
    _, first, inverse = np.unique(fingerprints, axis=0, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return np.sort(first), rank[inverse.reshape(-1)]

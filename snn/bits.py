"""A binary matrix in bits, and its products: D W, D' R, D' D and D' diag(w) D without ever unpacking D.

Spikes arrive as packed rows [N, P/8], little-endian bits. The kernels of `bit_product` want 32-bit words that one pass
reads in order: by row [P/32, N], where a word is 32 columns of a row, for D W; by column [N/32, P], 32 rows of a
column, for the others. Either is made from the other when it is first asked for, so an entry takes two bits at most.
"""

from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from snn.bit_product import (
    WORD,
    Floats,
    Words,
    add_gram,
    add_product,
    add_vector_product,
    add_weighted_gram,
    mirror,
    transposed,
)

Bits = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.integer]


class BitMatrix:
    """D [N, P]. Its kernels hold no lock of Python's, and add in an order of their own: the same bits every time."""

    def __init__(self, rows: int, columns: int, *, by_row: Words | None = None, by_column: Words | None = None) -> None:
        """From one layout or both, as another matrix gave them; `from_rows` and `from_dense` are for data."""
        self.rows, self.columns = rows, columns
        if by_row is not None:
            self.by_row = by_row
        if by_column is not None:
            self.by_column = by_column

    @classmethod
    def from_rows(cls, bits: Bits, columns: int | None = None) -> Self:
        """From packed rows [N, P/8]; `columns` where the last byte is not full. Raises ValueError for anything else."""
        if bits.ndim != 2 or bits.dtype != np.uint8:
            raise ValueError(f"bits: expected uint8 [N, P/8], got {bits.dtype} {list(bits.shape)}")
        most = 8 * bits.shape[1]
        columns = most if columns is None else columns
        if not most - 8 < columns <= most:
            raise ValueError(f"columns: expected {max(0, most - 7)} to {most} for {bits.shape[1]} bytes, got {columns}")
        words = np.zeros((len(bits), -(-columns // WORD) * WORD // 8), np.uint8)
        words[:, : bits.shape[1]] = bits
        return cls(len(bits), columns, by_row=np.ascontiguousarray(words.view("<u4").T))

    @classmethod
    def from_dense(cls, spikes: npt.ArrayLike) -> Self:
        """From zeros and ones [N, P] of any type. Raises ValueError for anything else."""
        dense = np.asarray(spikes)
        if dense.ndim != 2:
            raise ValueError(f"spikes: expected a matrix [N, P], got shape {list(dense.shape)}")
        ones = dense == 1
        if not (ones | (dense == 0)).all():
            raise ValueError("spikes: expected zeros and ones, got another value")
        return cls.from_rows(np.packbits(ones, axis=1, bitorder="little"), dense.shape[1])

    @cached_property
    def by_row(self) -> Words:
        """Words [P/32, N]."""
        return transposed(self.by_column, self.rows)

    @cached_property
    def by_column(self) -> Words:
        """Words [N/32, P]; the last ones are filled with zeros."""
        return transposed(self.by_row, self.columns)

    @property
    def bytes(self) -> int:
        """Of the layouts that have been made."""
        return sum(vars(self)[name].nbytes for name in ("by_row", "by_column") if name in vars(self))

    def dense(self) -> Bits:
        """Zeros and ones [N, P]."""
        packed = np.ascontiguousarray(self.by_row.T, "<u4").view(np.uint8)
        return np.unpackbits(packed, axis=1, count=self.columns, bitorder="little")

    def select(self, columns: Indices) -> "BitMatrix":
        """These columns [k], in any order, also more than once."""
        check_indices("columns", columns, self.columns)
        return BitMatrix(self.rows, len(columns), by_column=np.ascontiguousarray(self.by_column[:, columns]))

    def take(self, rows: Indices) -> "BitMatrix":
        """These rows [n], in any order, also more than once."""
        check_indices("rows", rows, self.rows)
        return BitMatrix(len(rows), self.columns, by_row=np.ascontiguousarray(self.by_row[:, rows]))

    def on(self, device: str | None) -> "BitMatrix":
        """A copy on a device as torch names it, "cuda"; with None this very matrix, for the compiled kernels."""
        if device is None:
            return self
        from snn.bits_gpu import GpuBitMatrix  # here: torch takes seconds and 200 MB to import

        return GpuBitMatrix.copy_of(self, device)

    def times(self, w: Floats) -> Floats:
        """D W [N, C] for W [P, C], in W's precision, float32 or float64."""
        check_shape("W", w, self.columns)
        return _product(self.by_row, w)

    def transpose_times(self, r: Floats) -> Floats:
        """D' R [P, C] for R [N, C], in R's precision; exact for integers whose magnitudes add up to less than 2^53."""
        check_shape("R", r, self.rows)
        return _product(self.by_column, r)

    def gram(self) -> npt.NDArray[np.int32]:
        """D' D [P, P], exact for N < 2^31."""
        gram = np.zeros((self.columns, self.columns), np.int32)
        self.accumulate_gram(gram, 1)
        return gram

    def accumulate_gram(self, gram: npt.NDArray[np.signedinteger], sign: int) -> None:
        """`gram` [P, P], int32 or int64, += sign * D' D, in place."""
        check_gram(gram, self.columns)
        add_gram(gram, self.by_column, sign)
        mirror(gram)

    def weighted_gram(self, weights: Floats) -> Floats:
        """D' diag(weights) D [P, P] for weights [N] of any sign, in their precision."""
        weights = checked_weights(weights, self.rows)
        gram = np.zeros((self.columns, self.columns), weights.dtype)
        add_weighted_gram(gram, self.by_column, weights)
        mirror(gram)
        return gram


def _product(words: Words, values: Floats) -> Floats:
    """X V for X [M, K] as words and V [K, C]."""
    values = floats(values)
    out = np.zeros((words.shape[1], values.shape[1]), values.dtype)
    if values.shape[1] == 1:
        add_vector_product(out[:, 0], words, values[:, 0])
    else:
        add_product(out, words, values)
    return out


def floats(values: npt.NDArray[Any]) -> Floats:
    return np.ascontiguousarray(values, np.float32 if values.dtype == np.float32 else np.float64)


def check_shape(name: str, values: Floats, length: int) -> None:
    if values.ndim != 2 or len(values) != length:
        raise ValueError(f"{name}: expected [{length}, C], got {list(values.shape)}")


def check_gram(gram: npt.NDArray[np.signedinteger], columns: int) -> None:
    fits = gram.shape == (columns, columns) and gram.dtype in (np.int32, np.int64)
    if not fits or not gram.flags.c_contiguous:
        size = [columns, columns]
        raise ValueError(f"gram: expected int32 or int64 {size} in C order, got {gram.dtype} {list(gram.shape)}")


def checked_weights(weights: Floats, rows: int) -> Floats:
    if weights.shape != (rows,):
        raise ValueError(f"weights: expected one for each row, [{rows}], got {list(weights.shape)}")
    return floats(weights)


def check_indices(name: str, indices: Indices, count: int) -> None:
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"{name}: expected a vector of whole numbers, got {indices.dtype} {list(indices.shape)}")
    if len(indices) and not 0 <= indices.min() <= indices.max() < count:
        raise ValueError(f"{name}: expected indices from 0 to {count - 1}, got {indices.min()} to {indices.max()}")

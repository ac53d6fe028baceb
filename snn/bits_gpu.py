"""A binary matrix in bits on a GPU: the products of `snn.bits` in torch, for more columns and rows than a CPU can take.

D stays packed, two bits an entry at most, in the same words. A product unpacks a tile of them at a time to the other
factor's precision and leaves the rest to the device's matrix product. The other factors and the results, small beside
D, live on the host. It runs on any device of torch; the tests run it on the CPU where there is no GPU.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn.bit_product import WORD, Floats, Words
from snn.bits import BitMatrix, Indices, check_gram, check_indices, check_shape, checked_weights, floats

TILE = 2**27  # entries unpacked at a time; so a tile of D'D counts less than 2^24 rows, exactly, in float32


class GpuBitMatrix(BitMatrix):
    """D [N, P] of a `BitMatrix`, on a device. Refuses what that refuses."""

    def __init__(
        self,
        device: torch.device,
        rows: int,
        columns: int,
        by_row: Tensor | None = None,
        by_column: Tensor | None = None,
    ) -> None:
        """From one layout or both, int32 on the device; `copy_of` is for a matrix on the host."""
        super().__init__(rows, columns)
        self.device = device
        if by_row is not None:
            self._by_row = by_row
        if by_column is not None:
            self._by_column = by_column

    @classmethod
    def copy_of(cls, matrix: BitMatrix, device: str | torch.device) -> "GpuBitMatrix":
        chosen = torch.device(device)
        return cls(chosen, matrix.rows, matrix.columns, by_row=_to(matrix.by_row, chosen))

    def on(self, device: str | None) -> BitMatrix:
        if device is None or torch.device(device) == self.device:
            return self
        return super().on(device)

    @cached_property
    def _by_row(self) -> Tensor:
        return _transposed(self._by_column, self.rows)

    @cached_property
    def _by_column(self) -> Tensor:
        return _transposed(self._by_row, self.columns)

    @property
    def by_row(self) -> Words:  # type: ignore[override]
        return np.asarray(self._by_row.cpu().numpy().view(np.uint32))

    @property
    def by_column(self) -> Words:  # type: ignore[override]
        return np.asarray(self._by_column.cpu().numpy().view(np.uint32))

    @property
    def bytes(self) -> int:
        return sum(vars(self)[name].nbytes for name in ("_by_row", "_by_column") if name in vars(self))

    def select(self, columns: Indices) -> BitMatrix:
        check_indices("columns", columns, self.columns)
        at = torch.as_tensor(np.asarray(columns, np.int64), device=self.device)
        return GpuBitMatrix(self.device, self.rows, len(columns), by_column=self._by_column[:, at])

    def take(self, rows: Indices) -> BitMatrix:
        check_indices("rows", rows, self.rows)
        at = torch.as_tensor(np.asarray(rows, np.int64), device=self.device)
        return GpuBitMatrix(self.device, len(rows), self.columns, by_row=self._by_row[:, at])

    def times(self, w: Floats) -> Floats:
        check_shape("W", w, self.columns)
        return self._product(self._by_row, w)

    def transpose_times(self, r: Floats) -> Floats:
        check_shape("R", r, self.rows)
        return self._product(self._by_column, r)

    def accumulate_gram(self, gram: npt.NDArray[np.signedinteger], sign: int) -> None:
        check_gram(gram, self.columns)
        total = torch.zeros(gram.shape, dtype=torch.int32, device=self.device)
        for _, tile in _tiles(self._by_column, torch.float32):
            total += (tile.T @ tile).to(torch.int32)
        gram += sign * total.cpu().numpy()

    def weighted_gram(self, weights: Floats) -> Floats:
        weights = checked_weights(weights, self.rows)
        values = _to(weights, self.device)
        total = torch.zeros((self.columns, self.columns), dtype=values.dtype, device=self.device)
        for top, tile in _tiles(self._by_column, values.dtype):
            some = values[top : top + len(tile)]
            total += (tile[: len(some)] * some[:, None]).T @ tile[: len(some)]
        return np.asarray(((total + total.T) / 2).cpu().numpy())

    def _product(self, words: Tensor, values: Floats) -> Floats:
        """X V for X [M, K] as words [K/32, M] and V [K, C]."""
        on_device = _to(floats(values), self.device)
        total = torch.zeros((words.shape[1], values.shape[1]), dtype=on_device.dtype, device=self.device)
        for top, tile in _tiles(words, on_device.dtype):
            some = on_device[top : top + len(tile)]
            total += tile[: len(some)].T @ some
        return np.asarray(total.cpu().numpy())


def _tiles(words: Tensor, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
    """The matrix [K, M] of the words [K/32, M], TILE entries at a time: first row, zeros and ones [rows, M]."""
    shifts = torch.arange(WORD, dtype=torch.int32, device=words.device)[None, :, None]
    step = max(1, TILE // (WORD * max(1, words.shape[1])))
    for top in range(0, len(words), step):
        some = words[top : top + step]
        yield WORD * top, ((some[:, None] >> shifts) & 1).to(dtype).flatten(0, 1)


def _transposed(words: Tensor, k: int) -> Tensor:
    """Words [K/32, M] of X as the words [M/32, K] of its transpose."""
    m = words.shape[1]
    out = torch.empty((-(-m // WORD), k), dtype=torch.int32, device=words.device)
    shifts = torch.arange(WORD, dtype=torch.int32, device=words.device)[None, :, None]
    for top, tile in _tiles(words, torch.int32):
        rows = tile[: k - top]
        padded = torch.nn.functional.pad(rows.T, (0, 0, 0, -m % WORD)).reshape(-(-m // WORD), WORD, len(rows))
        out[:, top : top + len(rows)] = (padded << shifts).sum(dim=1, dtype=torch.int32)
    return out


def _to(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    array = np.ascontiguousarray(values)
    return torch.from_numpy(array.view(np.int32) if array.dtype == np.uint32 else array).to(device)

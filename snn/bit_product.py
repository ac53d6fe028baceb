"""Kernels of products with a binary matrix.

With numbers: sums of table entries, four bits a look-up (the method of four Russians). X [M, K] lies as words
[K/32, M]: word w of row m holds the bits 32w to 32w + 31 of X_m. For each group of 4 bits there is a table of the 16
sums that the group's 4 rows of V [K, L] can have, and a product adds them up:

    (X V)_m = sum over groups g of  table_g[bits of X_m in g],    table_g[s] = sum over i in s of V_(4g + i)

An entry has 128 bytes: 32 float32 or 16 float64. The 8 tables of a word, 16 KB, stay in the first-level cache while all
rows pass, and the sums of a row stay in registers over a word: two loads a cycle, each with an addition, are the limit.
A compiler that vectorises loops keeps no sums in registers, so these loops are written as vectors of LLVM's language,
like those of `snn.fused_product`.

With itself: (D'D)_ij = popcount(D_i and D_j). Tables of 8-bit counts take as long, and more code.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic

Words = npt.NDArray[np.uint32]
Floats = npt.NDArray[Any]  # float32 or float64

WORD = 32  # bits
BITS = 4  # of a group
GROUPS, SUBSETS = WORD // BITS, 2**BITS  # tables of a word, entries of a table
ENTRY = 128  # bytes
VECTOR = 32  # bytes: one AVX2 register
TALL = 1024  # rows at a time: their sums, 128 KB, stay in the second-level cache
TALL_VECTOR = 4096  # the same for one number a row
COUNTED = 128  # words of a column that are counted at a time: 2,000 columns of them are 1 MB
ADDED = 64  # words summed in a row before they join the rest: round-off of 2,048 terms, not of N

_INT8, _INT32, _INT64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_NUMBERS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
_UNALIGNED = 1  # byte: the alignment that loads claim


@numba.njit(nogil=True, cache=True)
def add_product(out: Floats, words: Words, values: Floats) -> None:
    """out [M, C] += X V for values V [K, C], in their precision."""
    m = words.shape[1]
    numbers = ENTRY // values.itemsize
    rows, sums = np.zeros((WORD, numbers), values.dtype), np.zeros((TALL, numbers), values.dtype)
    tables = np.empty((GROUPS, SUBSETS, numbers), values.dtype)
    for left in range(0, values.shape[1], numbers):
        width = min(numbers, values.shape[1] - left)
        vectors = _vectors(width * values.itemsize)
        for top in range(0, m, TALL):
            height = min(TALL, m - top)
            for w in range(len(words)):
                if _copy(rows, values, w * WORD, left, width):
                    _fill(tables, rows, vectors)
                    _add_entries(sums, words, w * m + top, height, tables, vectors)
                if w % ADDED == ADDED - 1 or w == len(words) - 1:
                    _move(out, top, left, sums, height, width)


# Loops, not slices, from here on: numba takes seconds to compile a slice's assignment.
@numba.njit(nogil=True, cache=True)
def _copy(rows: Floats, values: Floats, top: int, left: int, width: int) -> bool:
    """Rows of `values` from `top` on, zeros past their end; False where all are zero."""
    some = False
    for r in range(WORD):
        for c in range(width):
            if top + r < len(values):
                rows[r, c] = values[top + r, left + c]
                some |= values[top + r, left + c] != 0
            else:
                rows[r, c] = 0
    return some


@numba.njit(nogil=True, cache=True)
def _move(out: Floats, top: int, left: int, sums: Floats, height: int, width: int) -> None:
    """Sums into a block of `out`; what they held is gone."""
    for i in range(height):
        for c in range(width):
            out[top + i, left + c] += sums[i, c]
            sums[i, c] = 0


@numba.njit(nogil=True, cache=True)
def add_vector_product(out: Floats, words: Words, values: Floats) -> None:
    """out [M] += X v for values v [K]: one number an entry leaves room for tables of whole bytes."""
    m = words.shape[1]
    tables, padded = np.zeros((WORD // 8, 256), values.dtype), _padded(values, len(words) * WORD)
    low = np.uint32(255)
    for top in range(0, m, TALL_VECTOR):
        for w in range(len(words)):
            for byte in range(len(tables)):
                for bit in range(8):
                    for subset in range(1 << bit):
                        tables[byte, (1 << bit) + subset] = tables[byte, subset] + padded[w * WORD + byte * 8 + bit]
            for i in range(top, min(m, top + TALL_VECTOR)):
                word = words[w, i]
                out[i] += (tables[0, word & low] + tables[1, (word >> np.uint32(8)) & low]) + (
                    tables[2, (word >> np.uint32(16)) & low] + tables[3, word >> np.uint32(24)]
                )


@numba.njit(nogil=True, cache=True)
def _padded(values: Floats, length: int) -> Floats:
    padded = np.zeros(length, values.dtype)
    for i in range(len(values)):
        padded[i] = values[i]
    return padded


def add_gram(gram: npt.NDArray[np.signedinteger], words: Words, sign: int) -> None:
    """Lower triangle of gram [K, K] += sign * D'D for D [N, K] with words [N/32, K]."""
    for top in range(0, len(words), COUNTED):
        block = words[top : top + COUNTED]
        columns = np.zeros((block.shape[1], len(block) + len(block) % 2), np.uint32)
        columns[:, : len(block)] = block.T
        _add_popcounts(gram, columns.view(np.uint64), sign)


@numba.njit(nogil=True, cache=True)
def _add_popcounts(gram: npt.NDArray[np.signedinteger], columns: npt.NDArray[np.uint64], sign: int) -> None:
    for i in range(len(columns)):
        for j in range(i + 1):
            count = np.uint64(0)
            for word in range(columns.shape[1]):
                count += _popcount(columns[i, word] & columns[j, word])
            gram[i, j] += sign * np.int64(count)


@numba.njit(nogil=True, cache=True)
def add_weighted_gram(gram: Floats, words: Words, weights: Floats) -> None:
    """Lower triangle of gram [K, K] += D' diag(weights) D for D [N, K] with words [N/32, K], in their precision."""
    k = words.shape[1]
    numbers = ENTRY // weights.itemsize
    rows, tables = np.zeros((WORD, numbers), weights.dtype), np.empty((GROUPS, SUBSETS, numbers), weights.dtype)
    sums = np.zeros((TALL, numbers), weights.dtype)
    padded = _padded(weights, len(words) * WORD)
    for left in range(0, k, numbers):
        width = min(numbers, k - left)
        vectors = _vectors(width * weights.itemsize)
        for top in range(left, k, TALL):
            height = min(TALL, k - top)
            for w in range(len(words)):
                for r in range(WORD):
                    for c in range(width):
                        on = np.int32((words[w, left + c] >> np.uint32(r)) & np.uint32(1))
                        rows[r, c] = padded[w * WORD + r] * np.float32(on)
                _fill(tables, rows, vectors)
                _add_entries(sums, words, w * k + top, height, tables, vectors)
                if w % ADDED == ADDED - 1 or w == len(words) - 1:
                    _move(gram, top, left, sums, height, width)


@numba.njit(nogil=True, cache=True)
def mirror(gram: npt.NDArray[Any]) -> None:
    """Upper triangle from the lower, in tiles: a column of a large matrix is one cache miss an entry."""
    for top in range(0, len(gram), 32):
        for left in range(0, top + 1, 32):
            for i in range(top, min(top + 32, len(gram))):
                for j in range(left, min(left + 32, i)):
                    gram[j, i] = gram[i, j]


@numba.njit(nogil=True, cache=True)
def transposed(words: Words, k: int) -> Words:
    """Words [K/32, M] of X as the words [M/32, K] of its transpose."""
    m = words.shape[1]
    out = np.empty(((m + WORD - 1) // WORD, k), np.uint32)
    block = np.empty(WORD, np.uint32)
    for b in range(len(out)):
        for w in range(len(words)):
            for i in range(WORD):
                block[i] = words[w, b * WORD + i] if b * WORD + i < m else np.uint32(0)
            _transpose(block)
            for i in range(min(WORD, k - w * WORD)):
                out[b, w * WORD + i] = block[i]
    return out


@numba.njit(nogil=True, cache=True)
def _transpose(block: Words) -> None:
    """32 x 32 bits in place: quadrants change places, from halves down to single bits (Warren, Hacker's Delight)."""
    half, mask = np.uint32(16), np.uint32(0x0000FFFF)
    while half:
        for base in range(0, WORD, 2 * half):
            for i in range(base, base + half):
                swap = ((block[i] >> half) ^ block[i + half]) & mask
                block[i] ^= swap << half
                block[i + half] ^= swap
        half >>= np.uint32(1)
        mask ^= mask << half


@numba.njit(nogil=True, cache=True)
def _vectors(used: int) -> int:
    """Vectors of an entry of which `used` bytes count."""
    return (used + VECTOR - 1) // VECTOR


@intrinsic  # type: ignore[misc]
def _popcount(context: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic  # type: ignore[misc]
def _fill(context: Any, tables: Any, values: Any, vectors: Any) -> Any:
    """tables [GROUPS, SUBSETS, numbers of an entry] of a word from its values [WORD, numbers of an entry]."""
    vector = _vector_of(tables)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        tables, values = (_bytes(context, builder, signature, arguments, at) for at in (0, 1))
        with cgutils.for_range(builder, arguments[2]) as used:
            offset = builder.mul(used.index, _INT64(VECTOR))
            for group in range(GROUPS):
                sums = [ir.Constant(vector, None)]
                for bit in range(BITS):
                    value = _load(builder, vector, values, offset, (BITS * group + bit) * ENTRY)
                    sums += [value, *(builder.fadd(total, value) for total in sums[1:])]
                for subset, total in enumerate(sums):
                    place = _place(builder, vector, tables, offset, (SUBSETS * group + subset) * ENTRY)
                    builder.store(total, place, align=_UNALIGNED)
        return context.get_dummy_value()

    return types.void(tables, values, types.int64), generate


@intrinsic  # type: ignore[misc]
def _add_entries(context: Any, sums: Any, words: Any, first: Any, count: Any, tables: Any, vectors: Any) -> Any:
    """sums[m] += the entries of words[first + m] for m < count; `vectors` of an entry's four are in use."""
    vector = _vector_of(tables)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, tables = (_bytes(context, builder, signature, arguments, at) for at in (0, 4))
        words = builder.bitcast(_bytes(context, builder, signature, arguments, 1), _INT32.as_pointer())
        words = builder.gep(words, [arguments[2]])
        for used in range(1, ENTRY // VECTOR + 1):
            lanes = [v * VECTOR for v in range(used)]
            with (
                builder.if_then(builder.icmp_signed("==", arguments[5], _INT64(used))),
                cgutils.for_range(builder, arguments[3]) as row,
            ):
                word = builder.load(builder.gep(words, [row.index]))
                own = builder.mul(row.index, _INT64(ENTRY))
                totals = [_load(builder, vector, sums, own, lane) for lane in lanes]
                odd: list[Any] = []  # every other group has sums of its own: half the wait for an addition's result
                for group in range(GROUPS):
                    entry = _entry(builder, word, group)
                    start = group * SUBSETS * ENTRY
                    found = [_load(builder, vector, tables, entry, start + lane) for lane in lanes]
                    if group % 2 == 0:
                        totals = [builder.fadd(*pair) for pair in zip(totals, found, strict=True)]
                    else:
                        odd = [builder.fadd(*pair) for pair in zip(odd, found, strict=True)] if odd else found
                for lane, *halves in zip(lanes, totals, odd, strict=True):
                    place = _place(builder, vector, sums, own, lane)
                    builder.store(builder.fadd(*halves), place, align=_UNALIGNED)
        return context.get_dummy_value()

    return types.void(sums, words, types.int64, types.int64, tables, types.int64), generate


def _vector_of(array: Any) -> Any:
    return ir.VectorType(_NUMBERS[array.dtype], VECTOR * 8 // array.dtype.bitwidth)


def _bytes(context: Any, builder: Any, signature: Any, arguments: Any, at: int) -> Any:
    """Where the data of an argument, an array, begins."""
    data = context.make_array(signature.args[at])(context, builder, arguments[at]).data
    return builder.bitcast(data, _INT8.as_pointer())


def _place(builder: Any, vector: Any, base: Any, offset: Any, more: int) -> Any:
    return builder.bitcast(builder.gep(base, [builder.add(offset, _INT64(more))]), vector.as_pointer())


def _load(builder: Any, vector: Any, base: Any, offset: Any, more: int) -> Any:
    return builder.load(_place(builder, vector, base, offset, more), align=_UNALIGNED)


def _entry(builder: Any, word: Any, group: int) -> Any:
    """The offset in a table that the group's bits of a word name: ENTRY bytes times their number."""
    left = ENTRY.bit_length() - 1 - BITS * group
    moved = builder.shl(word, _INT32(left)) if left >= 0 else builder.lshr(word, _INT32(-left))
    return builder.zext(builder.and_(moved, _INT32((SUBSETS - 1) * ENTRY)), _INT64)

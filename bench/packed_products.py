"""Products with a binary dictionary D [N, P]: our kernels on its bits against libraries on D unpacked, one core.

Measured: milliseconds a product, arrays in and out, and megabytes of D as the product reads it. D is random, of the
stated density; only the sparse peer's time depends on it.

Ours: `snn.bits.BitMatrix`, both of its layouts made beforehand (the time to make the second is shown).
- times: D W, W [P, C];  transpose_times: D' R, R [N, C];  both in float64, which the certificate needs, and float32;
- gram: D' D, exact integers;  weighted_gram: D' diag(w) D in float32.

Peers, on D unpacked beforehand:
- float32 GEMM: numpy's `D @ W` and `(R.T @ D).T`, OpenBLAS; also beside our float64, of twice its digits;
- float64 GEMM: the same with twice the memory;
- CSR: `scipy.sparse`, float32 values;
- syrk: numpy's `D.T @ D`, which is OpenBLAS's symmetric product and so half of a GEMM's operations; for weighted_gram
  of D scaled by the square roots of the weights, a pass over D that is counted;
- GEMM: the whole product `D.T @ E` with E another array, as one that does not ask for symmetry gets it.
torch's exact integer product, `torch._int_mm`, is no peer: on a processor without VNNI it has no kernel worth the name.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from bench import harness
from bench.harness import Report
from snn.bit_product import transposed
from snn.bits import BitMatrix
from solver_service.losses import Floats

LARGEST = 2.5e9  # bytes of an unpacked matrix: all of the benchmark stays below 6 GB
BLOCK = 4096  # rows drawn at a time
Calls = dict[str, Callable[[], object]]


class Shape(NamedTuple):
    """Rows, columns, outputs and density. 0.16: MNIST rows through Gaussian witnesses; 0.47: first-last XOR."""

    N: int
    P: int
    C: int
    density: float = 0.16

    def __str__(self) -> str:
        outputs = f" C={self.C}" if self.C else ""
        return f"N={self.N:,} P={self.P:,}{outputs} density={self.density}"


SHAPES = [
    Shape(60_000, 2_000, 10),
    Shape(60_000, 2_000, 1),
    Shape(60_000, 2_000, 32),
    Shape(60_000, 10_000, 10),
    Shape(4_096, 2_844, 1, 0.47),
]
GRAMS = [Shape(8_192, 2_000, 0), Shape(4_096, 10_000, 0)]  # time goes with the rows
QUICK, QUICK_GRAMS = [Shape(700, 130, 3), Shape(500, 70, 1, 0.47)], [Shape(700, 136, 0)]


def run(report: Report) -> None:
    runs, seconds = (3, 0.0) if report.quick else (5, 4.0)
    with threadpool_limits(1):
        for shape in QUICK if report.quick else SHAPES:
            products(report, shape, runs, seconds)
        for shape in QUICK_GRAMS if report.quick else GRAMS:
            grams(report, shape, runs, seconds)


def products(report: Report, shape: Shape, runs: int, seconds: float) -> None:
    packed = draw(shape)
    rng = np.random.default_rng(1)
    w, r = rng.standard_normal((shape.P, shape.C)), rng.standard_normal((shape.N, shape.C))
    peers = unpacked(packed)
    for name, right, dense in (("times", w, times), ("transpose_times", r, transpose_times)):
        product = getattr(packed, name)
        ours: Calls = {f"{name} {kind}": partial(product, right.astype(kind)) for kind in ("float64", "float32")}
        theirs: Calls = {peer: partial(dense, d, right.astype(d.dtype)) for peer, d in peers.items()}
        compare(report, shape, ours, theirs, runs, seconds)
    layout = harness.interleaved({"ours": partial(transposed, packed.by_row, packed.columns)}, runs)
    report.add(str(shape), "second layout", "ms", 1e3 * layout.seconds["ours"], runs=layout.runs)
    for peer, d in peers.items():
        parts = [d] if isinstance(d, np.ndarray) else [d.data, d.indices, d.indptr]
        size = sum(part.nbytes for part in parts)
        report.add(str(shape), "memory", "MB", packed.bytes / 1e6, peer=peer, peer_value=size / 1e6)


def grams(report: Report, shape: Shape, runs: int, seconds: float) -> None:
    packed = draw(shape)
    weights = np.random.default_rng(1).random(shape.N, np.float32)
    single = packed.dense().astype(np.float32)
    other = single.copy()
    exact: Calls = {
        "syrk": lambda: single.T @ single,
        "GEMM": lambda: single.T @ other,
    }
    compare(report, shape, {"gram": packed.gram}, exact, runs, seconds)
    roots = np.sqrt(weights)[:, None]

    def scaled() -> object:
        rows = roots * single
        return rows.T @ rows

    compare(report, shape, {"weighted_gram": partial(packed.weighted_gram, weights)}, {"syrk": scaled}, runs, seconds)


def draw(shape: Shape) -> BitMatrix:
    """Random bits, in both layouts."""
    rng = np.random.default_rng(0)
    tops = range(0, shape.N, BLOCK)
    blocks = (rng.random((min(BLOCK, shape.N - top), shape.P), np.float32) < shape.density for top in tops)
    packed = BitMatrix.from_rows(np.concatenate([np.packbits(b, axis=1, bitorder="little") for b in blocks]), shape.P)
    assert packed.by_column.size  # made here
    return packed


def unpacked(packed: BitMatrix) -> dict[str, Any]:
    """D as the peers want it, where it fits; numpy's product does not spread over cores here."""
    dense = packed.dense()
    peers: dict[str, Any] = {"float32 GEMM": dense.astype(np.float32)}
    if 8 * dense.size < LARGEST:
        peers |= {"float64 GEMM": dense.astype(np.float64), "CSR": sparse.csr_array(dense, dtype=np.float32)}
    return peers


def times(d: Any, w: Floats) -> Floats:
    return np.asarray(d @ w)


def transpose_times(d: Any, r: Floats) -> Floats:
    """D' R, which OpenBLAS has sooner as (R' D)'."""
    return np.asarray((r.T @ d).T if isinstance(d, np.ndarray) else d.T @ r)


def compare(report: Report, shape: Shape, ours: Calls, theirs: Calls, runs: int, seconds: float) -> None:
    taken = harness.interleaved({**ours, **theirs}, runs, seconds)
    for metric in ours:
        for peer in theirs:
            mine, value = 1e3 * taken.seconds[metric], 1e3 * taken.seconds[peer]
            report.add(str(shape), metric, "ms", mine, runs=taken.runs, peer=peer, peer_value=value)


if __name__ == "__main__":
    harness.main("packed_products", run, cores=1)

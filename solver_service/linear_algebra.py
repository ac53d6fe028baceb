"""Cholesky factors, and BLAS on one thread.

OpenBLAS's threads spin while they wait for each other, which collapses when they share cores with Flink: on a busy
two-core machine a 2,000 x 2,000 `potrf` took 1.1 s on two threads and 0.08 s on one, a whole MNIST solve 4 s and 2 s.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import numpy as np
import numpy.typing as npt
import scipy.linalg as sl
from threadpoolctl import ThreadpoolController

from snn.bit_product import mirror
from solver_service.losses import Array, Floats

LARGEST_CALL = 2048  # columns that one call factors; a deadline has to wait for it
GPU_FROM = 2048  # columns from which a factor on a GPU is worth the way there
BLOCK = 256  # columns between two looks at the deadline
_blas = ThreadpoolController()
_device: ContextVar[str | None] = ContextVar("device", default=None)
Check = Callable[[], None]  # raises where time is up


def one_thread() -> AbstractContextManager[object]:
    """BLAS on one thread while the context is entered, in the whole process."""
    limit: AbstractContextManager[object] = _blas.limit(limits=1, user_api="blas")
    return limit


@contextmanager
def factors_on(device: str | None) -> Iterator[None]:
    """Large matrices are factored on this device of torch while the context is entered, in this thread."""
    before = _device.set(device)
    try:
        yield
    finally:
        _device.reset(before)


class Cholesky:
    """Lower factor L of a symmetric positive definite A [k, k]; raises LinAlgError where A is not.

    Of an A in Fortran's order the lower triangle is enough. The upper one of L is left as it is. `check` is called
    between blocks of columns, where there are many.
    """

    def __init__(self, a: Floats, check: Check = lambda: None) -> None:
        columns = a if a.flags.f_contiguous else a.T  # the other order would be copied slowly
        self.lower: Floats
        if len(a) <= LARGEST_CALL:
            self.lower = _factor(columns)
        else:
            self.lower = columns.copy(order="F")
            _factor_in_blocks(self.lower, check)

    def solve(self, right: Floats) -> Floats:
        """A^-1 right."""
        return np.asarray(sl.cho_solve((self.lower, True), right, check_finite=False))

    def inverse(self, check: Check = lambda: None) -> Floats:
        """A^-1, in Fortran's order."""
        if len(self.lower) <= LARGEST_CALL:
            return _inverse(self.lower)
        inverse = self.lower.copy(order="F")
        _invert_in_blocks(inverse, check)
        return inverse


def _factor(a: Floats) -> Floats:
    lower, failed = sl.lapack.get_lapack_funcs(("potrf",), (a,))[0](a, lower=1, clean=0)
    if failed:
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    return np.asarray(lower)


def _inverse(lower: Floats) -> Floats:
    """(L L')^-1"""
    inverse, _ = sl.lapack.get_lapack_funcs(("potri",), (lower,))[0](lower, lower=1)
    mirror(inverse)
    return np.asarray(inverse)


def _factor_in_blocks(a: Floats, check: Check) -> None:
    """The lower triangle of A, in Fortran's order, becomes L."""
    trsm = sl.blas.get_blas_funcs(("trsm",), (a,))[0]
    for j in range(0, len(a), BLOCK):
        check()
        end = min(j + BLOCK, len(a))
        a[j:, j:end] -= (a[j:end, :j] @ a[j:, :j].T).T
        a[j:end, j:end] = _factor(a[j:end, j:end])
        a[end:, j:end] = trsm(1.0, a[j:end, j:end], a[end:, j:end], side=1, lower=1, trans_a=1)


def _invert_in_blocks(a: Floats, check: Check) -> None:
    """L, in Fortran's order, becomes X = (L L')^-1, from the last block on: with T = L21 L11^-1

    X21 = -X22 T,   X11 = (L11 L11')^-1 - T' X21
    """
    trsm = sl.blas.get_blas_funcs(("trsm",), (a,))[0]
    for j in reversed(range(0, len(a), BLOCK)):
        check()
        end = min(j + BLOCK, len(a))
        corner = a[j:end, j:end]
        t = trsm(1.0, corner, a[end:, j:end], side=1, lower=1)
        below = -(a[end:, end:] @ t)
        a[j:end, j:end] = _inverse(corner) - t.T @ below
        a[end:, j:end], a[j:end, end:] = below, below.T


def cholesky(a: Floats, check: Check = lambda: None) -> Cholesky:
    """The factor, made where `factors_on` says if A is large."""
    device = _device.get()
    if device is None or len(a) < GPU_FROM:
        return Cholesky(a, check)
    from solver_service.linear_algebra_gpu import GpuCholesky  # here: torch takes seconds and 200 MB to import

    return GpuCholesky(a, device)


def damped_cholesky(a: Floats, check: Check = lambda: None) -> Cholesky:
    """Cholesky of A plus the smallest tried multiple of its mean diagonal that makes it positive definite."""
    unit, tried = max(float(a.trace()) / len(a), 1e-300), a
    for jitter in (1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0):
        try:
            return cholesky(tried, check)
        except np.linalg.LinAlgError:
            tried = a.copy(order="K")
            tried[np.diag_indices_from(a)] += jitter * unit
    return cholesky(tried, check)


def independent(a: Array) -> tuple[npt.NDArray[np.intp], Array]:
    """Indices of a largest well-conditioned principal block of a semidefinite A, and that block's lower factor.

    Pivoted Cholesky (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 10.3).
    """
    tolerance = 10 * len(a) * np.finfo(float).eps * float(a.diagonal().max(initial=0.0))
    factor, order, rank, _ = sl.lapack.dpstrf(a.T, tol=tolerance, lower=1)
    return order[:rank] - 1, factor[:rank, :rank]


class ActiveSetFactor:
    """Solves (A_JJ + shift I) x = r for a sequence of index sets J with one factorisation while they differ little.

    With J0 the factored set, the columns that joined it and those that left border the system (Bisschop and Meeraus
    1977, "Matrix augmentation and partitioning in the updating of the basis inverse"): G holds A[J0, joined] and unit
    vectors at the ones that left, and a solve needs only the small Schur complement of G.
    """

    LARGEST_BORDER = 0.12  # of |J0|: beyond it a new factorisation of |J|^3 / 3 is cheaper than 2 d |J0|^2

    def __init__(self, a: Array, shift: float, check: Check) -> None:
        self.a, self.shift, self.check = a, shift, check
        self.base: npt.NDArray[np.intp] = np.zeros(0, np.intp)  # J0, with its factor `lower`
        self.known: npt.NDArray[np.intp] = np.zeros(0, np.intp)  # columns that bordered it, and L^-1 of them
        self.z: Array = np.zeros((0, 0))

    def solve(self, active: npt.NDArray[np.intp], right: Array) -> Array:
        """x [J] for r [J], J rising."""
        if not len(active):
            return right
        joined = np.setdiff1d(active, self.base, assume_unique=True)
        left = np.setdiff1d(self.base, active, assume_unique=True)
        if len(joined) + len(left) > self.LARGEST_BORDER * len(self.base):
            self._factor(active)
            return self._factor_solve(right)
        if not len(joined) + len(left):
            return self._factor_solve(right)
        fresh = np.setdiff1d(np.concatenate([joined, left]), self.known, assume_unique=True)
        if len(fresh):
            g = self.a[np.ix_(fresh, self.base)]
            position = np.searchsorted(self.base, fresh)
            position[position == len(self.base)] = 0
            inside = self.base[position] == fresh
            g[inside] = 0
            g[inside, position[inside]] = 1
            z = sl.solve_triangular(self.lower, g.T, lower=True, check_finite=False)
            self.known = np.concatenate([self.known, fresh])
            self.z = np.concatenate([self.z, z.T])
        order = np.argsort(self.known)
        border = np.concatenate([joined, left])
        z = self.z[order[np.searchsorted(self.known[order], border)]]
        n = len(joined)
        small = -(z @ z.T)
        small[:n, :n] += self.a[np.ix_(joined, joined)]
        small[np.arange(n), np.arange(n)] += self.shift
        whole = np.zeros(len(self.a))
        whole[active] = right
        half = sl.solve_triangular(self.lower, whole[self.base], lower=True, check_finite=False)
        y = np.linalg.solve(small, np.concatenate([whole[joined], np.zeros(len(left))]) - z @ half)
        x = sl.solve_triangular(self.lower, half - z.T @ y, lower=True, trans=1, check_finite=False)
        whole[self.base] = x
        whole[joined] = y[:n]
        return whole[active]

    def _factor_solve(self, right: Array) -> Array:
        return np.asarray(sl.cho_solve((self.lower, True), right, check_finite=False))

    def _factor(self, active: npt.NDArray[np.intp]) -> None:
        a = self.a[np.ix_(active, active)]
        a[np.diag_indices_from(a)] += self.shift
        self.lower = damped_cholesky(a.T, self.check).lower
        self.base = active
        self.known, self.z = np.zeros(0, np.intp), np.zeros((0, len(active)))

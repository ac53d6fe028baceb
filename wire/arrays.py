"""Bytes to arrays, sizes first."""

import math

import numpy as np
import numpy.typing as npt

from wire.reasons import Reason, WireError


def array(data: bytes, dtype: np.dtype, shape: tuple[int, ...], name: str) -> npt.NDArray:
    """`data` as [shape] of `dtype`, without a copy; WireError where it is not as long as that."""
    size = math.prod(shape) * dtype.itemsize
    if len(data) != size:
        raise WireError(
            Reason.WRONG_SHAPE, f"{name}: expected {list(shape)} of {dtype.name} = {size} bytes, got {len(data)}"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def finite(data: bytes, shape: tuple[int, ...], name: str) -> npt.NDArray[np.float64]:
    """`data` as [shape] of float64; WireError where a number is NaN or infinite as well."""
    numbers = array(data, np.dtype("<f8"), shape, name)
    if not np.isfinite(numbers).all():
        raise WireError(Reason.OUT_OF_RANGE, f"{name}: expected finite numbers")
    return numbers

"""From grid codes on the wire to what the network reads, and from spikes to bits.

input[b, t] = codes[b, t] * 2^-bits, and the end pulse appended where the model has one
"""

import numpy as np
import numpy.typing as npt

from snn.model import InputSpec, ModelError


def to_codes(
    inputs: npt.ArrayLike, grid: InputSpec, quantise: bool = False, start: int | None = None
) -> npt.NDArray[np.int32]:
    """Grid codes of inputs [N, T, m] of any number type; off-grid values are an error unless `quantise`. With `start`,
    inputs [N, k, m] are some of a sequence's timesteps, the first of them `start`."""
    try:
        values = np.asarray(inputs, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"inputs: expected an array of numbers: {error}") from None
    least, most = (grid.timesteps, grid.timesteps) if start is None else (1, grid.timesteps - start)
    if values.ndim != 3 or not least <= values.shape[1] <= most or values.shape[2] != grid.features:
        raise ModelError(
            f"inputs: expected shape [N, timesteps, features] = [N, {most if start is None else f'1 .. {most}'}, "
            f"{grid.features}], got {list(values.shape)}; reshape the data or change input in the model"
        )
    _refuse(values, ~np.isfinite(values), "expected finite numbers; fill or drop missing values")
    if quantise:
        values = np.clip(values, grid.low, grid.high)
    _refuse(
        values,
        (values < grid.low) | (values > grid.high),
        f"expected numbers in [{grid.low:g}, {grid.high:g}]; rescale them, or pass quantise to clip and round",
    )
    scaled = values * 2.0**grid.bits
    codes = np.round(scaled)
    if not quantise:
        _refuse(
            values,
            codes != scaled,
            f"expected multiples of 2^-{grid.bits}; pass quantise to round, or raise input.bits",
        )
    return codes.astype(np.int32)


def _refuse(values: npt.NDArray[np.float64], bad: npt.NDArray[np.bool_], sentence: str) -> None:
    if bad.any():
        where = np.argwhere(bad)[0].tolist()
        raise ModelError(f"inputs{where} = {values[tuple(where)]!r} ({int(bad.sum())} such): {sentence}")

"""Sequences from files: NPZ, CSV and IDX, as arrays [N, T, m] with optional targets and ids."""

import gzip
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from snn.model import InputSpec
from spikeloom.errors import SpikeloomError

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class DataError(SpikeloomError):
    """A file that does not hold sequences; the text says what was expected."""


class Data(NamedTuple):
    """inputs: [N, T, m]; targets: [N] or [N, C]; ids: [N]."""

    inputs: npt.NDArray
    targets: npt.NDArray | None = None
    ids: npt.NDArray | None = None


def load(path: Path, grid: InputSpec, targets: Path | None = None) -> Data:
    """Read FILE.npz (arrays inputs, targets, ids), FILE.csv (a sequence a row: T * m columns, timestep after
    timestep, and columns `target` and `id` if there are any) or IDX, gzipped or not (`targets` names the labels)."""
    if not path.is_file():
        raise DataError(f"{path}: expected a file of sequences (.npz, .csv or IDX), found none")
    name = path.name.lower()
    if name.endswith(".npz"):
        data = _npz(path)
    elif name.endswith((".csv", ".csv.gz")):
        data = _csv(path, grid)
    elif "idx" in name or "ubyte" in name:
        data = Data(scale_bytes(read_idx(path)))
    else:
        raise DataError(f"{path}: expected .npz, .csv, or an IDX file named *idx* or *ubyte*")
    if targets is not None:
        data = data._replace(targets=read_idx(targets).astype(np.int64))
    return data


def scale_bytes(images: npt.NDArray) -> npt.NDArray:
    """Bytes 0 .. 255 to multiples of 2^-8 in [0, 1)."""
    return images / 256 if images.dtype == np.uint8 else images


def read_idx(path: Path) -> npt.NDArray:
    """An IDX array; its stated size is held against the file before it is read into an array."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: expected an IDX file: {error}") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in IDX_TYPES or len(raw) < 4 + 4 * raw[3]:
        raise DataError(f"{path}: expected an IDX file (two zero bytes, a type, a number of dimensions)")
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4).tolist()
    dtype = np.dtype(IDX_TYPES[raw[2]])
    body = len(raw) - 4 - 4 * raw[3]
    if math.prod(shape) * dtype.itemsize != body:
        raise DataError(f"{path}: its header says {shape} of {dtype.name}, but {body} bytes follow; download it again")
    return np.frombuffer(raw, dtype, offset=4 + 4 * raw[3]).reshape(shape).astype(dtype.newbyteorder("="))


def _npz(path: Path) -> Data:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected an NPZ file without pickled objects: {error}") from None
    if "inputs" not in held:
        raise DataError(f"{path}: expected an array `inputs` (and `targets`, `ids`), got {sorted(held)}")
    return Data(held["inputs"], held.get("targets"), held.get("ids"))


def _csv(path: Path, grid: InputSpec) -> Data:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a CSV file with a header line: {error}") from None
    targets = table.pop("target").to_numpy() if "target" in table else None
    ids = table.pop("id").to_numpy() if "id" in table else None
    wanted = (grid.timesteps, grid.features)
    if table.shape[1] != math.prod(wanted):
        raise DataError(
            f"{path}: expected timesteps * features = {wanted[0]} * {wanted[1]} = {math.prod(wanted)} columns besides "
            f"`target` and `id`, got {table.shape[1]}"
        )
    textual = [column for column in table if not pd.api.types.is_numeric_dtype(table[column])]
    if textual:
        raise DataError(f"{path}: expected numbers, got text in columns {textual[:5]}")
    return Data(table.to_numpy().reshape(-1, *wanted), targets, ids)

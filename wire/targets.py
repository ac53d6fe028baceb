"""Targets of a batch of sequences, as they travel beside inputs and spike columns."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snn import readout as readouts
from snn.model import ModelSpec, ReadoutSpec
from snn.readout import Numbers
from wire.arrays import array
from wire.reasons import Reason, WireError

Rows = npt.NDArray[np.intp] | npt.NDArray[np.bool_]


class Targets(NamedTuple):
    """numbers [B, S, H or C]: int32 classes, -1 for none, one for each head; or float32 values, NaN for none. S: the
    timesteps that have one, those of the record where the model learns at every step, else 1. None: no targets."""

    numbers: Numbers | None = None

    @classmethod
    def final(cls, numbers: npt.NDArray) -> "Targets":
        """A target [B] or [B, H or C] for each sequence as a whole."""
        return cls(numbers.reshape(len(numbers), 1, -1))

    @classmethod
    def none(cls, batch: int, model: ModelSpec) -> "Targets":
        """No target for any of `batch` whole sequences, of the kind that the model's readout wants."""
        shape = (batch, model.target_steps, model.readout.target_width)
        classes = model.readout.target == "class"
        return cls(np.full(shape, -1, np.int32) if classes else np.full(shape, np.nan, np.float32))

    def to_bytes(self) -> dict[str, bytes]:
        """As the field `classes` or `values` of a message."""
        if self.numbers is None:
            return {}
        name, dtype = ("classes", "<i4") if self.numbers.dtype.kind == "i" else ("values", "<f4")
        return {name: np.ascontiguousarray(self.numbers, dtype).tobytes()}

    def merge(self, other: "Targets", start: int = 0) -> "Targets":
        """These, and where there is none those of `other`, of which the first is that of row `start`; this very object
        where nothing is new."""
        if self.numbers is None or other.numbers is None:
            return self
        steps = slice(start, start + other.numbers.shape[1])
        new = _missing(self.numbers[:, steps]) & ~_missing(other.numbers)
        if not new.any():
            return self
        merged = self.numbers.copy()
        merged[:, steps][new] = other.numbers[new]
        return Targets(merged)

    def known(self, batch: int) -> npt.NDArray[np.bool_]:
        """[batch] which sequences have a target at any timestep."""
        if self.numbers is None:
            return np.zeros(batch, bool)
        return np.asarray(readouts.known(self.numbers).any(axis=1))

    def take(self, rows: Rows) -> "Targets":
        return Targets(None if self.numbers is None else self.numbers[rows])


def of_bytes(batch: int, steps: int, readout: ReadoutSpec, classes: bytes, values: bytes) -> Targets:
    """What `to_bytes` gave, of `steps` rows a sequence. Raises WireError where their number or a class does not fit."""
    if not classes and not values:
        return Targets()
    shape = (batch, steps, readout.target_width)
    if readout.target == "class":
        if values:
            raise WireError(Reason.BAD_TARGET, "expected classes, got values")
        numbers = array(classes, np.dtype("<i4"), shape, "classes")
        limits = np.array([head.classes for head in readout.all_heads])
        if (numbers < -1).any() or (numbers >= limits).any():
            raise WireError(
                Reason.BAD_TARGET,
                f"expected classes below {', '.join(map(str, limits))} (-1 for none), got {numbers.min()} .. "
                f"{numbers.max()}",
            )
        return Targets(numbers)
    if classes:
        raise WireError(Reason.BAD_TARGET, "expected values, got classes")
    reals = array(values, np.dtype("<f4"), shape, "values")
    missing = np.isnan(reals)
    if np.isinf(reals).any() or np.any(missing.any(axis=2) != missing.all(axis=2)):
        raise WireError(Reason.BAD_TARGET, "expected finite values, or NaN in all outputs for no target")
    return Targets(reals)


def _missing(numbers: Numbers) -> npt.NDArray[np.bool_]:
    return np.asarray(numbers < 0 if numbers.dtype.kind == "i" else np.isnan(numbers))

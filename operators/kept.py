"""The newest sequences of a lane, whole and with their targets: what is stepped again when the witnesses change.

State is records as on `sequences`, each with the sequences of a cohort, and the version of the witnesses with which all
of them have been stepped. A lane keeps its share of the readout's window, and at most a record more.
"""

import math
from collections.abc import Iterator

import numpy as np

from operators.lane import Cohort, Store
from snn.model import ModelSpec
from wire.codec import Slice, decode_slice, encode_slice

VERSION = "version"


class Kept:
    def __init__(self, model: ModelSpec, lane: int, store: Store) -> None:
        """The sequences as `store` has them."""
        assert model.readout.window is not None  # the job refuses such a model
        self._model, self._lane, self._store = model, lane, store
        self._most = math.ceil(model.readout.window / model.lanes)
        stored = dict(store.items())
        self._version = int(stored.pop(VERSION, b"0"))
        self._sizes = {key: len(self._decode(stored[key]).ids) for key in sorted(stored, key=_number)}

    @property
    def version(self) -> int:
        """Of the witnesses that all of them have been stepped with."""
        return self._version

    @version.setter
    def version(self, version: int) -> None:
        self._version = version
        self._store.put(VERSION, str(version).encode())

    def add(self, cohort: Cohort) -> None:
        """Keep what is complete of it and has a target, with all of its codes; let go of the oldest records that are no
        longer needed."""
        known = np.flatnonzero(cohort.targets.known(len(cohort)))
        if not len(known):
            return
        ends = cohort.length < self._model.input.timesteps
        targets = cohort.targets.take(known)
        if self._model.readout.every_step and targets.numbers is not None:
            targets = targets._replace(numbers=targets.numbers[:, : cohort.next])
        piece = Slice(self._lane, cohort.ids[known], 0, cohort.codes[known], targets, cohort.sent_us, ends)
        key = f"q{_number(next(reversed(self._sizes), 'q0')) + 1:x}"
        self._store.put(key, encode_slice(self._model, piece))
        self._sizes[key] = len(known)
        while sum(self._sizes.values()) - next(iter(self._sizes.values())) >= self._most:
            oldest = next(iter(self._sizes))
            self._store.remove(oldest)
            del self._sizes[oldest]

    def slices(self) -> Iterator[Slice]:
        """The sequences, the oldest first."""
        stored = dict(self._store.items())
        return (self._decode(stored[key]) for key in self._sizes)

    def _decode(self, record: bytes) -> Slice:
        piece = decode_slice(record, self._model)
        assert piece is not None  # it was written here
        return piece


def _number(key: str) -> int:
    return int(key[1:], 16)

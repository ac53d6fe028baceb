"""Training while the witnesses change: a dictionary for each version of them, and the readout over the newest fit one.

The roll-out steps the sequences it keeps once more with each version, so the rows of a new one arrive on their own.
Until they are half as many as the dictionary in use has, that one goes on; rows of older versions are passed over. A
readout brings the witnesses of its support along, so that whoever answers with it needs nothing else.
"""

import threading

import numpy as np

from snn.model import ModelSpec
from snn.network import select
from solver_service import metrics
from solver_service.dictionary import BUDGET
from solver_service.snapshot import Arrays
from solver_service.trainer import Trainer
from solver_service.training import Backend, with_prefix
from wire import messages_pb2 as pb
from wire.codec import columns_version
from wire.weights import decode_witnesses, network_to_bytes

CURRENT, NEXT, RECORD = "current_", "next_", "witnesses_"  # of the names of arrays in a snapshot


class ChangingTrainer:
    """`Training` of a model whose witnesses are trained."""

    def __init__(
        self, model: ModelSpec, arrays: Arrays | None = None, budget: int = BUDGET, device: str | None = None
    ) -> None:
        """`arrays` as `freeze` gave them, for a restart; the rest as of `Trainer`."""
        self.model, self._budget, self._device = model, budget, device
        self._records: dict[int, bytes] = {}  # of `witnesses`, by version
        self._swap = threading.Lock()
        arrays = arrays or {}
        self.current = Trainer(model, with_prefix(arrays, CURRENT) or None, budget, device)
        self.version, self._next_version = map(int, arrays.get("versions", (0, 0)))  # type: ignore[arg-type]
        held = with_prefix(arrays, NEXT)
        self._next = Trainer(model, held, budget, device) if held else None
        for name, record in with_prefix(arrays, RECORD).items():
            self._records[int(name)] = record.tobytes()

    @property
    def fresh(self) -> int:
        """Rows that no readout was trained on; none while the witnesses are not known."""
        return self.current.fresh if self._known(self.version) else 0

    @property
    def held_bytes(self) -> int:
        return self.current.held_bytes + (0 if self._next is None else self._next.held_bytes)

    def offer_witnesses(self, record: bytes) -> None:
        """Take a record of `witnesses`. Raises WireError for one that cannot be used."""
        version = self._checked(record)
        if version > self.version and version not in self._records:
            self._records[version] = record
            self._take_over()

    def ingest(self, record: bytes) -> None:
        """Store a record of `spike-columns`."""
        version = columns_version(record)
        if version == self.version:
            self.current.ingest(record)
        elif version >= max(self._next_version, self.version):
            if version > self._next_version or self._next is None:
                self._next, self._next_version = Trainer(self.model, None, self._budget, self._device), version
            self._next.ingest(record)
            self._take_over()

    def _take_over(self) -> None:
        """Go on with the next version, if it is known and has rows enough."""
        if self._next is None or not self._known(self._next_version):
            return
        if 2 * self._next.dictionary.rows < self.current.dictionary.rows:
            return
        with self._swap:
            self.current, self.version = self._next, self._next_version
            self._next = None
        self._records = {version: held for version, held in self._records.items() if version >= self.version}

    def _known(self, version: int) -> bool:
        """Whether the witnesses of a version can be had."""
        return version == 0 or version in self._records

    def solve(self, version: int, seconds: float, backend: Backend = "native") -> pb.Readout | None:
        """As `Training.solve`, with the witnesses of the support."""
        with self._swap:
            current, witnesses = self.current, self.version
            record = self._records.get(witnesses)
        readout = current.solve(version, seconds, backend)
        if readout is not None:
            assert record is not None or not witnesses  # `fresh` is 0 until it has come
            readout.witnesses_version = witnesses
            self._complete(readout, current, record)
            metrics.WITNESSES.labels(self.model.model).set(witnesses)
        return readout

    def _checked(self, record: bytes) -> int:
        """The version of a record of `witnesses`."""
        return decode_witnesses(record, self.model)[0]

    def _complete(self, readout: pb.Readout, trained: Trainer, record: bytes | None) -> None:
        """Give a readout, whose support are columns of `trained`, their witnesses; None: they are those of the law."""
        if record is not None:
            _, network = decode_witnesses(record, self.model)
            readout.network = network_to_bytes(select(network, list(readout.support)))

    def freeze(self) -> Arrays:
        """All of the state as plain arrays, for a snapshot."""
        held = {CURRENT + name: array for name, array in self.current.freeze().items()}
        if self._next is not None:
            held |= {NEXT + name: array for name, array in self._next.freeze().items()}
        records = {f"{RECORD}{version}": np.frombuffer(record, np.uint8) for version, record in self._records.items()}
        return {**held, **records, "versions": np.array([self.version, self._next_version])}

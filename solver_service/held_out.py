"""Rows of the stream that no readout is trained on, and the beta that they choose (`path`).

A tenth of the ids are held out, by their hash: which ones is a function of the id alone, whatever the order and the
restarts. The newest ROWS of them are kept, and weigh the same however old they are. The choice is made anew whenever
twice as many rows have come, so that all paths together cost about as much as the last one.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from snn import fingerprint
from snn.model import ModelSpec
from solver_service.columns import Columns
from solver_service.dictionary import BUDGET, Dictionary, Piece, Shape
from solver_service.fit import Moments, Samples
from solver_service.losses import loss_of
from solver_service.path import warm_path
from solver_service.snapshot import Arrays
from solver_service.weights import balanced
from wire.idset import Ids

ROWS = 4096
FEWEST = 50  # rows that choose; before there are so many, beta is FIRST
FIRST = 0.01
SHARE = 10  # one id of so many
KEY = np.uint64(0x5851F42D4C957F2D)  # fixed, and none of the fingerprints' or the dictionary's keys


def is_held_out(ids: Ids) -> npt.NDArray[np.bool_]:
    """Which of the ids [N] are held out."""
    return np.asarray(fingerprint.mix(ids ^ KEY) < np.uint64(2**64 // SHARE))


class HeldOut:
    def __init__(self, model: ModelSpec, arrays: Arrays | None = None, budget: int = BUDGET) -> None:
        """`arrays` as `freeze` gave them, for a restart."""
        self.model = model
        newest: dict[str, Any] = {"window": ROWS, "half_life": None}
        kind = (Shape.of(model), model.readout.model_copy(update=newest), budget)
        self.dictionary = Dictionary.from_arrays(arrays, *kind) if arrays else Dictionary(*kind)
        self.relative_beta = FIRST
        self._chosen_at = 0  # rows that had come

    def split(self, piece: Piece) -> tuple[Piece, int]:
        """Keep the held-out samples of a piece; the others, and the number of duplicates among those kept."""
        kept = is_held_out(piece.ids)
        duplicates = self.dictionary.add(_part(piece, kept)) if kept.any() else 0
        return _part(piece, ~kept), duplicates

    def samples(self, columns: Columns) -> Samples | None:
        """The loss over the held-out rows and the candidates; None while there are too few rows or no need of them."""
        self.dictionary.take_changes()
        rows = self.dictionary.all_rows()
        if len(rows.ids) < FEWEST or self.dictionary.seen < 2 * self._chosen_at:
            return None
        readout = self.model.readout
        weights = np.ones(len(rows.ids))
        if readout.class_weight is not None:
            weights = balanced(weights, rows.targets)
        return columns.samples(rows, loss_of(readout), weights)

    def choose(self, fit: Moments | Samples, held_out: Samples, seconds: float, device: str | None = None) -> None:
        """Take up the beta that `held_out` chooses for `fit`, within `seconds`."""
        readout = self.model.readout
        assert isinstance(readout.relative_beta, str)
        path = warm_path(fit, held_out, readout.penalty, seconds=seconds, device=device)
        self.relative_beta = float(path.relative_betas[path.chosen(readout.relative_beta)])
        self._chosen_at = self.dictionary.seen

    def freeze(self) -> Arrays:
        """The rows as plain arrays, for a snapshot."""
        return self.dictionary.arrays()


def _part(piece: Piece, rows: npt.NDArray[np.bool_]) -> Piece:
    return Piece(piece.shard, piece.ids[rows], piece.bits[rows], piece.targets[rows])

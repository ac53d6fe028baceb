"""Records of `sequences` as slices of the lane they came under; what cannot be used becomes a dead letter."""

from collections.abc import Iterator

from pyflink.datastream import OutputTag

from operators.metrics import OperatorMetrics
from operators.tags import DEAD_LETTERS
from snn.model import ModelSpec
from wire.codec import Slice, decode_slice, encode_dead_letter
from wire.reasons import Reason, WireError


def read(record: bytes, model: ModelSpec, lane: int) -> Slice | None:
    """The slice in a record that came under the key of `lane`; None where it belongs to another model."""
    piece = decode_slice(record, model)
    if piece is not None and piece.lane != lane:
        raise WireError(
            Reason.WRONG_LANE,
            f"expected Kafka's key to be the record's lane in decimal, {piece.lane}, got none or that of another lane",
        )
    return piece


def refuse(
    job: str, topic: str, error: WireError, record: bytes, metrics: OperatorMetrics
) -> Iterator[tuple[OutputTag, bytes]]:
    metrics.count("dead_letters", reason=error.reason)
    yield DEAD_LETTERS, encode_dead_letter(job, topic, error, record)

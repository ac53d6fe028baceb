"""Why a record became a dead letter: a closed set of names."""

from enum import StrEnum


class Reason(StrEnum):
    NOT_PROTOBUF = "not_protobuf"  # the bytes are no message of this topic
    UNKNOWN_SCHEMA = "unknown_schema"  # written by a newer or unknown version of the contract
    WRONG_SHAPE = "wrong_shape"  # sizes do not fit the model or each other
    WRONG_LANE = "wrong_lane"  # a sequence outside the lane of its record
    WRONG_TIMESTEP = "wrong_timestep"  # the slice reaches past the model's last timestep
    OUT_OF_RANGE = "out_of_range"  # an input code outside [low, high]
    BAD_TARGET = "bad_target"  # a class or value the readout cannot learn from
    EXPIRED = "expired"  # a sequence that was never finished
    STALE_READOUT = "stale_readout"  # older than the one in use
    CORRUPT_READOUT = "corrupt_readout"  # the checksum does not fit the bytes
    TOO_LARGE = "too_large"  # a model whose window or half-life the solver may not hold
    NEEDS_ROWS = "needs_rows"  # a model whose readout cannot be had from sums
    COUNTED_TWICE = "counted_twice"  # sums over samples that are in the dictionary already
    CORRUPT_WEIGHTS = "corrupt_weights"  # tensors that are not those of the model, or numbers that cannot be trained on
    WRONG_MODEL = "wrong_model"  # made from another specification of the model


class WireError(ValueError):
    """A record that cannot be used: its reason and a sentence that says what was expected and what came."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

"""Dropping abandoned sequences of a lane, as dead letters."""

from collections.abc import Iterator

from pyflink.datastream import OutputTag

from operators.lane import Lane
from operators.metrics import OperatorMetrics
from operators.tags import DEAD_LETTERS
from wire.codec import encode_dead_letter
from wire.reasons import Reason, WireError


def expire(
    lane: Lane, job: str, timesteps: int, after_ms: int, now_ms: int, metrics: OperatorMetrics
) -> Iterator[tuple[OutputTag, bytes]]:
    """Drop the sequences that nothing has come of for `after_ms`, and say so of each."""
    for sequence, steps in lane.expire(now_ms - after_ms):
        metrics.count("dead_letters", reason=Reason.EXPIRED)
        detail = (
            f"sequence {sequence}: expected {timesteps} timesteps and an answer, got {steps} without a hole "
            f"and nothing for {after_ms / 1000:g} s; push it again, whole"
        )
        yield DEAD_LETTERS, encode_dead_letter(job, "sequences", WireError(Reason.EXPIRED, detail), b"")

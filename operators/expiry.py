"""Dropping abandoned sequences of a lane, as dead letters."""

from collections.abc import Iterator

from pyflink.datastream import OutputTag

from operators.intake import refuse
from operators.lane import Lane
from operators.metrics import OperatorMetrics
from wire.reasons import Reason, WireError


def expire(
    lane: Lane, job: str, timesteps: int, after_ms: int, now_ms: int, metrics: OperatorMetrics
) -> Iterator[tuple[OutputTag, bytes]]:
    """Drop the sequences that nothing has come of for `after_ms`, and say so of each."""
    for sequence, steps in lane.expire(now_ms - after_ms):
        detail = (
            f"sequence {sequence}: expected {timesteps} timesteps and an answer, got {steps} without a hole "
            f"and nothing for {after_ms / 1000:g} s; push it again, whole"
        )
        yield from refuse(job, "sequences", WireError(Reason.EXPIRED, detail), b"", metrics)

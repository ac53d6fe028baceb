"""A sequence that is never finished becomes a dead letter, once, and may come back whole."""

from pathlib import Path

import numpy as np

from spikeloom.client import Client
from spikeloom.local import Stack
from tests.integration.conftest import eventually, job
from tests.models import small_model
from wire import messages_pb2 as pb
from wire.codec import Slice, columns_model, decode, decode_columns, encode_slice, now_us
from wire.registry import read_all
from wire.targets import Targets

MODEL = small_model(model="expiry")


def expired(stack: Stack) -> list[str]:
    letters = (decode(pb.DeadLetter, record) for record in read_all(stack.connection, "dead-letters"))
    return [letter.detail for letter in letters if letter.reason == "expired"]


def emitted(stack: Stack) -> list[int]:
    records = [r for r in read_all(stack.connection, "spike-columns") if columns_model(r) == MODEL.model]
    return sorted(sample for record in records for sample in decode_columns(record, MODEL).ids.tolist())


def test_an_abandoned_sequence_expires_and_comes_back(stack: Stack, project_root: Path) -> None:
    codes = np.ones((1, 5, 8), np.int32)
    classes = Targets.final(np.array([3], np.int32))
    with Client(stack.connection) as client:
        client.register(MODEL)
        with job(stack, project_root, "roll_out", MODEL, "--expire-after", "2"):
            piece = Slice(2, np.array([6], np.uint64), 0, codes, classes, now_us())
            client.send(encode_slice(MODEL, piece), piece.lane)
            client.flush()
            eventually(lambda: len(expired(stack)) > 0, "the dead letter")
            client.push(MODEL, np.ones((1, 8, 8)), [3], ids=[6])
            eventually(lambda: emitted(stack) == [6, 6], "the columns of both shards")
    (detail,) = expired(stack)
    assert "sequence 6: expected 8 timesteps and an answer, got 5" in detail

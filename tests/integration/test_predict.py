"""Predictions on a real broker and a real cluster: exact answers, hot swaps, refusals, honest test-then-train."""

from pathlib import Path

import numpy as np
from kafka import KafkaProducer

from snn.engine import final_spikes
from snn.readout import predicted_classes
from spikeloom.client import Client
from spikeloom.local import Stack
from tests.integration.conftest import eventually, job
from tests.models import small_model
from wire import messages_pb2 as pb
from wire.codec import decode, encode_readout
from wire.registry import read_all

MODEL = small_model(model="predict")
RNG = np.random.default_rng(5)


def readout(version: int, support: list[int], trained_on: tuple[int, int]) -> pb.Readout:
    coefficients, intercept = (RNG.integers(-99, 99, shape) / 64 for shape in ((len(support), 10), 10))
    return pb.Readout(
        model=MODEL.model,
        digest=MODEL.digest,
        version=version,
        outputs=10,
        support=support,
        coefficients=coefficients.tobytes(),
        intercept=intercept.tobytes(),
        trained_on=[pb.Span(first=trained_on[0], last=trained_on[1])],
    )


def expected(codes: np.ndarray, used: pb.Readout) -> np.ndarray:
    spikes = final_spikes(codes, MODEL.input, MODEL.network(list(used.support)))
    coefficients = np.frombuffer(used.coefficients).reshape(-1, 10)
    return spikes.astype(float) @ coefficients + np.frombuffer(used.intercept)


def answers(stack: Stack) -> dict[int, pb.Prediction]:
    found = (decode(pb.Prediction, record) for record in read_all(stack.connection, "predictions"))
    return {answer.id: answer for answer in found if answer.model == MODEL.model}


def check(got: dict[int, pb.Prediction], ids: range, codes: np.ndarray, used: pb.Readout) -> None:
    scores = expected(codes[list(ids)], used)
    assert {got[i].readout_version for i in ids} == {used.version}
    assert b"".join(got[i].scores for i in ids) == scores.tobytes(), "scores are the same bits"
    assert [list(got[i].predicted_classes) for i in ids] == predicted_classes(scores, MODEL.readout).tolist()
    assert all(got[i].answered_us >= got[i].sent_us > 0 for i in ids)


def test_answers_swaps_and_refusals(stack: Stack, project_root: Path) -> None:
    codes = RNG.integers(0, 17, (300, 8, 8)).astype(np.int32)
    inputs, classes = codes / 16, RNG.integers(0, 10, 300)
    first, second = readout(1, [3, 40, 63], (0, 49)), readout(2, [], (0, 249))
    producer = KafkaProducer(**stack.connection.python_client(), acks="all")

    def publish(record: bytes) -> None:
        producer.send("readouts", key=b"predict", value=record).get(30)

    with Client(stack.connection) as client:
        client.register(MODEL)
        client.push(MODEL, inputs[:100], classes[:100], ids=np.arange(100), steps=3)  # before any readout: they wait
        with job(stack, project_root, "predict", MODEL):
            publish(encode_readout(first))
            eventually(lambda: len(answers(stack)) == 100, "the answers of the first readout")
            got = answers(stack)
            check(got, range(100), codes, first)
            assert [got[i].in_training for i in range(100)] == [i < 50 for i in range(100)]
            assert [list(got[i].target_classes) for i in range(100)] == classes[:100, None].tolist()

            corrupt = bytearray(encode_readout(readout(9, [1], (0, 1))))
            corrupt[-1] ^= 1
            publish(bytes(corrupt))
            publish(encode_readout(first))  # the same version again
            other = readout(9, [1], (0, 1))
            other.digest += 1
            publish(encode_readout(other))
            publish(encode_readout(second))
            eventually(lambda: len(refusals(stack)) == 3, "three refusals")
            client.push(MODEL, inputs[100:300], ids=np.arange(100, 300), block=7)
            eventually(lambda: len(answers(stack)) == 300, "the answers of the second readout")
            check(answers(stack), range(100, 300), codes, second)
            assert {answers(stack)[i].target_classes[0] for i in range(100, 300)} == {-1}
    assert sorted(refusals(stack)) == ["corrupt_readout", "stale_readout", "wrong_model"]


def refusals(stack: Stack) -> list[str]:
    letters = (decode(pb.DeadLetter, record) for record in read_all(stack.connection, "dead-letters"))
    return [letter.reason for letter in letters if letter.job == "predict" and letter.topic == "readouts"]

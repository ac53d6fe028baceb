"""Hebbian learning on a real broker and a real cluster: through a crash and another parallelism, the bits of a plain
loop over the records in Kafka's order, each sequence answered before it is learned from, and learned from once."""

from pathlib import Path

import numpy as np
from kafka import KafkaProducer

from operators.hebbian import of_bytes
from snn.model import parse_model
from snn.training.hebbian import answers, initial_state, learn
from spikeloom.client import Client
from spikeloom.local import Stack
from tests.integration.conftest import eventually, not_shown
from wire import messages_pb2 as pb
from wire.codec import decode, decode_slice
from wire.reasons import WireError
from wire.registry import read_all

NUMBERS, STEPS, SEQUENCES = 8, 3, 2000
MODEL = parse_model(
    {
        "model": "hebbian",
        "input": {"timesteps": STEPS, "features": NUMBERS, "bits": 0},
        "witnesses": {"law": {"name": "gaussian"}, "count": 8},
        "readout": {"outputs": 2},
        "lanes": 1,
        "hebbian": {"hidden": [4], "seed": 1, "publish_every": 50},
    }
)


def test_a_run_is_a_function_of_the_records(stack: Stack, project_root: Path) -> None:
    numbers = np.random.default_rng(8).integers(0, NUMBERS, SEQUENCES)
    inputs = np.repeat(np.eye(NUMBERS)[numbers][:, None], STEPS, axis=1)
    train = project_root / "flink_jobs" / "train_hebbian.py"

    def push(first: int, last: int, labelled: bool = True, **how: int) -> None:
        targets = numbers[first:last] % 2 if labelled else None
        client.push(MODEL, inputs[first:last], targets, ids=np.arange(first, last), **how)
        client.flush()

    with Client(stack.connection) as client:
        client.register(MODEL)
        running = stack.submit(train, "--model", MODEL.model)
        push(0, 500, block=7)
        poison(stack)
        push(500, 700, block=9, steps=2)
        eventually(lambda: len(predictions(stack)) == 700, "answers")
        push(700, 1000, block=1)
        stack.kill_task_manager()
        push(600, 1200, block=11)  # a part of it again
        stack.start_task_manager()
        eventually(lambda: len(predictions(stack)) == 1200, "answers after a crash", seconds=240)
        savepoint = stack.savepoint(running, stop=True)
        running = stack.submit(train, "--model", MODEL.model, savepoint=savepoint, parallelism=2)
        push(1200, 1300, labelled=False, block=5)
        push(1300, SEQUENCES, block=50)
        eventually(lambda: len(predictions(stack)) == SEQUENCES, "all answers", seconds=240)
        eventually(lambda: len(witnesses(stack)) == (SEQUENCES - 100) // 50, "all weights")
        pages = stack.metrics_urls.values()
        eventually(lambda: not not_shown("Hebbian learning (train_hebbian)", pages), "the panels' metrics")
        stack.cancel(running)

    expected, states = by_a_plain_loop(stack)
    for sequence, answer in predictions(stack).items():
        assert (answer.readout_version, list(answer.predicted_classes)) == expected[sequence]
        assert answer.target_classes[0] == (numbers[sequence] % 2 if not 1200 <= sequence < 1300 else -1)
    published = witnesses(stack)
    assert [record.version for record in published] == list(range(50, 1901, 50)), "each once"
    for record in published:
        state = of_bytes(record.safetensors)
        assert state.passes == record.version
        assert state.weights.tobytes() == states[record.version], "the same bits"
    last = [expected[sequence][1][0] == numbers[sequence] % 2 for sequence in range(SEQUENCES - 200, SEQUENCES)]
    assert all(last), "it has learned parity"
    letters = [decode(pb.DeadLetter, record) for record in read_all(stack.connection, "dead-letters")]
    assert "not_protobuf" in {letter.reason for letter in letters if letter.job == "train_hebbian"}
    waves = [decode(pb.BrainWave, record) for record in read_all(stack.connection, "brain-waves")]
    assert {tuple(one.neurons for one in wave.layers) for wave in waves if wave.model == MODEL.model} == {(4, 2)}


def by_a_plain_loop(stack: Stack) -> tuple[dict[int, tuple[int, list[int]]], dict[int, bytes]]:
    """(forward passes before, classes) of each sequence, and the weights after each forward pass."""
    assert MODEL.hebbian is not None
    state = initial_state(MODEL.hebbian, NUMBERS, 2)
    given: dict[int, tuple[int, list[int]]] = {}
    after: dict[int, bytes] = {}
    parts: dict[int, dict[int, np.ndarray]] = {}
    for record in read_all(stack.connection, "sequences"):
        try:
            piece = decode_slice(record, MODEL)
        except WireError:
            continue
        if piece is None:
            continue
        for row, sequence in enumerate(piece.ids.tolist()):
            held = parts.setdefault(sequence, {})
            held |= {piece.start + k: codes for k, codes in enumerate(piece.codes[row])}
            if len(held) < STEPS or sequence in given:
                continue
            codes = np.stack([held[t] for t in range(STEPS)])
            answered = int(answers(codes[None], state.weights, MODEL.hebbian, 2).classes[0])
            given[sequence] = state.passes, [answered]
            if piece.targets.numbers is not None:
                target = int(piece.targets.numbers[row, 0, 0])
                state = learn(state, codes, target, MODEL.hebbian, 2, answered)
                after[state.passes] = state.weights.tobytes()
    return given, after


def predictions(stack: Stack) -> dict[int, pb.Prediction]:
    found = (decode(pb.Prediction, record) for record in read_all(stack.connection, "predictions"))
    return {answer.id: answer for answer in found if answer.model == MODEL.model}


def witnesses(stack: Stack) -> list[pb.Witnesses]:
    found = (decode(pb.Witnesses, record) for record in read_all(stack.connection, "witnesses"))
    return [record for record in found if record.model == MODEL.model]


def poison(stack: Stack) -> None:
    producer = KafkaProducer(**stack.connection.python_client(), acks="all")
    producer.send("sequences", key=b"0", value=b"\xff").get(30)
    producer.close()

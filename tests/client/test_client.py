"""Pushing, on a real broker: what arrives is what was given, however it is cut."""

from collections.abc import Iterator

import numpy as np
import pytest
from kafka import KafkaConsumer, TopicPartition

from spikeloom.client import Client, Pushed, PushError
from spikeloom.local import Stack
from tests.models import small_model
from wire.codec import Slice, decode_slice
from wire.registry import read_all
from wire.topics import read_topics

RNG = np.random.default_rng(9)
PARTITIONS = read_topics()["sequences"].partitions


def arrived(stack: Stack, model: str, ids: np.ndarray) -> list[Slice]:
    wanted = small_model(model=model)
    slices = (
        decode_slice(record, wanted) for record in read_all(stack.connection, "sequences") if model.encode() in record
    )
    return [piece for piece in slices if piece is not None and np.isin(piece.ids, ids).all()]


def together(slices: list[Slice], pushed: Pushed) -> tuple[np.ndarray, np.ndarray]:
    """Codes [N, 8, 8] and classes [N] in the order of the push; every timestep exactly once."""
    codes, classes = np.full((len(pushed.ids), 8, 8), -1), np.full(len(pushed.ids), -2)
    place = {number: row for row, number in enumerate(pushed.ids.tolist())}
    for piece in slices:
        rows = [place[number] for number in piece.ids.tolist()]
        end = piece.start + piece.codes.shape[1]
        assert (codes[rows, piece.start : end] == -1).all(), "a timestep came twice"
        codes[rows, piece.start : end] = piece.codes
        classes[rows] = -1 if piece.targets.numbers is None else piece.targets.numbers[:, 0, 0]
    return codes, classes


@pytest.mark.parametrize(("steps", "block"), [(None, None), (1, None), (3, 7)])
def test_arrays_arrive_however_they_are_cut(stack: Stack, steps: int | None, block: int | None) -> None:
    model = small_model(model="client")
    codes, classes = RNG.integers(0, 17, (50, 8, 8)), RNG.integers(-1, 10, 50)
    with Client(stack.connection) as client:
        client.register(model)
        seen: list[int] = []
        pushed = client.push("client", codes / 16, classes, steps=steps, block=block, on_progress=seen.append)
    slices = arrived(stack, "client", pushed.ids)
    assert len(slices) == pushed.records
    assert all(piece.codes.shape[1] <= (steps or 8) and len(piece.ids) <= (block or 50) for piece in slices)
    got_codes, got_classes = together(slices, pushed)
    assert np.array_equal(got_codes, codes)
    assert np.array_equal(got_classes, classes)
    assert sum(seen) == 50


def test_an_iterator_of_pairs(stack: Stack) -> None:
    codes = RNG.integers(0, 17, (20, 8, 8))

    def endless() -> Iterator[tuple[np.ndarray, int]]:
        for number, sequence in enumerate(codes):
            yield sequence / 16, number % 10

    with Client(stack.connection) as client:
        model = small_model(model="client")
        client.register(model)
        pushed = client.push(model, endless())
        again = client.push(model, iter(codes / 16))
    assert not np.isin(again.ids, pushed.ids).any(), "ids are counted on"
    got_codes, classes = together(arrived(stack, "client", pushed.ids), pushed)
    assert np.array_equal(got_codes, codes)
    assert classes.tolist() == [number % 10 for number in range(20)]
    assert together(arrived(stack, "client", again.ids), again)[1].tolist() == [-1] * 20


def test_every_partition_gets_as_many_lanes(stack: Stack) -> None:
    def ends() -> dict[TopicPartition, int]:
        consumer = KafkaConsumer(**stack.connection.python_client())
        try:
            return consumer.end_offsets([TopicPartition("sequences", n) for n in range(PARTITIONS)])
        finally:
            consumer.close()

    before, model = ends(), small_model(model="client")
    with Client(stack.connection) as client:
        client.register(model)
        client.push(model, np.zeros((40, 8, 8)))
    assert model.lanes == PARTITIONS
    assert {end - before[partition] for partition, end in ends().items()} == {1}


def test_a_name_keeps_its_meaning(stack: Stack) -> None:
    with Client(stack.connection) as client:
        assert client.register(small_model(model="meaning")) is True
        assert client.register(small_model(model="meaning")) is False
        with pytest.raises(PushError, match=r"another specification.*another name"):
            client.register(small_model(model="meaning", lanes=8))
        with pytest.raises(PushError, match=r"'unheard' is not registered \(registered: .*meaning"):
            client.push("unheard", np.zeros((1, 8, 8)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sequences": np.zeros((2, 8, 7))}, r"\[N, 8, 8\], got \[2, 8, 7\]"),
        ({"sequences": np.full((2, 8, 8), 0.3)}, "quantise"),
        ({"sequences": [["a"]]}, "array of numbers"),
        ({"targets": [1]}, r"shape \[2, 1\] or \[2\], got \[1\]"),
        ({"targets": [1, 10]}, r"below 10 .*got 1 \.\. 10"),
        ({"targets": [1.5, 2]}, "integer classes"),
        ({"ids": [1, 1]}, "distinct ids"),
        ({"ids": [1, -1]}, "unsigned"),
        ({"steps": 9}, r"1 \.\. 8 timesteps"),
        ({"start": 8, "ids": [1, 2]}, r"0 \.\. 7, got 8"),
        ({"start": 3, "sequences": np.zeros((2, 5, 8))}, "ids: expected"),
        ({"start": 3, "ids": [1, 2]}, r"\[N, 1 \.\. 5, 8\], got \[2, 8, 8\]"),
    ],
)
def test_bad_data_is_refused_before_anything_is_sent(arguments: dict, words: str) -> None:
    given = {"sequences": np.zeros((2, 8, 8))} | arguments
    with pytest.raises(PushError, match=words):
        Client("127.0.0.1:1").push(small_model(), **given)

"""The guarantee on a real broker and a real cluster: every sample once, none lost, none twice, whatever fails."""

import itertools
import random
from pathlib import Path

import numpy as np
from kafka import KafkaProducer

from solver_service import snapshot
from solver_service.trainer import Trainer
from spikeloom.client import Client
from spikeloom.local import Stack
from tests.integration.conftest import Solver, eventually, job, offline_spikes
from tests.models import small_model
from wire import messages_pb2 as pb
from wire.codec import (
    Columns,
    Slice,
    Targets,
    columns_model,
    decode,
    decode_columns,
    encode_columns,
    encode_slice,
    now_us,
    pack,
)
from wire.idset import IdSet
from wire.registry import read_all

SEQUENCES = 3000
POISON = 30
MODEL = small_model(model="exactly-once")


def slices(codes: np.ndarray, classes: np.ndarray, chance: random.Random) -> list[tuple[int, bytes]]:
    """(lane, record): every timestep of every sequence, cut at random, a tenth of the records twice, shuffled."""
    records = []
    for lane in range(MODEL.lanes):
        ids = np.arange(lane, len(codes), MODEL.lanes, dtype=np.uint64)
        begin = 0
        while begin < len(ids):
            group = ids[begin : begin + chance.randint(1, 40)]
            begin += len(group)
            cuts = sorted({0, 8, *(chance.randint(1, 7) for _ in range(chance.randint(0, 3)))})
            for start, end in itertools.pairwise(cuts):
                piece = Slice(lane, group, start, codes[group, start:end], Targets.final(classes[group]), now_us())
                records += [(lane, encode_slice(MODEL, piece))] * (2 if chance.random() < 0.1 else 1)
    chance.shuffle(records)
    return records


def poison(chance: random.Random) -> list[tuple[int, bytes]]:
    """Records that are no messages, of a wrong shape, out of range, in the wrong lane."""
    good = pb.Block.FromString(
        encode_slice(MODEL, Slice(1, np.array([1], np.uint64), 0, np.zeros((1, 8, 8), int), Targets(), 0))
    )
    broken = []
    for number in range(POISON):
        block = pb.Block()
        block.CopyFrom(good)
        block.sent_us = number  # so that each is another record
        if number % 4 == 0:
            block.features = 7
        elif number % 4 == 1:
            block.inputs = b"\xff" * 64
        elif number % 4 == 2:
            block.lane = 2
        record = block.SerializeToString()
        broken.append((chance.randrange(MODEL.lanes), record if number % 4 < 3 else b"\xff" + number.to_bytes()))
    return broken


def keyless() -> list[tuple[bytes | None, bytes | None]]:
    """(Kafka key, record): good records under keys that are not their lane, and a key without a record."""
    keys = (None, b"0", b"3", b"-1", b"17", b"lane", b"\xff")
    ids = np.array([SEQUENCES + 2], np.uint64)
    lane = int(ids[0]) % MODEL.lanes
    codes, targets = np.zeros((1, 8, 8), int), Targets.final(np.array([1], np.int32))
    records = [encode_slice(MODEL, Slice(lane, ids, 0, codes, targets, n)) for n in range(len(keys))]
    return [*zip(keys, records, strict=True), (b"1", None)]


def test_shuffled_slices_duplicates_poison_and_crashes(
    stack: Stack, solver: Solver, project_root: Path, tmp_path: Path
) -> None:
    chance, rng = random.Random(3), np.random.default_rng(3)
    codes = rng.integers(0, 17, (SEQUENCES, 8, 8)).astype(np.int32)
    classes = rng.integers(0, 10, SEQUENCES).astype(np.int32)
    bad = poison(chance)
    records = slices(codes, classes, chance)
    for record in bad:
        records.insert(chance.randrange(len(records)), record)
    stray = keyless()
    first, second = records[: len(records) // 2], records[len(records) // 2 :]

    with Client(stack.connection) as client:
        client.register(MODEL)
        with job(stack, project_root, "roll_out", MODEL):
            push(client, first)
            send(stack, stray)
            solver.start()
            eventually(lambda: any(True for _ in columns(stack)), "the first spike columns")
            push(client, second[: len(second) // 2])
            task_manager = stack.processes[stack.task_managers[0]]
            assert any("beam_boot" in " ".join(member.cmdline()) for member in task_manager.group())
            stack.kill_task_manager()
            assert task_manager.group() == []  # its Python workers died with it
            push(client, second[len(second) // 2 :])
            stack.start_task_manager()
            solver.kill()
            solver.start()
            eventually(
                lambda: complete(held(tmp_path)) == SEQUENCES, "every sample to be in the dictionary", seconds=240
            )
            solver.stop()

    expected = offline_spikes(codes, MODEL)
    assert 0.2 < expected.mean() < 0.8, "the comparison has something to compare"
    streamed, offline = Trainer(MODEL, held(tmp_path)), Trainer(MODEL)
    for record in offline_columns(expected, classes):
        offline.ingest(record)
    for trainer in (streamed, offline):
        assert trainer.solve(1, seconds=60) is not None  # every row has been counted now
    ours, theirs = streamed.freeze(), offline.freeze()
    assert ours.keys() == theirs.keys()
    for name in set(theirs) - {"next_age"}:  # sums over rows and hashed ids: each sample once, and its very bits
        assert np.array_equal(ours[name], theirs[name]), name
    assert streamed.dictionary.seen == SEQUENCES

    emitted = [sample for record in columns(stack) for sample in decode_columns(record, MODEL).ids.tolist()]
    assert sorted(emitted) == sorted(list(range(SEQUENCES)) * 2), "each shard emits each sample once"
    letters = [decode(pb.DeadLetter, record) for record in read_all(stack.connection, "dead-letters")]
    ours = [letter for letter in letters if letter.job == "roll_out" and letter.topic == "sequences"]
    assert {letter.record for letter in ours} == {record or b"" for _, record in bad + stray}
    reasons = {"wrong_shape", "out_of_range", "wrong_lane", "not_protobuf", "unknown_schema"}
    assert {letter.reason for letter in ours} == reasons


def push(client: Client, records: list[tuple[int, bytes]]) -> None:
    for lane, record in records:
        client.send(record, lane)
    client.flush()


def send(stack: Stack, records: list[tuple[bytes | None, bytes | None]]) -> None:
    producer = KafkaProducer(**stack.connection.python_client(), acks="all")
    for key, record in records:
        producer.send("sequences", key=key, value=record)
    producer.flush(30)
    producer.close()


def columns(stack: Stack) -> list[bytes]:
    """Committed records of this model."""
    return [r for r in read_all(stack.connection, "spike-columns") if columns_model(r) == MODEL.model]


def held(folder: Path) -> snapshot.Arrays | None:
    """What the solver's newest snapshot holds of this model."""
    loaded = snapshot.load(folder / "solver")
    return None if loaded is None else loaded[1].get(MODEL.model)


def complete(dictionary: snapshot.Arrays | None) -> int:
    """Samples of which every shard has come."""
    return 0 if dictionary is None else len(IdSet(dictionary["seen"].tolist()))


def offline_columns(spikes: np.ndarray, classes: np.ndarray) -> list[bytes]:
    """The records of both shards, whose bits are [N, P]."""
    ids, bits, width = np.arange(len(spikes), dtype=np.uint64), pack(spikes), MODEL.witnesses.count // 16
    return [
        encode_columns(
            MODEL,
            Columns.final(shard, 8 * width * shard, ids, bits[:, width * shard :][:, :width], Targets.final(classes)),
        )
        for shard in range(2)
    ]

"""Stopped with a savepoint and continued with another parallelism, on RocksDB: the same bits, each sample once."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaAdminClient
from kafka.errors import RetriableError

from spikeloom.client import Client
from spikeloom.local import Stack
from spikeloom.local.flink import FlinkSettings
from tests.integration.conftest import eventually, offline_spikes
from tests.models import small_model
from wire.codec import Slice, columns_model, decode_columns, encode_slice, now_us, pack
from wire.registry import read_all
from wire.targets import Targets

# Long sequences and few neurons: state holds snapshots of membranes, not only records.
MODEL = small_model(
    model="rescaling",
    input={"timesteps": 40, "features": 8, "bits": 4},
    witnesses={"law": {"name": "gaussian", "leak": 0.75}, "seed": 7, "count": 32, "shards": 2},
    lanes=8,
)
SEQUENCES = 400


@pytest.fixture(scope="module")
def rocksdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = FlinkSettings(checkpoint_seconds=1, state_backend="rocksdb")
    with Stack(tmp_path_factory.mktemp("rocksdb"), slots=4, settings=settings) as stack:
        yield stack


def slices(codes: np.ndarray, classes: np.ndarray, chance: random.Random) -> list[tuple[int, bytes]]:
    """(lane, record) of every timestep, many of them single, roughly in order of time, lanes mixed."""
    timed = []
    for lane in range(MODEL.lanes):
        ids = np.arange(lane, len(codes), MODEL.lanes, dtype=np.uint64)
        for group in np.array_split(ids, 5):
            cuts = sorted({0, 40, *chance.sample(range(1, 40), 15)})
            for start, end in itertools.pairwise(cuts):
                piece = Slice(lane, group, start, codes[group, start:end], Targets.final(classes[group]), now_us())
                timed.append((start + chance.uniform(0, 12), lane, encode_slice(MODEL, piece)))
    return [(lane, record) for _, lane, record in sorted(timed)]


@pytest.mark.slow
def test_from_1_to_2_to_4_to_1(rocksdb: Stack, project_root: Path) -> None:
    rng = np.random.default_rng(11)
    codes = rng.integers(0, 17, (SEQUENCES, 40, 8)).astype(np.int32)
    classes = rng.integers(0, 10, SEQUENCES).astype(np.int32)
    records = slices(codes, classes, random.Random(11))
    parts = [list(part) for part in np.array_split(np.array(records, object), 4)]
    savepoint, sent = None, 0
    with Client(rocksdb.connection) as client:
        client.register(MODEL)
        for part, parallelism in zip(parts, (1, 2, 4, 1), strict=True):
            job = rocksdb.submit(
                project_root / "flink_jobs" / "roll_out.py",
                *("--model", MODEL.model),
                savepoint=savepoint,
                parallelism=parallelism,
            )
            for lane, record in part:
                client.send(record, lane)
            client.flush()
            sent += len(part)
            if part is not parts[-1]:
                eventually(lambda: consumed(rocksdb) == sent, "the job to read its part")  # noqa: B023
                savepoint = rocksdb.savepoint(job, stop=True)
        eventually(lambda: len(emitted(rocksdb)) >= 2 * SEQUENCES, "every sample of both shards")
        rocksdb.cancel(job)
    expected = pack(offline_spikes(codes, MODEL))
    found = emitted(rocksdb)
    assert sorted((shard, sample) for shard, sample, _ in found) == list(
        itertools.product(range(2), range(SEQUENCES))
    ), "each shard emits each sample once"
    for shard, sample, bits in found:
        assert bits == expected[sample, 2 * shard : 2 * shard + 2].tobytes()


def consumed(stack: Stack) -> int:
    """Records of `sequences` up to the newest checkpoint."""
    admin = KafkaAdminClient(**stack.connection.python_client())
    try:
        group = f"spikeloom-roll-out-{MODEL.model}"
        offsets = admin.list_group_offsets(group)[group]
    except RetriableError:  # nothing was committed yet
        return 0
    finally:
        admin.close()
    return sum(at.offset for at in offsets.values() if at.offset > 0)


def emitted(stack: Stack) -> list[tuple[int, int, bytes]]:
    """(shard, sample, bits) of what is committed."""
    records = [r for r in read_all(stack.connection, "spike-columns") if columns_model(r) == MODEL.model]
    return [
        (columns.shard, sample, bits.tobytes())
        for columns in (decode_columns(record, MODEL) for record in records)
        for sample, bits in zip(columns.ids.tolist(), columns.bits, strict=True)
    ]

"""What the operator sends adds up to one offline pass, whatever order, cuts, repetitions, crashes and groups."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import meeting
from operators.gram import EMIT_MS, GramOperator, ToGroup, groups_of
from operators.tags import DEAD_LETTERS
from snn import fingerprint
from snn.model import ModelSpec
from tests.models import small_model
from tests.operators.in_memory import Around
from wire import codec
from wire import messages_pb2 as pb
from wire.codec import Columns, SumsPart, decode, decode_sums, encode_columns, pack
from wire.targets import Targets

P, SHARDS, CLASSES = 64, 2, 10
MODEL = small_model()


class Task(Around):
    """The operator behind the one that gives records their key."""

    def __init__(self, model: ModelSpec, groups: int) -> None:
        self.to_group = ToGroup(model.spec_json, groups)
        self.to_group.open(self)
        super().__init__(lambda: GramOperator(model.spec_json, groups))

    def process(self, record: bytes) -> None:
        self.read += 1
        for row in self.to_group.flat_map(record):
            self.key, value = row
            super().process(value)


def data(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ids [n], spikes [n, P], classes [n]."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(3 * n).astype(np.uint64)[:n] + np.uint64(rng.choice([0, 2**16 - n, 2**63]))
    return ids, rng.integers(0, 2, (n, P), np.uint8), rng.integers(0, CLASSES, n).astype(np.int32)


def records(ids: np.ndarray, spikes: np.ndarray, classes: np.ndarray, seed: int) -> list[bytes]:
    """Each shard cut by itself, a lane a record, some records twice, all in any order."""
    chance, made, width = random.Random(seed), [], P // SHARDS
    for shard in range(SHARDS):
        for lane in range(MODEL.lanes):
            rows = np.flatnonzero(ids % MODEL.lanes == lane)
            rows = rows[np.random.default_rng(chance.randrange(2**32)).permutation(len(rows))]
            while len(rows):
                part, rows = np.split(rows, [chance.randint(1, 20)])
                bits = pack(spikes[part, shard * width : (shard + 1) * width])
                record = encode_columns(
                    MODEL, Columns.final(shard, shard * width, ids[part], bits, Targets.final(classes[part]))
                )
                made += [record] * (2 if chance.random() < 0.1 else 1)
    chance.shuffle(made)
    return made


def added_up(sent: list[bytes]) -> dict[str, Any]:
    """All sums together, by plain loops."""
    sums: dict[str, Any] = {
        "gram": np.zeros((P, P), np.int64),
        "cross": np.zeros((P, CLASSES)),
        "fingerprints": [0] * P,
        "ids": [],
        "total": np.zeros(CLASSES),
        "energy": np.zeros(CLASSES),
        "everything": 0,
    }
    for part in (decode_sums(record, MODEL) for record in sent):
        top, left, products = part.tile
        sums["gram"][np.ix_(top, left)] += products
        if top != left:
            sums["gram"][np.ix_(left, top)] += products.T
        if part.cross is not None and part.fingerprints is not None:
            sums["cross"][list(top)] += part.cross
            for j, (high, low) in zip(top, part.fingerprints.tolist(), strict=True):
                sums["fingerprints"][j] = (sums["fingerprints"][j] + (high << 64) + low) % 2**128
        if part.head is not None:
            sums["ids"] += part.head.ids.tolist()
            for name in ("total", "energy"):
                sums[name] += getattr(part.head, name)
            high, low = part.head.everything[0].tolist()
            sums["everything"] = (sums["everything"] + (high << 64) + low) % 2**128
    return sums


def word(sample: int) -> int:
    limbs = fingerprint.words(np.array([sample], np.uint64))[0].tolist()
    return sum(limb << 32 * k for k, limb in enumerate(limbs))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(0, 120),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([5, 30, 2**16 - 1]),
    st.sampled_from([24, 64, 1024]),
    st.randoms(use_true_random=False),
)
def test_sums_are_those_of_one_offline_pass(
    seed: int, n: int, groups: int, most: int, band: int, chance: random.Random
) -> None:
    ids, spikes, classes = data(seed, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meeting, "MOST_SUMMED", most)
        patch.setattr(codec, "BAND", band)
        task, made, crashes = Task(MODEL, groups), records(ids, spikes, classes, seed), 0
        while task.read < len(made):
            task.process(made[task.read])
            if chance.random() < 0.1:
                task.pass_time(EMIT_MS)
            if chance.random() < 0.2:
                task.checkpoint()
            if chance.random() < 0.1 and crashes < 5:
                task.crash()
                crashes += 1
        task.pass_time(EMIT_MS)
        task.restart()
        task.pass_time(EMIT_MS)
        assert not task.beside
        sums = added_up(task.sent)
        assert all(decode_sums(record, MODEL).rows <= most for record in task.sent)
    d, y = spikes.astype(np.int64), np.eye(CLASSES, dtype=np.int64)[classes]
    assert sorted(sums["ids"]) == sorted(ids.tolist()), "each sample once"
    assert np.array_equal(sums["gram"], d.T @ d)
    assert np.array_equal(sums["cross"], d.T @ y)
    assert np.array_equal(sums["total"], y.sum(axis=0))
    assert np.array_equal(sums["energy"], y.sum(axis=0))
    words = [word(sample) for sample in ids.tolist()]
    assert sums["everything"] == sum(words) % 2**128
    for j in range(P):
        assert sums["fingerprints"][j] == sum(w for w, spiked in zip(words, d[:, j], strict=True) if spiked) % 2**128
    assert {kind for state in task.states.values() for kind in state.kinds()} <= {"t"}, "of samples only ids are kept"


def test_a_sample_waits_for_its_shards() -> None:
    ids, spikes, classes = data(0, 40)
    shards = sorted(records(ids, spikes, classes, 0), key=lambda record: pb.SpikeColumns.FromString(record).shard)
    task = Task(MODEL, 2)
    late = [record for record in shards if pb.SpikeColumns.FromString(record).shard == 1]
    for record in shards[: -len(late)] + late[:-1]:
        task.process(record)
    task.pass_time(EMIT_MS)
    missing = set(pb.SpikeColumns.FromString(late[-1]).ids)
    assert {i for record in late[:-1] for i in pb.SpikeColumns.FromString(record).ids} == set(ids.tolist()) - missing
    assert set(added_up(task.sent)["ids"]) == set(ids.tolist()) - missing
    task.restart()
    task.process(late[-1])
    task.pass_time(EMIT_MS)
    assert sorted(added_up(task.sent)["ids"]) == sorted(ids.tolist())


def test_what_cannot_be_used_is_a_dead_letter_and_other_models_are_passed_over() -> None:
    ids, spikes, classes = np.arange(8, dtype=np.uint64), np.ones((8, P), np.uint8), np.zeros(8, np.int32)

    def record(model: ModelSpec, rows: slice) -> bytes:
        targets = Targets.final(classes[rows])
        return encode_columns(model, Columns.final(0, 0, ids[rows], pack(spikes[rows, : P // SHARDS]), targets))

    task = Task(MODEL, 2)
    other = small_model(model="other")
    changed = small_model(readout={"outputs": 10, "relative_beta": 0.5})
    for one in (b"\xff", record(other, slice(4)), record(changed, slice(4)), record(MODEL, slice(2)), b""):
        task.process(one)
    letters = [decode(pb.DeadLetter, letter) for letter in task.side(DEAD_LETTERS)]
    assert [(letter.job, letter.topic) for letter in letters] == [("gram", "spike-columns")] * 4
    assert [letter.reason for letter in letters] == ["not_protobuf", "wrong_model", "wrong_lane", "unknown_schema"]


def test_sums_with_values_for_targets() -> None:
    model = small_model(readout={"outputs": 2, "target": "values"})
    rng = np.random.default_rng(0)
    spikes, values = rng.integers(0, 2, (6, P), np.uint8), rng.standard_normal((6, 2)).astype(np.float32)
    ids = np.arange(0, 24, 4, dtype=np.uint64)
    task = Task(model, 4)
    for shard in range(SHARDS):
        bits = pack(spikes[:, 32 * shard : 32 * shard + 32])
        task.process(encode_columns(model, Columns.final(shard, 32 * shard, ids, bits, Targets.final(values))))
    task.pass_time(EMIT_MS)
    (part,) = [decode_sums(record, model) for record in task.sent]
    assert isinstance(part, SumsPart)
    assert part.cross == pytest.approx(spikes.T.astype(float) @ values)
    assert part.head is not None
    assert part.head.energy == pytest.approx(np.square(values.astype(float)).sum(axis=0))


def test_groups_divide_the_lanes_and_the_readout_needs_no_rows() -> None:
    assert [groups_of(small_model(lanes=lanes), None) for lanes in (16, 6, 1)] == [4, 2, 1]
    assert groups_of(small_model(lanes=16), 16) == 16
    for wanted in (3, 32, -1):
        with pytest.raises(ValueError, match="expected a divisor of the model's 16 lanes"):
            groups_of(small_model(lanes=16), wanted)
    for readout in ({"loss": "multinomial"}, {"window": 5}, {"half_life": 5}, {"class_weight": "balanced"}):
        with pytest.raises(ValueError, match="for which sums are enough"):
            groups_of(small_model(readout={"outputs": 10, **readout}), None)

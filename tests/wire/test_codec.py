"""What crosses Kafka comes back as it went, and nothing else gets through."""

import contextlib
import subprocess
import sys
from pathlib import Path

import lz4.block
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn.sums import Sums
from tests.models import small_model
from wire import codec
from wire import messages_pb2 as pb
from wire.codec import Columns, Slice
from wire.idset import IdSet
from wire.reasons import Reason, WireError
from wire.targets import Targets

MODEL = small_model()


def piece(**changes: object) -> Slice:
    given = Slice(
        1, np.array([1, 5], np.uint64), 2, np.ones((2, 3, 8), np.int32), Targets.final(np.array([3, -1], np.int32)), 9
    )
    return given._replace(**changes)


def block(**changes: object) -> bytes:
    message = pb.Block.FromString(codec.encode_slice(MODEL, piece()))
    for name, value in changes.items():
        if name == "ids":
            del message.ids[:]
            message.ids.extend(value)  # type: ignore[arg-type]
        else:
            setattr(message, name, value)
    return message.SerializeToString()


@pytest.mark.parametrize("bits", [4, 9, 18])
def test_a_slice_comes_back_as_it_went(bits: int) -> None:
    model = small_model(
        input={
            "timesteps": 8,
            "features": 8,
            "bits": min(bits, 16),
            "low": -(2.0 ** (bits - min(bits, 16))),
            "high": 4,
        },
        witnesses={"law": {"name": "gaussian", "weight_bits": 0, "scale": 0.01}, "count": 64},
    )
    low, high = model.input.codes
    codes = np.random.default_rng(0).integers(low, high + 1, (2, 3, 8)).astype(np.int32)
    sent = piece(codes=codes)
    got = codec.decode_slice(codec.encode_slice(model, sent), model)
    assert got is not None
    assert np.array_equal(got.codes, codes)
    assert np.array_equal(got.ids, sent.ids)
    assert (got.lane, got.start, got.sent_us) == (1, 2, 9)
    assert got.targets.numbers is not None
    assert got.targets.numbers.tolist() == [[[3]], [[-1]]]


def test_a_slice_of_another_model_is_not_ours() -> None:
    assert codec.decode_slice(block(model="other"), MODEL) is None


def test_large_inputs_are_compressed_where_that_makes_them_smaller() -> None:
    draw = np.random.default_rng(0)
    codes = (draw.integers(0, 17, (200, 8, 8)) * (draw.random((200, 8, 8)) < 0.1)).astype(np.int32)
    ids = np.arange(1, 801, 4, dtype=np.uint64)
    record = codec.encode_slice(MODEL, Slice(1, ids, 0, codes, Targets(), 9))
    assert len(record) < 0.5 * codes.size + 8 * len(ids)
    got = codec.decode_slice(record, MODEL)
    assert got is not None
    assert np.array_equal(got.codes, codes)


def test_inputs_that_do_not_compress_travel_as_they_are() -> None:
    model = small_model(input={"timesteps": 8, "features": 8, "bits": 8, "high": 255 / 256})
    codes = np.random.default_rng(0).integers(0, 256, (200, 8, 8)).astype(np.int32)
    ids = np.arange(1, 801, 4, dtype=np.uint64)
    message = pb.Block.FromString(codec.encode_slice(model, Slice(1, ids, 0, codes, Targets(), 9)))
    assert message.compression == pb.Block.NONE
    assert message.inputs == codes.astype(np.uint8).tobytes()


def lz4_block(inputs: bytes, **changes: object) -> bytes:
    packed = lz4.block.compress(inputs, store_size=False)
    return block(compression=pb.Block.LZ4, inputs=packed, **changes)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"\xff\xff\xff", Reason.NOT_PROTOBUF),
        (b"", Reason.UNKNOWN_SCHEMA),
        (block(schema=2), Reason.UNKNOWN_SCHEMA),
        (block(encoding=9), Reason.UNKNOWN_SCHEMA),
        (block(features=7), Reason.WRONG_SHAPE),
        (block(steps=0), Reason.WRONG_SHAPE),
        (block(steps=2**31), Reason.WRONG_TIMESTEP),
        (block(start=6), Reason.WRONG_TIMESTEP),
        (block(inputs=b"\0" * 47), Reason.WRONG_SHAPE),
        (block(inputs=b"\x11" * 48), Reason.OUT_OF_RANGE),
        (block(compression=2), Reason.UNKNOWN_SCHEMA),
        (block(compression=pb.Block.LZ4, inputs=b"\xff" * 48), Reason.WRONG_SHAPE),
        (block(compression=pb.Block.LZ4, inputs=b"", ids=range(1, 4 * 65536, 4)), Reason.WRONG_SHAPE),
        (lz4_block(b"\0" * 47), Reason.WRONG_SHAPE),
        (lz4_block(b"\0" * 49), Reason.WRONG_SHAPE),
        (lz4_block(b"\x11" * 48), Reason.OUT_OF_RANGE),
        (block(ids=[1, 1]), Reason.WRONG_SHAPE),
        (block(ids=[]), Reason.WRONG_SHAPE),
        (block(ids=[1, 2]), Reason.WRONG_LANE),
        (block(lane=9, ids=[9, 13]), Reason.WRONG_LANE),
        (block(classes=np.array([3, 10], "<i4").tobytes()), Reason.BAD_TARGET),
        (block(classes=b"\0\0\0"), Reason.WRONG_SHAPE),
        (block(values=b"\0" * 80, classes=b""), Reason.BAD_TARGET),
    ],
)
def test_poison_is_refused_with_its_reason(record: bytes, reason: Reason) -> None:
    with pytest.raises(WireError) as error:
        codec.decode_slice(record, MODEL)
    assert error.value.reason == reason
    assert "expected" in error.value.detail


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_get_past_the_codec_unchecked(record: bytes) -> None:
    with contextlib.suppress(WireError):
        assert codec.decode_slice(record, MODEL) is None


def test_columns_need_model_shard_width_and_targets() -> None:
    bits = np.random.default_rng(0).integers(0, 256, (2, 4), dtype=np.uint8)
    columns = Columns.final(1, 32, np.array([4, 9], np.uint64), bits, Targets.final(np.array([0, 9], np.int32)))
    record = codec.encode_columns(MODEL, columns)
    got = codec.decode_columns(record, MODEL)
    assert np.array_equal(got.bits[:, 0], bits)
    assert got.ids.tolist() == [4, 9]
    assert codec.columns_model(record) == "small"
    for changed, reason in (
        (columns._replace(shard=2), Reason.WRONG_SHAPE),
        (columns._replace(first_witness=0), Reason.WRONG_SHAPE),
        (columns._replace(targets=Targets()), Reason.BAD_TARGET),
        (columns._replace(targets=Targets.final(np.array([0, -1], np.int32))), Reason.BAD_TARGET),
    ):
        with pytest.raises(WireError) as error:
            codec.decode_columns(codec.encode_columns(MODEL, changed), MODEL)
        assert error.value.reason == reason
    with pytest.raises(WireError, match="wrong_model"):
        codec.decode_columns(record, small_model(lanes=8))


def sums_records(ids: list[int], step: int = 4) -> list[bytes]:
    rng, n = np.random.default_rng(0), len(ids)
    sums = Sums(
        *(float(n), np.full(64, n / 2), rng.standard_normal((64, 10)), rng.standard_normal(10), np.ones(10)),
        *(rng.integers(0, 2**64, shape, np.uint64) for shape in ((64, 2), (1, 2))),
    )
    gram = rng.integers(0, n + 1, (64, 64)).astype(np.int32)
    return list(codec.encode_sums(MODEL, np.array(ids, np.uint64), step, sums, gram))


def test_sums_come_back_as_they_went(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "BAND", 24)
    ids = [2**64 - 3, 1, 5, 9, 2**40 + 1]
    records = sums_records(ids)
    parts = [codec.decode_sums(record, MODEL) for record in records]
    assert {codec.sums_model(record) for record in records} == {"small"}
    assert [part.number for part in parts] == list(range(6))
    assert {(part.first, part.rows) for part in parts} == {(1, 5)}
    bands = [range(24), range(24, 48), range(48, 64)]
    assert [part.tile[:2] for part in parts] == [(bands[i], bands[j]) for i in range(3) for j in range(i + 1)]
    rng = np.random.default_rng(0)
    cross, total = rng.standard_normal((64, 10)), rng.standard_normal(10)
    fingerprints, everything = (rng.integers(0, 2**64, shape, np.uint64) for shape in ((64, 2), (1, 2)))
    gram = rng.integers(0, 6, (64, 64))
    for part in parts:
        top, left, products = part.tile
        assert np.array_equal(products, gram[np.ix_(top, left)])
        assert (part.cross is None) == (part.fingerprints is None) == (top != left)
        assert (part.head is None) == (part.number > 0)
        if part.cross is not None:
            assert np.array_equal(part.cross, cross[list(top)])
            assert np.array_equal(part.fingerprints, fingerprints[list(top)])
    head = parts[0].head
    assert head is not None
    assert head.ids.tolist() == sorted(ids)
    assert np.array_equal(head.total, total)
    assert np.array_equal(head.energy, np.ones(10))
    assert np.array_equal(head.everything, everything)


def test_a_tile_of_many_outputs_fits_into_a_record() -> None:
    model = small_model(
        readout={"outputs": 4096}, witnesses={"law": {"name": "gaussian"}, "count": 3000 * 8, "shards": 1}
    )
    places = codec.tiles(model)
    assert max(2 * len(top) * len(left) + (8 * 4096 + 16) * len(top) for top, left in places) < 2**22
    assert sorted(j for top, left in places if top == left for j in top) == list(range(3000 * 8))


def sums_record(**changes: object) -> bytes:
    message = pb.ColumnSums.FromString(sums_records([1, 5, 9])[0])
    for name, value in changes.items():
        if name == "ids":
            del message.ids[:]
            message.ids.extend(pb.Span(first=first, last=last) for first, last in value)  # type: ignore[attr-defined]
        else:
            setattr(message, name, value)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"\xff\xff\xff", Reason.NOT_PROTOBUF),
        (sums_record(schema=2), Reason.UNKNOWN_SCHEMA),
        (sums_record(model="other"), Reason.WRONG_MODEL),
        (sums_record(digest=1), Reason.WRONG_MODEL),
        (sums_record(tile=1), Reason.WRONG_SHAPE),
        (sums_record(rows=0), Reason.WRONG_SHAPE),
        (sums_record(rows=2**16), Reason.WRONG_SHAPE),
        (sums_record(rows=4), Reason.WRONG_SHAPE),
        (sums_record(rows=2), Reason.OUT_OF_RANGE),
        (sums_record(first=5), Reason.WRONG_SHAPE),
        (sums_record(gram=b""), Reason.WRONG_SHAPE),
        (sums_record(cross=bytes(8)), Reason.WRONG_SHAPE),
        (sums_record(cross=np.full((64, 10), np.nan).tobytes()), Reason.OUT_OF_RANGE),
        (sums_record(total=np.full(10, np.inf).tobytes()), Reason.OUT_OF_RANGE),
        (sums_record(energy=b""), Reason.WRONG_SHAPE),
        (sums_record(fingerprints=bytes(1023)), Reason.WRONG_SHAPE),
        (sums_record(everything=bytes(8)), Reason.WRONG_SHAPE),
        (sums_record(step=0), Reason.WRONG_SHAPE),
        (sums_record(step=3), Reason.WRONG_SHAPE),
        (sums_record(ids=[]), Reason.WRONG_SHAPE),
        (sums_record(ids=[(1, 2**64 - 3)]), Reason.WRONG_SHAPE),
        (sums_record(ids=[(1, 5), (5, 5)]), Reason.WRONG_SHAPE),
        (sums_record(ids=[(9, 1)]), Reason.WRONG_SHAPE),
    ],
)
def test_poisoned_sums_are_refused_with_their_reason(record: bytes, reason: Reason) -> None:
    assert codec.decode_sums(sums_record(), MODEL).rows == 3
    with pytest.raises(WireError) as error:
        codec.decode_sums(record, MODEL)
    assert error.value.reason == reason
    assert "expected" in error.value.detail


@settings(max_examples=50)
@given(st.data())
def test_one_wrong_bit_spoils_a_readout(data: st.DataObject) -> None:
    readout = pb.Readout(
        model="small", version=3, outputs=1, support=[5], intercept=bytes(8), coefficients=bytes(range(8))
    )
    record = bytearray(codec.encode_readout(readout))
    assert codec.decode_readout(bytes(record)).version == 3
    bit = data.draw(st.integers(0, 8 * len(record) - 1))
    record[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WireError):
        codec.decode_readout(bytes(record))


def test_a_model_that_does_not_fit_its_digest_is_refused() -> None:
    message = pb.Model.FromString(codec.encode_model(MODEL))
    assert codec.decode_model(message.SerializeToString()) == MODEL
    message.digest += 1
    with pytest.raises(WireError, match="digest"):
        codec.decode_model(message.SerializeToString())


@settings(max_examples=200)
@given(st.lists(st.lists(st.integers(0, 60), max_size=20), max_size=6), st.integers(1, 4))
def test_an_idset_is_a_set(batches: list[list[int]], step: int) -> None:
    kept, plain = IdSet(step=step), set()
    for batch in batches:
        ids = np.array([step * number + 2**63 for number in batch], np.uint64)
        kept.add(ids)
        plain |= set(ids.tolist())
    universe = np.arange(2**63, 2**63 + 61 * step, step, dtype=np.uint64)
    assert kept.contains(universe).tolist() == [number in plain for number in universe.tolist()]
    assert [number in kept for number in universe.tolist()] == kept.contains(universe).tolist()
    assert len(kept) == len(plain)
    assert IdSet(kept.spans(), step).spans() == kept.spans()


def test_counted_ids_cost_one_span() -> None:
    ids = IdSet(step=4)
    order = np.random.default_rng(0).permutation(1000).astype(np.uint64) * np.uint64(4)
    for part in np.array_split(order, 30):
        ids.add(part)
    assert ids.spans() == [(0, 3996)]


@pytest.mark.parametrize(
    ("folder", "name", "out"), [("kafka", "messages", "wire"), ("operators", "state", "operators")]
)
def test_generated_code_is_current(project_root: Path, tmp_path: Path, folder: str, name: str, out: str) -> None:
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-I",
        folder,
        f"--python_out={tmp_path}",
        f"--pyi_out={tmp_path}",
    ]
    subprocess.run([*command, f"{folder}/{name}.proto"], cwd=project_root, check=True)
    for suffix in ("py", "pyi"):
        made, kept = tmp_path / f"{name}_pb2.{suffix}", project_root / out / f"{name}_pb2.{suffix}"
        assert made.read_text() == kept.read_text(), f"{kept} is old: see CONTRIBUTING.md, the contract"

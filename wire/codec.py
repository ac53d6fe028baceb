"""Bytes to arrays and back. Everything that comes from a topic is checked here, sizes before memory is taken."""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import lz4.block
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError, Message

from snn.model import ModelError, ModelSpec, parse_model
from snn.sums import Sums
from wire import messages_pb2 as pb
from wire import targets as targets_of
from wire.arrays import array, finite
from wire.idset import Ids, IdSet
from wire.reasons import Reason, WireError
from wire.targets import Targets

SCHEMA = 1
MAX_SEQUENCES = 65536  # in one record; far above what a record of 8 MiB holds in practice
MAX_INPUT_BYTES = 64 * 2**20  # of a record, unpacked; a record itself has at most 8 MiB
COMPRESS_BYTES = 4096  # inputs from here on are compressed where it helps; a single short sequence is not worth it
MOST_SUMMED = 2**16 - 1  # rows of sums: their inner products fit 16 bits
BAND = 1024  # witnesses: a tile of inner products has 2 MiB
BAND_BYTES = 2**21  # of a band's products with targets: with that, ids and all, a record has less than 8 MiB
LZ4_RATIO = 256  # a byte of LZ4 stands for 255 at most
DEAD_LETTER_BYTES = 65536  # enough to see what came, little enough to keep

Codes = npt.NDArray[np.integer]
_ENCODINGS: dict[int, np.dtype] = {
    pb.Block.UINT8: np.dtype("u1"),
    pb.Block.INT16: np.dtype("<i2"),
    pb.Block.INT32: np.dtype("<i4"),
}
_M = TypeVar("_M", bound=Message)


class Slice(NamedTuple):
    """Timesteps start .. start+k-1 of the sequences `ids` [B]: grid codes [B, k, m], and targets: of these timesteps
    where the model learns at every step, else of the sequence. ends: the sequences are over with it, though earlier
    than the model's last timestep."""

    lane: int
    ids: Ids
    start: int
    codes: Codes
    targets: Targets
    sent_us: int
    ends: bool = False


class Columns(NamedTuple):
    """Spikes of one shard for the sequences `ids` [N], from the witness `first_witness` on: `bits` [N, S, P/8], S = 1
    for the final ones, T for those of every timestep. version: of the witnesses, where they are
    trained."""

    shard: int
    first_witness: int
    ids: Ids
    bits: npt.NDArray[np.uint8]
    targets: Targets
    version: int = 0

    @classmethod
    def final(cls, shard: int, first: int, ids: Ids, bits: npt.NDArray[np.uint8], targets: Targets) -> "Columns":
        """Of final spikes alone, `bits` [N, P/8]."""
        return cls(shard, first, ids, bits[:, None], targets)


class Tile(NamedTuple):
    """Inner products [h, w] of the columns `top` with the columns `left`."""

    top: range
    left: range
    products: npt.NDArray[np.uint16]


class SumsHead(NamedTuple):
    """What sums over the samples `ids` [N] hold of no column: total, energy [C]; everything [1, 2]."""

    ids: Ids
    total: npt.NDArray[np.float64]
    energy: npt.NDArray[np.float64]
    everything: npt.NDArray[np.uint64]


class SumsPart(NamedTuple):
    """A record of `gram`: tile `number` of the sums over `rows` samples of which `first` is the lowest id.

    cross [h, C] and fingerprints [h, 2] are of the columns `tile.top`: on the diagonal alone. `head`: in tile 0 alone.
    """

    first: int
    rows: int
    number: int
    tile: Tile
    cross: npt.NDArray[np.float64] | None
    fingerprints: npt.NDArray[np.uint64] | None
    head: SumsHead | None


def now_us() -> int:
    return time.time_ns() // 1000


def encode_model(model: ModelSpec) -> bytes:
    return pb.Model(schema=SCHEMA, name=model.model, spec_json=model.spec_json, digest=model.digest).SerializeToString()


def decode_model(record: bytes) -> ModelSpec:
    message = _parse(pb.Model, record)
    try:
        model = parse_model(json.loads(message.spec_json), message.name)
    except (json.JSONDecodeError, ModelError) as error:
        raise WireError(Reason.WRONG_MODEL, str(error)) from None
    if model.digest != message.digest:
        raise WireError(Reason.WRONG_MODEL, f"{message.name}: the specification does not fit its digest")
    return model


def encode_slice(model: ModelSpec, piece: Slice) -> bytes:
    _, steps, features = piece.codes.shape
    low, high = model.input.codes
    encoding = pb.Block.UINT8 if low >= 0 and high < 256 else pb.Block.INT16 if _fits16(low, high) else pb.Block.INT32
    inputs, compression = np.ascontiguousarray(piece.codes, _ENCODINGS[encoding]).tobytes(), pb.Block.NONE
    if len(inputs) >= COMPRESS_BYTES:
        packed = lz4.block.compress(inputs, store_size=False)
        if len(packed) < len(inputs):
            inputs, compression = packed, pb.Block.LZ4
    return pb.Block(
        schema=SCHEMA,
        model=model.model,
        lane=piece.lane,
        ids=piece.ids.tolist(),
        start=piece.start,
        steps=steps,
        features=features,
        encoding=encoding,
        inputs=inputs,
        compression=compression,
        sent_us=piece.sent_us,
        ends=piece.ends,
        **piece.targets.to_bytes(),
    ).SerializeToString()


def _fits16(low: int, high: int) -> bool:
    return low >= -(2**15) and high < 2**15


def decode_slice(record: bytes, model: ModelSpec) -> Slice | None:
    """The slice in a record of `sequences`, or None where it belongs to another model."""
    block = _parse(pb.Block, record)
    if block.model != model.model:
        return None
    grid, batch = model.input, _batch(block.ids)
    if block.features != grid.features or block.steps < 1:
        raise WireError(
            Reason.WRONG_SHAPE,
            f"expected {grid.features} features and at least 1 step, got {block.features} and {block.steps}",
        )
    if block.start + block.steps > grid.timesteps:
        raise WireError(
            Reason.WRONG_TIMESTEP,
            f"expected timesteps below {grid.timesteps}, got {block.start} .. {block.start + block.steps - 1}",
        )
    dtype = _ENCODINGS.get(block.encoding)
    if dtype is None:
        raise WireError(Reason.UNKNOWN_SCHEMA, f"expected encoding UINT8, INT16 or INT32, got {block.encoding}")
    shape = (batch, block.steps, block.features)
    codes = array(_inputs(block, math.prod(shape) * dtype.itemsize), dtype, shape, "inputs")
    low, high = grid.codes
    holds = np.iinfo(dtype)
    if (holds.min < low or holds.max > high) and (codes.min() < low or codes.max() > high):
        raise WireError(Reason.OUT_OF_RANGE, f"expected codes in [{low}, {high}], got {codes.min()} .. {codes.max()}")
    ids = list(block.ids)
    if len(set(ids)) != batch:
        raise WireError(Reason.WRONG_SHAPE, "expected distinct ids in a block")
    if {sequence % model.lanes for sequence in ids} != {block.lane}:
        raise WireError(
            Reason.WRONG_LANE,
            f"expected ids with id % {model.lanes} = lane, got lane {block.lane} and {ids[:4]}",
        )
    rows = block.steps if model.readout.every_step else 1
    targets = targets_of.of_bytes(batch, rows, model.readout, block.classes, block.values)
    return Slice(block.lane, np.array(ids, np.uint64), block.start, codes, targets, block.sent_us, block.ends)


def pack(spikes: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """[..., P] spikes to [..., P/8] bytes; bit j%8 (little-endian) of byte j//8 is column j."""
    return np.packbits(spikes, axis=-1, bitorder="little")


def encode_columns(model: ModelSpec, columns: Columns) -> bytes:
    return pb.SpikeColumns(
        schema=SCHEMA,
        model=model.model,
        digest=model.digest,
        shard=columns.shard,
        first_witness=columns.first_witness,
        witnesses=columns.bits.shape[2] * 8,
        ids=columns.ids.tolist(),
        spikes=np.ascontiguousarray(columns.bits).tobytes(),
        witnesses_version=columns.version,
        **columns.targets.to_bytes(),
    ).SerializeToString()


def columns_version(record: bytes) -> int:
    """Which version of the witnesses a record of `spike-columns` is of."""
    return _parse(pb.SpikeColumns, record).witnesses_version


def columns_model(record: bytes) -> str:
    """Which model a record of `spike-columns` belongs to."""
    return _parse(pb.SpikeColumns, record).model


def decode_columns(record: bytes, model: ModelSpec) -> Columns:
    message = _parse(pb.SpikeColumns, record)
    check_model("columns", message, model)
    batch, witnesses = _batch(message.ids), model.witnesses
    width = witnesses.count // witnesses.shards
    expected = (message.shard * width, width)
    if message.shard >= witnesses.shards or (message.first_witness, message.witnesses) != expected:
        raise WireError(
            Reason.WRONG_SHAPE,
            f"expected a shard below {witnesses.shards} with (first_witness, witnesses) = {expected}, got shard "
            f"{message.shard} with ({message.first_witness}, {message.witnesses})",
        )
    steps = model.target_steps
    bits = array(message.spikes, np.dtype("u1"), (batch, steps, width // 8), "spikes")
    targets = targets_of.of_bytes(batch, steps, model.readout, message.classes, message.values)
    if not targets.known(batch).all():
        raise WireError(Reason.BAD_TARGET, "expected a target for every sample of a spike column")
    ids = np.array(message.ids, np.uint64)
    return Columns(message.shard, message.first_witness, ids, bits, targets, message.witnesses_version)


def columns_ids(record: bytes, model: ModelSpec) -> Sequence[int] | None:
    """The sample ids of a record of `spike-columns`; None where it belongs to another model."""
    message = _parse(pb.SpikeColumns, record)
    return message.ids if message.model == model.model else None


def tiles(model: ModelSpec) -> list[tuple[range, range]]:
    """The columns of each tile of a model's inner products, by its number: the lower half, diagonal included."""
    side, count = max(1, min(BAND, BAND_BYTES // (8 * model.readout.outputs))), model.witnesses.count
    bands = [range(first, min(first + side, count)) for first in range(0, count, side)]
    return [(top, left) for i, top in enumerate(bands) for left in bands[: i + 1]]


def encode_sums(
    model: ModelSpec, ids: Ids, step: int, sums: Sums, gram: npt.NDArray[np.signedinteger]
) -> Iterator[bytes]:
    """Records of `gram`: sums over up to MOST_SUMMED samples `ids` [N], which are congruent modulo `step`, and their
    inner products `gram` [P, P]."""
    spans = IdSet(step=step)
    spans.add(ids)
    for number, (top, left) in enumerate(tiles(model)):
        tile = gram[top.start : top.stop, left.start : left.stop]
        message = pb.ColumnSums(
            schema=SCHEMA,
            model=model.model,
            digest=model.digest,
            first=int(ids.min()),
            rows=len(ids),
            tile=number,
            gram=tile.astype("<u2").tobytes(),
        )
        if top == left:
            message.cross = sums.cross[top.start : top.stop].astype("<f8").tobytes()
            message.fingerprints = sums.fingerprints[top.start : top.stop].astype("<u8").tobytes()
        if number == 0:
            message.ids.extend(pb.Span(first=first, last=last) for first, last in spans.spans())
            message.step = step
            message.total, message.energy = sums.total.astype("<f8").tobytes(), sums.energy.astype("<f8").tobytes()
            message.everything = sums.everything.astype("<u8").tobytes()
        yield message.SerializeToString()


def sums_model(record: bytes) -> str:
    """Which model a record of `gram` belongs to."""
    return _parse(pb.ColumnSums, record).model


def decode_sums(record: bytes, model: ModelSpec) -> SumsPart:
    message = _parse(pb.ColumnSums, record)
    check_model("sums", message, model)
    places, outputs, rows = tiles(model), model.readout.outputs, message.rows
    if message.tile >= len(places) or not 1 <= rows <= MOST_SUMMED:
        raise WireError(
            Reason.WRONG_SHAPE,
            f"expected a tile below {len(places)} and 1 .. {MOST_SUMMED} rows, got {message.tile} and {rows}",
        )
    top, left = places[message.tile]
    products = array(message.gram, np.dtype("<u2"), (len(top), len(left)), "gram")
    if products.max() > rows:
        raise WireError(Reason.OUT_OF_RANGE, f"gram: expected at most {rows} of as many rows, got {products.max()}")
    cross = fingerprints = head = None
    if top == left:
        cross = finite(message.cross, (len(top), outputs), "cross")
        fingerprints = array(message.fingerprints, np.dtype("<u8"), (len(top), 2), "fingerprints")
    if message.tile == 0:
        head = SumsHead(
            _ids(message),
            finite(message.total, (outputs,), "total"),
            finite(message.energy, (outputs,), "energy"),
            array(message.everything, np.dtype("<u8"), (1, 2), "everything"),
        )
    return SumsPart(message.first, rows, message.tile, Tile(top, left, products), cross, fingerprints, head)


def _ids(message: pb.ColumnSums) -> Ids:
    """The ids of sums, rising; checked to be as many as the rows, and distinct, before memory is taken."""
    step, after, count = message.step, 0, 0
    for span in message.ids:
        if step < 1 or not after <= span.first <= span.last or (span.last - span.first) % step:
            raise WireError(
                Reason.WRONG_SHAPE, f"ids: expected rising spans of every {step}-th id, got {span.first} .. {span.last}"
            )
        after, count = span.last + 1, count + (span.last - span.first) // step + 1
    if count != message.rows or message.ids[0].first != message.first:
        raise WireError(
            Reason.WRONG_SHAPE,
            f"ids: expected {message.rows} from {message.first} on, got {count} from "
            f"{message.ids[0].first if message.ids else 'none'} on",
        )
    steps = (np.arange((span.last - span.first) // step + 1, dtype=np.uint64) for span in message.ids)
    return np.concatenate(
        [np.uint64(span.first) + np.uint64(step) * at for span, at in zip(message.ids, steps, strict=True)]
    )


def encode_readout(readout: pb.Readout) -> bytes:
    """Stamp schema and checksum."""
    readout.schema = SCHEMA
    readout.sha256 = b""
    readout.sha256 = hashlib.sha256(readout.SerializeToString(deterministic=True)).digest()
    return readout.SerializeToString(deterministic=True)


def decode_readout(record: bytes) -> pb.Readout:
    """A readout whose checksum and shapes fit."""
    readout = _parse(pb.Readout, record)
    stated, readout.sha256 = readout.sha256, b""
    if hashlib.sha256(readout.SerializeToString(deterministic=True)).digest() != stated:
        raise WireError(Reason.CORRUPT_READOUT, f"readout {readout.version} of {readout.model}: checksum differs")
    readout.sha256 = stated
    support, outputs = len(readout.support), readout.outputs
    if outputs < 1 or len(readout.coefficients) != 8 * support * outputs or len(readout.intercept) != 8 * outputs:
        raise WireError(
            Reason.CORRUPT_READOUT,
            f"readout {readout.version}: expected [{support}, {outputs}] coefficients and [{outputs}] intercepts in "
            f"float64, got {len(readout.coefficients)} and {len(readout.intercept)} bytes",
        )
    return readout


def encode_dead_letter(job: str, topic: str, error: WireError, record: bytes) -> bytes:
    return pb.DeadLetter(
        schema=SCHEMA,
        job=job,
        topic=topic,
        reason=str(error.reason),
        detail=error.detail,
        record=record[:DEAD_LETTER_BYTES],
        observed_us=now_us(),
    ).SerializeToString()


def decode(message: type[_M], record: bytes) -> _M:
    """A record of a topic that needs no model to be understood: predictions, brain waves, dead letters."""
    return _parse(message, record)


def check_model(
    what: str, message: "pb.SpikeColumns | pb.ColumnSums | pb.Witnesses | pb.Weights | pb.Prices", model: ModelSpec
) -> None:
    """Raises WireError where `message` was made from another specification than `model`."""
    if message.model != model.model or message.digest != model.digest:
        raise WireError(
            Reason.WRONG_MODEL,
            f"expected {what} of {model.model} {model.digest:016x}, got {message.model} {message.digest:016x}",
        )


def _parse(message: type[_M], record: bytes) -> _M:
    try:
        parsed = message.FromString(record)
    except DecodeError as error:
        raise WireError(Reason.NOT_PROTOBUF, f"expected a {message.DESCRIPTOR.name} message: {error}") from None
    if parsed.schema != SCHEMA:  # type: ignore[attr-defined]
        raise WireError(Reason.UNKNOWN_SCHEMA, f"expected schema {SCHEMA}, got {parsed.schema}")  # type: ignore[attr-defined]
    return parsed


def _batch(ids: Sequence[int]) -> int:
    if not 1 <= len(ids) <= MAX_SEQUENCES:
        raise WireError(Reason.WRONG_SHAPE, f"expected 1 .. {MAX_SEQUENCES} ids, got {len(ids)}")
    return len(ids)


def _inputs(block: pb.Block, size: int) -> bytes:
    """The `size` bytes of a block's inputs, or what came instead of them."""
    if block.compression == pb.Block.NONE:
        return block.inputs
    if block.compression != pb.Block.LZ4:
        raise WireError(Reason.UNKNOWN_SCHEMA, f"expected compression NONE or LZ4, got {block.compression}")
    if size > min(MAX_INPUT_BYTES, LZ4_RATIO * len(block.inputs)):
        raise WireError(
            Reason.WRONG_SHAPE,
            f"inputs: expected at most {MAX_INPUT_BYTES} bytes and no more than LZ4 can have packed into "
            f"{len(block.inputs)}, got a shape of {size}; send fewer sequences or timesteps in a record",
        )
    try:
        return lz4.block.decompress(block.inputs, uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        raise WireError(Reason.WRONG_SHAPE, f"inputs: expected an LZ4 block of {size} bytes: {error}") from None

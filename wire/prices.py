"""What the solver and the lanes of the roll-out tell each other about a dictionary that grows.

On `witnesses` a version of it, as ids; on `candidates` what the solver asks; on `prices` what a lane answers, in parts
of PART candidates. Residuals travel on a dyadic grid of 24 bits, so that their sums over up to 2^21 samples are exact
in float64: lanes may be added up in any order.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snn import fingerprint
from snn.model import ModelSpec
from snn.sums import Sums
from wire import messages_pb2 as pb
from wire.arrays import array, finite
from wire.codec import SCHEMA, check_model, decode
from wire.idset import Ids
from wire.reasons import Reason, WireError

PART = 256  # candidates: a lane is busy with them for milliseconds, and so is who reads their record
MOST_SAMPLES = 2**21
MOST_CANDIDATES = 2**22
RESIDUAL_BITS = 23  # and a sign: what float32 holds

Witnesses = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Chosen(NamedTuple):
    """A version of a growing dictionary. ids: [K] witnesses, rising, which are its columns in this order. idle: [K]
    rounds since each had a coefficient. tried: the ids below were candidates. best_price: as a readout has it."""

    version: int
    ids: Witnesses
    idle: Witnesses
    tried: int
    best_price: float


class Candidates(NamedTuple):
    """A request. ids: [n] witnesses. samples: [N], rising. residuals: [N, C], or None for spikes. fresh: [N] whether no
    readout is trained on a sample."""

    round: int
    ids: Witnesses
    samples: Ids
    residuals: Floats | None
    fresh: npt.NDArray[np.bool_]

    def part(self, first: int) -> Witnesses:
        """The candidates of the part that begins there."""
        return self.ids[first : first + PART]


class Prices(NamedTuple):
    """What a lane answers for the candidates `first` .. `first` + `candidates` - 1 of a request: sums over the samples
    that are trained on and over the fresh ones; or, for `samples` [N], spikes as `bits` [N, ceil(candidates/8)]. kept:
    tells which of the requested samples the lane has. The sums' energy is not told: NaN."""

    round: int
    lane: int
    first: int
    candidates: int
    kept: int
    trained: Sums | None = None
    fresh: Sums | None = None
    samples: Ids | None = None
    bits: npt.NDArray[np.uint8] | None = None


def first_version(model: ModelSpec) -> Chosen:
    """Version 0, which nobody sends."""
    assert model.growing is not None
    start = model.growing.start
    return Chosen(0, np.arange(start), np.zeros(start, np.int64), start, 0.0)


def encode_chosen(model: ModelSpec, chosen: Chosen) -> bytes:
    """A record of `witnesses`."""
    return pb.Witnesses(
        schema=SCHEMA,
        model=model.model,
        digest=model.digest,
        version=chosen.version,
        ids=chosen.ids.tolist(),
        idle=chosen.idle.tolist(),
        tried=chosen.tried,
        best_price=chosen.best_price,
    ).SerializeToString()


def decode_chosen(record: bytes, model: ModelSpec) -> Chosen:
    message = decode(pb.Witnesses, record)
    check_model("witnesses", message, model)
    count, most = len(message.ids), model.witnesses.count
    ids, idle = np.array(message.ids, np.int64), np.array(message.idle, np.int64)
    if not 1 <= count <= most or len(idle) != count or (np.diff(ids) <= 0).any() or ids[-1] >= message.tried:
        raise WireError(
            Reason.WRONG_SHAPE,
            f"witnesses {message.version}: expected 1 .. {most} rising ids below {message.tried}, those tried, and as "
            f"many rounds without a coefficient, got {count} ids and {len(idle)}",
        )
    return Chosen(message.version, ids, idle, message.tried, message.best_price)


def on_grid(residuals: npt.NDArray[np.float64]) -> Floats:
    """[N, C] residuals as they travel: multiples of a power of two, 2^23 of it at most."""
    _, exponent = np.frexp(np.abs(residuals).max(initial=0.0))
    step = 2.0 ** (int(exponent) - RESIDUAL_BITS)
    return np.asarray(np.round(residuals / step) * step, np.float32)


def encode_candidates(model: ModelSpec, request: Candidates) -> bytes:
    """A record of `candidates`."""
    return pb.Candidates(
        schema=SCHEMA,
        model=model.model,
        digest=model.digest,
        round=request.round,
        ids=request.ids.tolist(),
        samples=request.samples.astype("<u8").tobytes(),
        residuals=b"" if request.residuals is None else request.residuals.astype("<f4").tobytes(),
        fresh=request.fresh.astype("u1").tobytes(),
    ).SerializeToString()


def is_request(record: bytes) -> bool:
    """Whether a record of `witnesses` or `candidates` is one of `candidates`."""
    return decode(pb.Candidates, record).round != 0


def decode_candidates(record: bytes, model: ModelSpec) -> Candidates | None:
    """The request in a record of `candidates`; None where it belongs to another model, or to another specification."""
    message = decode(pb.Candidates, record)
    if (message.model, message.digest) != (model.model, model.digest):
        return None
    rows, outputs = len(message.fresh), model.readout.outputs
    if not 1 <= len(message.ids) <= MOST_CANDIDATES or not 1 <= rows <= MOST_SAMPLES:
        raise WireError(
            Reason.WRONG_SHAPE,
            f"expected 1 .. {MOST_CANDIDATES} candidates and 1 .. {MOST_SAMPLES} samples, got {len(message.ids)} and "
            f"{rows}",
        )
    samples = array(message.samples, np.dtype("<u8"), (rows,), "samples")
    if (samples[1:] <= samples[:-1]).any():
        raise WireError(Reason.WRONG_SHAPE, "samples: expected rising ids")
    residuals = None
    if message.residuals:
        residuals = array(message.residuals, np.dtype("<f4"), (rows, outputs), "residuals")
        if not np.isfinite(residuals).all():
            raise WireError(Reason.OUT_OF_RANGE, "residuals: expected finite numbers")
    fresh = array(message.fresh, np.dtype("u1"), (rows,), "fresh") != 0
    return Candidates(message.round, np.array(message.ids, np.int64), samples, residuals, fresh)


def mark_of(samples: Ids) -> int:
    """A number that tells which samples these are, whatever their order."""
    return int(fingerprint.mix(samples).sum(dtype=np.uint64))


def encode_prices(model: ModelSpec, prices: Prices) -> bytes:
    """A record of `prices`."""
    message = pb.Prices(
        schema=SCHEMA,
        model=model.model,
        digest=model.digest,
        round=prices.round,
        lane=prices.lane,
        first=prices.first,
        candidates=prices.candidates,
        kept=prices.kept,
    )
    if prices.trained is not None and prices.fresh is not None:
        message.trained.CopyFrom(_sums_message(prices.trained))
        message.fresh.CopyFrom(_sums_message(prices.fresh))
    if prices.samples is not None and prices.bits is not None:
        message.samples, message.spikes = prices.samples.astype("<u8").tobytes(), prices.bits.tobytes()
    return message.SerializeToString()


def prices_model(record: bytes) -> str:
    """Which model a record of `prices` belongs to."""
    return decode(pb.Prices, record).model


def decode_prices(record: bytes, model: ModelSpec) -> Prices:
    message = decode(pb.Prices, record)
    check_model("prices", message, model)
    if message.lane >= model.lanes or not 1 <= message.candidates <= PART or message.first % PART:
        raise WireError(
            Reason.WRONG_SHAPE,
            f"expected a lane below {model.lanes} and 1 .. {PART} candidates from a multiple of {PART} on, got lane "
            f"{message.lane} and {message.candidates} from {message.first} on",
        )
    prices = Prices(message.round, message.lane, message.first, message.candidates, message.kept)
    if message.HasField("trained") and message.HasField("fresh"):
        both = (_sums(sums, message.candidates, model.readout.outputs) for sums in (message.trained, message.fresh))
        trained, fresh = both
        return prices._replace(trained=trained, fresh=fresh)
    rows = len(message.samples) // 8
    samples = array(message.samples, np.dtype("<u8"), (rows,), "samples")
    bits = array(message.spikes, np.dtype("u1"), (rows, -(-message.candidates // 8)), "spikes")
    return prices._replace(samples=samples, bits=bits)


def _sums_message(sums: Sums) -> pb.Prices.Sums:
    return pb.Prices.Sums(
        rows=int(sums.weight),
        counts=sums.counts.astype("<f8").tobytes(),
        cross=sums.cross.astype("<f8").tobytes(),
        total=sums.total.astype("<f8").tobytes(),
        fingerprints=sums.fingerprints.astype("<u8").tobytes(),
        everything=sums.everything.astype("<u8").tobytes(),
    )


def _sums(message: pb.Prices.Sums, candidates: int, outputs: int) -> Sums:
    words = np.dtype("<u8")
    return Sums(
        float(message.rows),
        finite(message.counts, (candidates,), "counts"),
        finite(message.cross, (candidates, outputs), "cross"),
        finite(message.total, (outputs,), "total"),
        np.full(outputs, np.nan),
        array(message.fingerprints, words, (candidates, 2), "fingerprints"),
        array(message.everything, words, (1, 2), "everything"),
    )

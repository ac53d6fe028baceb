"""Networks and weights in training as bytes: safetensors, which can hold nothing but numbers. What the header says is
held against the model before the numbers are read."""

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from snn.laws.base import tensor
from snn.model import ModelSpec
from snn.network import Layer, Network
from wire import messages_pb2 as pb
from wire.codec import SCHEMA, check_model, decode, now_us
from wire.prices import decode_chosen
from wire.reasons import Reason, WireError

if TYPE_CHECKING:
    from torch import Tensor

HEADER_BYTES = 256  # of a tensor in the header: its name, type, shape and place take some 100

Floats = npt.NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]


class Weights(NamedTuple):
    """A record of `weights`. parameters, velocity: [d], velocity None without outer momentum; the rest as in the
    contract."""

    version: int
    parameters: Floats
    velocity: Floats | None
    workers: tuple[int, ...] = ()
    samples: int = 0
    loss: float = 0.0
    gradient_norm: float = 0.0
    sharpness: float = math.nan


def encode_witnesses(model: ModelSpec, version: int, network: Network) -> bytes:
    """A record of `witnesses`: the network of all the model's witnesses, which lies on the grid."""
    return pb.Witnesses(
        schema=SCHEMA, model=model.model, digest=model.digest, version=version, safetensors=network_to_bytes(network)
    ).SerializeToString()


def witnesses_model(record: bytes) -> str:
    """Which model a record of `witnesses` belongs to."""
    return decode(pb.Witnesses, record).model


def witnesses_of(record: bytes, model: ModelSpec) -> pb.Witnesses | None:
    """The message in a record of `witnesses`, tensors unread; None where it belongs to another model, or to another
    specification of this one."""
    message = decode(pb.Witnesses, record)
    return message if (message.model, message.digest) == (model.model, model.digest) else None


def decode_witnesses(record: bytes, model: ModelSpec) -> tuple[int, Network]:
    """The version and the network of a record of `witnesses`, with the promise of exactness for this model."""
    if model.growing is not None:
        chosen = decode_chosen(record, model)
        return chosen.version, model.network(chosen.ids.tolist())
    message = decode(pb.Witnesses, record)
    check_model("witnesses", message, model)
    return message.version, exact_network(message.safetensors, model, model.witnesses.count)


def exact_network(data: bytes, model: ModelSpec, count: int) -> Network:
    """A network of `count` of the model's witnesses with the promise of exactness for its inputs."""
    from snn.training.on_grid import is_exact  # torch, which who submits a job has no use for

    network = network_from_bytes(data, model, count)
    if count and not is_exact(network, model.input, model.witnesses.law.weight_bits):
        raise WireError(
            Reason.CORRUPT_WEIGHTS,
            f"witnesses: expected weights on the grid of 2^-{model.witnesses.law.weight_bits} and currents within the "
            "exactness bound; put them there with snn.training.on_grid",
        )
    return network


def network_to_bytes(network: Network) -> bytes:
    return to_bytes({name: part.cpu().numpy() for name, part in _named(network).items()})


def network_from_bytes(data: bytes, model: ModelSpec, count: int) -> Network:
    """A network of `count` of the model's witnesses, in the shapes that its law gives them."""
    one, two = (_named(model.network(range(some))) for some in (1, 2))
    shapes = {name: _of_all(tuple(one[name].shape), tuple(two[name].shape), count) for name in one}
    parts = {name: tensor(part) for name, part in from_bytes(data, shapes).items()}
    depth = max(int(name.split(".")[0]) for name in parts)
    return tuple(_layer(parts, number) for number in range(1, depth + 1))


def encode_weights(model: ModelSpec, weights: Weights) -> bytes:
    """A record of `weights`."""
    parts = {"parameters": weights.parameters}
    if weights.velocity is not None:
        parts["velocity"] = weights.velocity
    return pb.Weights(
        schema=SCHEMA,
        model=model.model,
        digest=model.digest,
        version=weights.version,
        safetensors=to_bytes(parts),
        workers=weights.workers,
        samples=weights.samples,
        loss=weights.loss,
        gradient_norm=weights.gradient_norm,
        sharpness=weights.sharpness,
        published_us=now_us(),
    ).SerializeToString()


def weights_of(record: bytes, model: ModelSpec) -> pb.Weights | None:
    """The message in a record of `weights`, tensors unread; None where it belongs to another model, or to another
    specification of this one."""
    message = decode(pb.Weights, record)
    return message if (message.model, message.digest) == (model.model, model.digest) else None


def decode_weights(record: bytes, model: ModelSpec, size: int) -> Weights:
    """The weights in a record, for a model with `size` parameters."""
    message = decode(pb.Weights, record)
    check_model("weights", message, model)
    training = model.training
    names = ["parameters"] + (["velocity"] if training is not None and training.outer_momentum else [])
    parts = from_bytes(message.safetensors, dict.fromkeys(names, (size,)))
    return Weights(
        message.version,
        parts["parameters"],
        parts.get("velocity"),
        tuple(message.workers),
        message.samples,
        message.loss,
        message.gradient_norm,
        message.sharpness,
    )


def to_bytes(parts: Mapping[str, Floats]) -> bytes:
    return safetensors.numpy.save({name: np.ascontiguousarray(part, np.float32) for name, part in parts.items()})


def from_bytes(data: bytes, shapes: Shapes) -> dict[str, Floats]:
    """Finite float32 arrays of just these names and shapes; raises WireError where the bytes hold anything else."""
    size = 4 * sum(math.prod(shape) for shape in shapes.values())
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > HEADER_BYTES * (1 + len(shapes)) or len(data) != 8 + length + size:
        raise WireError(
            Reason.CORRUPT_WEIGHTS,
            f"expected safetensors with {size} bytes of numbers behind a header, got {len(data)} bytes in all",
        )
    try:
        header = json.loads(data[8 : 8 + length])
        stated = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
        if stated != {name: ("F32", tuple(shape)) for name, shape in shapes.items()}:
            raise WireError(Reason.CORRUPT_WEIGHTS, f"expected float32 of {dict(shapes)}, got {stated}")
        parts = safetensors.numpy.load(data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError) as error:
        if isinstance(error, WireError):
            raise
        raise WireError(Reason.CORRUPT_WEIGHTS, f"expected safetensors: {error}") from None
    for name, part in parts.items():
        if not np.isfinite(part).all():
            raise WireError(Reason.CORRUPT_WEIGHTS, f"{name}: expected finite numbers")
    return parts


def _layer(parts: Mapping[str, "Tensor"], number: int) -> Layer:
    weights, bias, leak, threshold = (parts[f"{number}.{name}"] for name in ("weights", "bias", "leak", "threshold"))
    return Layer(weights, bias, leak, threshold, parts.get(f"{number}.recurrent"))


def _named(network: Network) -> dict[str, "Tensor"]:
    return {
        f"{number}.{name}": part
        for number, layer in enumerate(network, start=1)
        for name, part in layer._asdict().items()
        if part is not None
    }


def _of_all(of_one: tuple[int, ...], of_two: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The shape for `count` witnesses: what all share stays, the rest grows by as much with each."""
    return tuple(one + (two - one) * (count - 1) for one, two in zip(of_one, of_two, strict=True))

"""What a model is: its input grid, its witnesses and its readout problem, validated once and then trusted.

The exactness bound (design, section 2.1): with inputs on the grid 2^-bits and weights on 2^-weight_bits, every
partial sum of a current is a multiple of 2^-(bits + weight_bits) below 2^(24 - bits - weight_bits), so a float32
sum is exact in any order and the spikes are the same bits everywhere.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from snn.laws import Law
from snn.network import Network
from snn.training.spec import TrainingSpec

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class ModelError(ValueError):
    """A model specification that cannot be used; the text names the field, what was expected and what came."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpec(Strict):
    """Sequences of `timesteps` rows of `features` numbers, multiples of 2^-bits in [low, high]."""

    timesteps: int = Field(ge=1, le=65536)
    features: int = Field(ge=1, le=65536)
    bits: int = Field(default=8, ge=0, le=16)
    low: float = 0.0
    high: float = 1.0
    end_pulse: bool = Field(default=False, description="append a feature that is 1 at the last timestep, else 0")

    @model_validator(mode="after")
    def _range(self) -> "InputSpec":
        if not self.low < self.high:
            raise ValueError(f"expected low < high, got low={self.low}, high={self.high}")
        for name, value in (("low", self.low), ("high", self.high)):
            if value * 2**self.bits != int(value * 2**self.bits):
                raise ValueError(f"{name}={value} is no multiple of 2^-{self.bits}; choose one or raise bits")
        return self

    @property
    def channels(self) -> int:
        """What the network reads at a timestep: the features and the end pulse."""
        return self.features + self.end_pulse

    @property
    def codes(self) -> tuple[int, int]:
        """Smallest and largest grid code: input = code * 2^-bits."""
        return int(self.low * 2**self.bits), int(self.high * 2**self.bits)


class WitnessSpec(Strict):
    """`count` witnesses sampled by `law` from `seed`, stepped in `shards` contiguous ranges of equal width."""

    law: Law = Field(discriminator="name")
    seed: int = Field(default=0, ge=0, lt=2**63)
    count: int = Field(ge=8, le=2**22)
    shards: int = Field(default=1, ge=1, le=1024)

    @model_validator(mode="after")
    def _shards(self) -> "WitnessSpec":
        if self.count % (8 * self.shards):
            raise ValueError(
                f"expected count to be a multiple of 8 * shards = {8 * self.shards}, got {self.count}; "
                "spikes travel in whole bytes"
            )
        return self

    def shard(self, index: int) -> range:
        """Witness ids of one shard."""
        width = self.count // self.shards
        return range(index * width, (index + 1) * width)


class ReadoutSpec(Strict):
    """The convex problem of design section 2.4. `relative_beta` is beta / beta_max, or how held-out rows choose it: the
    best one, or the sparsest readout within a standard error of it."""

    loss: Literal["squared", "logistic", "multinomial"] = "squared"
    penalty: Literal["l1", "group", "ridge", "none"] = "group"
    target: Literal["class", "values"] = "class"
    outputs: int = Field(ge=1, le=4096)
    relative_beta: Annotated[float, Field(gt=0, le=1)] | Literal["best", "sparsest"] = 0.01
    tolerance: float = Field(default=1e-6, gt=0, lt=1)
    window: int | None = Field(default=None, ge=1, description="keep only the newest rows")
    half_life: int | None = Field(default=None, ge=1, description="a row's weight halves with so many newer rows")
    class_weight: Literal["balanced"] | None = Field(default=None, description="rows of each class weigh the same")

    @model_validator(mode="after")
    def _consistent(self) -> "ReadoutSpec":
        if self.target == "values" and self.loss != "squared":
            raise ValueError(f"targets that are values need loss: squared, got loss: {self.loss}")
        if self.loss == "logistic" and self.outputs != 1:
            raise ValueError(f"logistic has outputs: 1 (classes 0 and 1), got {self.outputs}; use multinomial")
        if self.loss == "multinomial" and self.outputs < 2:
            raise ValueError(f"multinomial needs outputs >= 2, got {self.outputs}; use logistic")
        if self.loss == "squared" and self.target == "class" and self.outputs < 2:
            raise ValueError("squared loss on classes uses one-hot targets: expected outputs >= 2, got 1")
        if self.window is not None and self.half_life is not None:
            raise ValueError("window and half_life are two ways to forget: expected one of them at most, got both")
        if self.class_weight is not None and self.target != "class":
            raise ValueError("class_weight needs target: class, got target: values")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Models without weights keep the digest they had before there were any."""
        fields = serialise(self)
        for name in ("half_life", "class_weight"):
            if fields[name] is None:
                del fields[name]
        return fields

    @property
    def needs_rows(self) -> bool:
        """Whether sums in which each row counts the same are not enough."""
        forgets = self.window is not None or self.half_life is not None
        chosen = isinstance(self.relative_beta, str)  # by rows that are held out
        return self.loss != "squared" or forgets or self.class_weight is not None or chosen

    @property
    def classes(self) -> int:
        """Number of classes a target may name; 0 where targets are values."""
        if self.target == "values":
            return 0
        return 2 if self.loss == "logistic" else self.outputs


class ModelSpec(Strict):
    """One model, as a user writes it in YAML."""

    model: Name
    input: InputSpec
    witnesses: WitnessSpec
    readout: ReadoutSpec
    training: TrainingSpec | None = Field(
        default=None, description="by surrogate gradients, with flink_jobs/train_surrogate"
    )
    lanes: int = Field(default=16, ge=1, le=32768)

    @model_validator(mode="after")
    def _exact(self) -> "ModelSpec":
        law, grid = self.witnesses.law, self.input
        bits = grid.bits + law.weight_bits
        largest = max(abs(grid.low), abs(grid.high), float(grid.end_pulse))
        for number, layer in enumerate(law.reach(grid.timesteps, grid.channels), start=1):
            bound = 2.0 ** (24 - bits)
            drive = layer.fan_in * largest * layer.max_weight + layer.max_bias + layer.feedback * layer.max_feedback
            if drive >= bound:
                terms = "fan-in * max|x| * max|W| + max|bias|"
                numbers = f"{layer.fan_in} * {largest:g} * {layer.max_weight:g} + {layer.max_bias:g}"
                if layer.feedback:
                    terms += " + width * max|V|"
                    numbers += f" + {layer.feedback} * {layer.max_feedback:g}"
                raise ValueError(
                    f"layer {number} leaves the exactness bound: {terms} = {numbers} = {drive:g}, expected "
                    f"below 2^(24 - bits) = 2^(24 - {bits}) = {bound:g}. Scale the input down, lower input.bits "
                    f"({grid.bits}) or weight_bits ({law.weight_bits}), or use a law with a smaller fan-in"
                )
            bits, largest = law.weight_bits, 1.0  # what a layer above reads are spikes
        return self

    @model_validator(mode="after")
    def _workers(self) -> "ModelSpec":
        if self.training is not None and self.training.workers > self.lanes:
            raise ValueError(
                f"a worker trains on whole lanes: expected at most {self.lanes} workers, got {self.training.workers}; "
                "raise lanes or lower training.workers"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Models without training keep the digest they had before there was any."""
        fields = serialise(self)
        if self.training is None:
            del fields["training"]
        return fields

    def network(self, ids: Sequence[int]) -> Network:
        """The network of the witnesses `ids`, one spike column each, in their order."""
        grid = self.input
        return self.witnesses.law.sample(self.witnesses.seed, ids, grid.timesteps, grid.channels)

    @property
    def spec_json(self) -> str:
        """Canonical JSON: equal models have equal bytes."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> int:
        """First 64 bits of SHA-256 of the canonical JSON."""
        return int.from_bytes(hashlib.sha256(self.spec_json.encode()).digest()[:8], "big")


def parse_model(data: object, source: str = "model") -> ModelSpec:
    """A validated model from a parsed YAML or JSON document, or a ModelError that lists every fault."""
    try:
        return ModelSpec.model_validate(data)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'model'}: {fault['msg']}"
            + ("" if isinstance(fault["input"], dict) else f", got {fault['input']!r}")
            for fault in error.errors()
        ]
        raise ModelError(f"{source}: " + "; ".join(faults)) from None


def load_model(path: Path) -> ModelSpec:
    """A validated model from a YAML file."""
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(f"{path}: expected a YAML model specification: {error}") from None
    return parse_model(data, str(path))

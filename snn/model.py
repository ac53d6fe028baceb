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
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from snn.laws import Law
from snn.network import Network
from snn.training.hebbian import HebbianSpec
from snn.training.spec import TrainingSpec

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


MOST_PRICED = 2**20  # samples: with those held out, sums of residuals over them are exact


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


class Head(Strict):
    """One question asked of the same spikes: classes, with a loss and outputs of its own."""

    name: Name
    loss: Literal["squared", "logistic", "multinomial"] = "multinomial"
    outputs: int = Field(default=1, ge=1, le=4096)

    @model_validator(mode="after")
    def _consistent(self) -> "Head":
        if self.loss == "logistic" and self.outputs != 1:
            raise ValueError(f"logistic has outputs: 1 (classes 0 and 1), got {self.outputs}; use multinomial")
        if self.loss == "multinomial" and self.outputs < 2:
            raise ValueError(f"multinomial needs outputs >= 2, got {self.outputs}; use logistic")
        if self.loss == "squared" and self.outputs < 2:
            raise ValueError("squared loss on classes uses one-hot targets: expected outputs >= 2, got 1")
        return self

    @property
    def classes(self) -> int:
        """Number of classes that a target may name."""
        return 2 if self.loss == "logistic" else self.outputs


class ReadoutSpec(Strict):
    """The convex problem of design section 2.4. `relative_beta` is beta / beta_max, or how held-out rows choose it: the
    best one, or the sparsest readout within a standard error of it. Several `heads` stand for `loss` and `outputs`;
    with `every_step` there is a target, and an answer, at each timestep instead of the last one alone."""

    loss: Literal["squared", "logistic", "multinomial", "heads"] = "squared"
    penalty: Literal["l1", "group", "ridge", "none"] = "group"
    target: Literal["class", "values"] = "class"
    outputs: int = Field(ge=1, le=4096)
    heads: tuple[Head, ...] | None = Field(default=None, min_length=2, max_length=64)
    every_step: bool = False
    relative_beta: Annotated[float, Field(gt=0, le=1)] | Literal["best", "sparsest"] = 0.01
    tolerance: float = Field(default=1e-6, gt=0, lt=1)
    window: int | None = Field(default=None, ge=1, description="keep only the newest rows")
    half_life: int | None = Field(default=None, ge=1, description="a row's weight halves with so many newer rows")
    on_drift: Literal["forget"] | None = Field(default=None, description="drop older rows when the rule has changed")
    class_weight: Literal["balanced"] | None = Field(default=None, description="rows of each class weigh the same")

    @model_validator(mode="before")
    @classmethod
    def _of_heads(cls, data: Any) -> Any:
        """What several heads say of loss and outputs, where they are not stated."""
        heads = data.get("heads") if isinstance(data, dict) else None
        if not heads:
            return data
        try:
            checked = TypeAdapter(tuple[Head, ...]).validate_python(heads)
        except ValidationError:  # which the field's own validation will tell
            return {"outputs": 1, **data}
        squared = all(head.loss == "squared" for head in checked)
        said = {"loss": "squared" if squared else "heads", "outputs": sum(head.outputs for head in checked)}
        return {**said, **data}

    @model_validator(mode="after")
    def _consistent(self) -> "ReadoutSpec":
        if self.target == "values" and (self.loss != "squared" or self.heads):
            raise ValueError(f"targets that are values need loss: squared and no heads, got loss: {self.loss}")
        if self.heads is not None:
            self._fits_heads(self.heads)
        elif self.target == "class":
            if self.loss == "heads":
                raise ValueError("loss: heads needs `heads`, a list of name, loss and outputs")
            Head(name="only", loss=self.loss, outputs=self.outputs)
        if self.window is not None and self.half_life is not None:
            raise ValueError("window and half_life are two ways to forget: expected one of them at most, got both")
        if self.on_drift is not None and (self.window is None or self.target != "class"):
            raise ValueError(
                "on_drift needs target: class and a window, the rows that it forgets from, got "
                f"target: {self.target}, window: {self.window}"
            )
        if self.class_weight is not None and (self.target != "class" or self.heads):
            raise ValueError("class_weight needs target: class and one head, got target: values or several heads")
        return self

    def _fits_heads(self, heads: tuple[Head, ...]) -> None:
        squared, outputs = all(head.loss == "squared" for head in heads), sum(head.outputs for head in heads)
        if (self.loss, self.outputs) != ("squared" if squared else "heads", outputs):
            raise ValueError(
                f"several heads bring their own loss and outputs ({outputs} in all); leave out the readout's, got "
                f"loss: {self.loss}, outputs: {self.outputs}"
            )
        if len({head.name for head in heads}) != len(heads):
            raise ValueError(f"heads: expected distinct names, got {[head.name for head in heads]}")

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Models without these keep the digest they had before there were any."""
        fields = serialise(self)
        for name in ("half_life", "on_drift", "class_weight", "heads", "every_step"):
            if not fields[name]:
                del fields[name]
        return fields

    @property
    def needs_rows(self) -> bool:
        """Whether sums over samples in which each counts the same are not enough."""
        forgets = self.window is not None or self.half_life is not None
        chosen = isinstance(self.relative_beta, str)  # by rows that are held out
        return self.loss != "squared" or forgets or self.class_weight is not None or chosen or self.every_step

    @property
    def all_heads(self) -> tuple[Head, ...]:
        """The heads, or the only one; none where targets are values."""
        if self.target == "values":
            return ()
        assert self.loss != "heads" or self.heads
        return self.heads or (Head(name="only", loss=self.loss, outputs=self.outputs),)  # type: ignore[arg-type]

    @property
    def target_width(self) -> int:
        """Numbers in a target: a class for each head, or the values."""
        return len(self.all_heads) or self.outputs


class GrowingSpec(Strict):
    """A dictionary that grows by price while the stream runs (`solver_service/growing.py`): from the first `start`
    witnesses of the law to `witnesses.count` of them. For each one that enters, `candidates` are priced."""

    start: int = Field(default=256, ge=1)
    candidates: int = Field(default=16, ge=1, le=1024)


class ModelSpec(Strict):
    """One model, as a user writes it in YAML."""

    model: Name
    input: InputSpec
    witnesses: WitnessSpec
    readout: ReadoutSpec
    training: TrainingSpec | None = Field(
        default=None, description="by surrogate gradients, with flink_jobs/train_surrogate"
    )
    hebbian: HebbianSpec | None = Field(default=None, description="a network that learns online, beside the readout")
    growing: GrowingSpec | None = Field(default=None, description="a dictionary that takes in the witnesses that pay")
    lanes: int = Field(default=16, ge=1, le=32768)

    @model_validator(mode="after")
    def _one_after_another(self) -> "ModelSpec":
        if self.hebbian is None:
            return self
        grid, heads = self.input, self.readout.all_heads
        if (*grid.codes, grid.bits, grid.end_pulse) != (0, 1, 0, False):
            raise ValueError(
                "hebbian learning reads spikes: expected input with low: 0, high: 1, bits: 0 and no end_pulse, got "
                f"low={grid.low:g}, high={grid.high:g}, bits={grid.bits}, end_pulse={grid.end_pulse}"
            )
        if len(heads) != 1 or heads[0].loss == "logistic" or self.readout.every_step:
            raise ValueError(
                "hebbian learning answers a sequence with one of its classes: expected one head with loss: squared or "
                "multinomial, target: class and no every_step"
            )
        if self.lanes != 1:
            raise ValueError(
                "hebbian learning takes one sequence after another, in the order of Kafka: expected lanes: 1, "
                f"got {self.lanes}"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Models without a section keep the digest they had before there was one."""
        fields = serialise(self)
        for name in ("training", "hebbian", "growing"):
            if getattr(self, name) is None:
                del fields[name]
        return fields

    @model_validator(mode="after")
    def _grows(self) -> "ModelSpec":
        if self.growing is None:
            return self
        readout, witnesses = self.readout, self.witnesses
        if self.growing.start > witnesses.count:
            raise ValueError(
                f"growing.start: expected at most witnesses.count = {witnesses.count}, the witnesses that there may be "
                f"in the end, got {self.growing.start}"
            )
        if self.training is not None:
            raise ValueError("witnesses that are trained are not drawn: expected growing or training, got both")
        if readout.window is None or readout.window > MOST_PRICED or witnesses.shards > 1:
            raise ValueError(
                "growing needs readout.window, the samples on which candidates are priced, of at most "
                f"{MOST_PRICED}, and witnesses.shards: 1, got window: {readout.window} and shards: {witnesses.shards}"
            )
        if readout.penalty not in ("l1", "group") or readout.every_step or readout.class_weight is not None:
            raise ValueError(
                "growing prices columns of final spikes: expected penalty: group or l1, and neither every_step nor "
                f"class_weight, got penalty: {readout.penalty}, every_step: {readout.every_step}, class_weight: "
                f"{readout.class_weight}"
            )
        return self

    @model_validator(mode="after")
    def _exact(self) -> "ModelSpec":
        law, grid = self.witnesses.law, self.input
        of_inputs, largest = grid.bits, max(abs(grid.low), abs(grid.high), float(grid.end_pulse))
        for number, layer in enumerate(law.reach(grid.timesteps, grid.channels), start=1):
            bits = of_inputs + (law.weight_bits if layer.bits is None else layer.bits)
            bound, drive = 2.0 ** (24 - bits), layer.current(largest)
            if drive >= bound:
                terms = "fan-in * max|x| * max|W| + max|bias|"
                numbers = f"{layer.fan_in} * {largest:g} * {layer.max_weight:g} + {layer.max_bias:g}"
                if layer.max_pulse:
                    terms += " + max|x| * max|pulse|"
                    numbers += f" + {largest:g} * {layer.max_pulse:g}"
                if layer.feedback:
                    terms += " + width * max|V|"
                    numbers += f" + {layer.feedback} * {layer.max_feedback:g}"
                raise ValueError(
                    f"layer {number} leaves the exactness bound: {terms} = {numbers} = {drive:g}, expected "
                    f"below 2^(24 - bits) = 2^(24 - {bits}) = {bound:g}. Scale the input down, lower input.bits "
                    f"({grid.bits}) or weight_bits ({law.weight_bits}), or use a law with a smaller fan-in"
                )
            of_inputs, largest = 0, 1.0  # what a layer above reads are spikes
        return self

    @model_validator(mode="after")
    def _workers(self) -> "ModelSpec":
        if self.training is not None and self.training.workers > self.lanes:
            raise ValueError(
                f"a worker trains on whole lanes: expected at most {self.lanes} workers, got {self.training.workers}; "
                "raise lanes or lower training.workers"
            )
        return self

    @property
    def changing(self) -> bool:
        """Whether its witnesses are trained or chosen while the stream runs, so that they come in versions."""
        return self.training is not None or self.growing is not None

    @property
    def target_steps(self) -> int:
        """S, the timesteps of a sequence that have a target and an answer: all of them, or the last one."""
        return self.input.timesteps if self.readout.every_step else 1

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

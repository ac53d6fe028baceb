"""How a model is trained by surrogate gradients, as a user writes it under `training:`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SurrogateName = Literal["fast_sigmoid", "arctangent", "sigmoid", "triangle"]
Positive = Annotated[float, Field(gt=0)]


class TrainingSpec(BaseModel):
    """Steps of `snn.training.rules` on batches; on a stream, `rounds` in which each of `workers` takes `local_steps` of
    them before their weights are averaged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    surrogate: SurrogateName = "fast_sigmoid"
    slope: float = Field(default=25.0, gt=0)
    rule: Literal["sgd", "adam", "fixed_length"] = "adam"
    learning_rate: float = Field(default=0.01, gt=0, description="the length itself for rule: fixed_length")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of rule: sgd")
    decay: Literal["none", "linear"] = "linear"
    soft_clipping: tuple[Positive, Annotated[float, Field(ge=0)]] | None = Field(default=None, description="L0, L1")
    gradient_regularisation: float = Field(default=0.0, ge=0, description="gamma of gamma/4 * ||gradient||^2")
    weight_decay: float = Field(default=0.0, ge=0)
    batch: int = Field(default=64, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    rounds: int = Field(default=100, ge=1)
    local_steps: int = Field(default=8, ge=1, description="of a worker in a round")
    workers: int = Field(default=2, ge=1, le=1024)
    outer_momentum: float = Field(default=0.0, ge=0, lt=1, description="Nesterov's, of the averaged rounds")
    round_timeout_s: float = Field(default=30.0, gt=0, description="how long a round waits for its last workers")
    publish_every: int = Field(default=10, ge=1, description="rounds from one publication of witnesses to the next")

    @property
    def steps(self) -> int:
        """Of a worker, in all rounds."""
        return self.rounds * self.local_steps

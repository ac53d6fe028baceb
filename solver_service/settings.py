"""Settings of the solver service; each is also read from the environment as SPIKELOOM_SOLVER_<FIELD>."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from solver_service.dictionary import BUDGET


class SolverSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SPIKELOOM_SOLVER_", extra="forbid", frozen=True)

    state: Path = Path("state/solver")  # folder of the snapshots
    every_seconds: float = Field(default=10.0, gt=0)  # a readout this often while rows arrive ...
    every_rows: int = Field(default=10_000, ge=1)  # ... or after so many new ones, whichever is first
    solve_seconds: float = Field(default=600.0, gt=0)  # a solve that takes longer is published with its gap
    threads: int = Field(default=1, ge=1)  # models that are solved at the same time, each by a core
    snapshot_seconds: float = Field(default=30.0, gt=0)  # bounds what a restart reads again
    rows_mib: int = Field(default=BUDGET // 2**20, ge=1)  # rows a model may keep; a solve makes copies of its own
    gram_models: frozenset[str] = frozenset()  # those whose sums flink_jobs/gram.py makes, as a JSON list
    device: Literal["cpu", "cuda"] = "cpu"  # cuda: products with the dictionary and large factors, in torch
    backend: Literal["native", "cvxpy"] = "native"
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=9260, ge=1, le=65535)

"""Witness laws: how a witness is drawn from (model seed, witness id) and nothing else."""

from typing import Annotated

from pydantic import Field

from snn.laws.gaussian import Gaussian
from snn.laws.local_integrators import LocalIntegrators

Law = Annotated[Gaussian | LocalIntegrators, Field(discriminator="name")]

__all__ = ["Gaussian", "Law", "LocalIntegrators"]

"""Witness laws: how a witness is drawn from (model seed, witness id) and nothing else."""

from typing import Annotated

from pydantic import Field

from snn.laws.gaussian import Gaussian
from snn.laws.local_integrators import LocalIntegrators
from snn.laws.stored_taps import StoredTaps
from snn.laws.stored_templates import StoredTemplates

Law = Annotated[Gaussian | LocalIntegrators | StoredTaps | StoredTemplates, Field(discriminator="name")]

__all__ = ["Gaussian", "Law", "LocalIntegrators", "StoredTaps", "StoredTemplates"]

"""Witness laws: how a witness is drawn from (model seed, witness id) and nothing else.

From the paper's plain law to structured ones:

    gaussian           the paper's: Gaussian weights, common leak and threshold; hidden layers and recurrence
    heterogeneous      leaks and thresholds that differ, local fields
    calibrated         the same, in units of each input's mean and spread
    hyperplanes        no memory: thresholds through random points of the input cube
    local_integrators  short memory below, one decision at the end above (the default)
    stored_taps        the whole sequence is stored as spikes; thresholds on a few of its bits
    stored_templates   the same; templates laid over it, wherever they fit best
    hubs               self-exciting neurons hold a bit, others read it beside the input
    counters           counts modulo k
"""

from typing import Annotated

from pydantic import Field

from snn.laws.calibrated import Calibrated
from snn.laws.counters import Counters
from snn.laws.gaussian import Gaussian
from snn.laws.heterogeneous import Heterogeneous
from snn.laws.hubs import Hubs
from snn.laws.hyperplanes import Hyperplanes
from snn.laws.local_integrators import LocalIntegrators
from snn.laws.stored_taps import StoredTaps
from snn.laws.stored_templates import StoredTemplates

Law = Annotated[
    Gaussian
    | Heterogeneous
    | Calibrated
    | Hyperplanes
    | LocalIntegrators
    | StoredTaps
    | StoredTemplates
    | Hubs
    | Counters,
    Field(discriminator="name"),
]

__all__ = [
    "Calibrated",
    "Counters",
    "Gaussian",
    "Heterogeneous",
    "Hubs",
    "Hyperplanes",
    "Law",
    "LocalIntegrators",
    "StoredTaps",
    "StoredTemplates",
]

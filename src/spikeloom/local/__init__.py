"""The whole of Spikeloom on one machine: Kafka, Flink and the solver service as processes of this computer."""

from spikeloom.local.flink import FlinkSettings
from spikeloom.local.stack import Stack

__all__ = ["FlinkSettings", "Stack"]

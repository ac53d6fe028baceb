"""The science: LIF dynamics, witnesses and models as pure functions. Knows no Kafka, no Flink, no clock."""

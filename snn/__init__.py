"""The science: LIF dynamics, witnesses and model specifications as pure functions. Knows no Kafka, no Flink, no clock."""

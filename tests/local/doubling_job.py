"""A job of the smallest kind that has what the real ones have: Kafka in, keyed Python state, Kafka out exactly once."""

import os
import sys

from pyflink.common import WatermarkStrategy
from pyflink.common.serialization import ByteArraySchema
from pyflink.common.typeinfo import Types
from pyflink.datastream import KeyedProcessFunction, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.datastream.state import ValueStateDescriptor

BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())


class Double(KeyedProcessFunction):
    def open(self, runtime_context):
        self.seen = runtime_context.get_state(ValueStateDescriptor("seen", Types.LONG()))

    def process_element(self, value, ctx):
        self.seen.update((self.seen.value() or 0) + 1)
        yield bytes(value) * 2


def main(source_topic: str, sink_topic: str) -> None:
    bootstrap = os.environ["SPIKELOOM_KAFKA_BOOTSTRAP"]
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers(bootstrap)
        .set_topics(source_topic)
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_value_only_deserializer(ByteArraySchema())
        .build()
    )
    sink = (
        KafkaSink.builder()
        .set_bootstrap_servers(bootstrap)
        .set_record_serializer(
            KafkaRecordSerializationSchema.builder()
            .set_topic(sink_topic)
            .set_value_serialization_schema(ByteArraySchema())
            .build()
        )
        .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
        .set_transactional_id_prefix("doubling")
        .set_property("transaction.timeout.ms", "600000")
        .build()
    )
    environment = StreamExecutionEnvironment.get_execution_environment()
    stream = environment.from_source(source, WatermarkStrategy.no_watermarks(), "source")
    doubled = stream.key_by(lambda value: bytes(value)[0] % 4, Types.INT()).process(Double(), BYTES)
    doubled.sink_to(sink)
    environment.execute("doubling")


if __name__ == "__main__":
    main(*sys.argv[1:])

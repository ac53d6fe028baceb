"""Kafka sources and sinks of the jobs, with every connection setting passed through to Flink's Java clients."""

import argparse

from pyflink.common import Configuration, WatermarkStrategy
from pyflink.common.serialization import ByteArraySchema
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)

from operators.decode import Decode
from operators.keys import MAX_PARALLELISM
from operators.tags import KEYED, RECORD
from snn.model import ModelSpec
from wire.connection import KafkaConnection

TRANSACTION_TIMEOUT_MS = 900_000  # the broker's default maximum: a job may be down this long without losing a commit


def arguments(description: str, wait_ms: int) -> argparse.Namespace:
    """`wait_ms` is the job's default of --wait-ms."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog="Kafka's address and TLS or SASL settings come from SPIKELOOM_KAFKA_* variables.",
    )
    parser.add_argument("--model", required=True, help="name of a registered model")
    parser.add_argument("--bootstrap", help="Kafka bootstrap servers, instead of SPIKELOOM_KAFKA_BOOTSTRAP")
    parser.add_argument("--expire-after", type=float, default=3600, metavar="SECONDS", help="drop abandoned sequences")
    parser.add_argument(
        "--wait-ms",
        type=int,
        default=wait_ms,
        metavar="MS",
        help=f"how long a record may wait for company on its way to a task, and into Python; {wait_ms} if left out",
    )
    return parser.parse_args()


def connection(options: argparse.Namespace) -> KafkaConnection:
    return KafkaConnection(bootstrap=options.bootstrap) if options.bootstrap else KafkaConnection()


def environment(wait_ms: int) -> StreamExecutionEnvironment:
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_max_parallelism(MAX_PARALLELISM)
    env.set_buffer_timeout(wait_ms)
    settings = Configuration()
    settings.set_integer("python.fn-execution.bundle.time", wait_ms)
    # PyFlink's own cache of map entries would hold what operators/lane.py holds already.
    settings.set_integer("python.map-state.read-cache-size", 1)
    env.configure(settings)
    return env


def source(
    env: StreamExecutionEnvironment, kafka: KafkaConnection, topic: str, group: str, offsets: KafkaOffsetsInitializer
) -> DataStream:
    """Committed records of `topic` as bytes."""
    built = (
        KafkaSource.builder()
        .set_topics(topic)
        .set_group_id(group)
        .set_starting_offsets(offsets)
        .set_value_only_deserializer(ByteArraySchema())
        .set_properties({**kafka.java_client(), "isolation.level": "read_committed"})
        .build()
    )
    return env.from_source(built, WatermarkStrategy.no_watermarks(), topic, type_info=RECORD).uid(f"source-{topic}")


def keyed_slices(records: DataStream, job: str, model: ModelSpec, shards: int) -> DataStream:
    """(key, record) for every shard of every usable record, dead letters beside."""
    return records.process(Decode(job, model.spec_json, shards), output_type=KEYED).name("decode").uid("decode")


def sink(stream: DataStream, kafka: KafkaConnection, topic: str, transactions: str | None = None) -> None:
    """Write bytes to `topic`: exactly once in transactions named `transactions`, else at least once."""
    schema = KafkaRecordSerializationSchema.builder().set_topic(topic)
    builder = KafkaSink.builder().set_bootstrap_servers(kafka.bootstrap)
    for key, value in kafka.java_client().items():
        builder.set_property(key, value)
    builder.set_property("compression.type", "lz4").set_property("max.request.size", "8388608")
    builder.set_record_serializer(schema.set_value_serialization_schema(ByteArraySchema()).build())
    builder.set_delivery_guarantee(DeliveryGuarantee.AT_LEAST_ONCE)
    if transactions:
        builder.set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE).set_transactional_id_prefix(transactions)
        builder.set_property("transaction.timeout.ms", str(TRANSACTION_TIMEOUT_MS))
    stream.sink_to(builder.build()).name(topic).uid(f"sink-{topic}")

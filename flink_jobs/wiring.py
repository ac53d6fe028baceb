"""Kafka sources and sinks of the jobs, with every connection setting passed through to Flink's Java clients."""

import argparse

from pyflink.common import Configuration, Types, WatermarkStrategy
from pyflink.common.serialization import ByteArraySchema
from pyflink.datastream import DataStream, KeyedStream, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes, Schema, StreamTableEnvironment, TableDescriptor

from operators.keys import MAX_PARALLELISM, flink_keys
from operators.tags import KEYED_RECORD, RECORD
from snn.model import ModelSpec
from wire.connection import KafkaConnection

# Of a partition at a time: a task reads partitions by turns, so that no lane waits behind megabytes of another.
FETCH_BYTES = 256 * 1024
LARGEST = 8 * 2**20  # of a record, as the topics have it
LARGEST_WEIGHTS = 64 * 2**20  # the same of `weights` and `witnesses`
BUFFER_BYTES = 32 * 2**20  # of a producer: Kafka's default
TRANSACTION_TIMEOUT_MS = 900_000  # the broker's default maximum: a job may be down this long without losing a commit


def arguments(description: str, wait_ms: int) -> argparse.Namespace:
    """Of a job that reads `sequences`; `wait_ms` is its default of --wait-ms."""
    options = parser(description, wait_ms)
    options.add_argument("--expire-after", type=float, default=3600, metavar="SECONDS", help="drop abandoned sequences")
    return options.parse_args()


def parser(description: str, wait_ms: int) -> argparse.ArgumentParser:
    """The arguments of every job."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog="Kafka's address and TLS or SASL settings come from SPIKELOOM_KAFKA_* variables.",
    )
    parser.add_argument("--model", required=True, help="name of a registered model")
    parser.add_argument("--bootstrap", help="Kafka bootstrap servers, instead of SPIKELOOM_KAFKA_BOOTSTRAP")
    parser.add_argument(
        "--wait-ms",
        type=int,
        default=wait_ms,
        metavar="MS",
        help=f"how long a record may wait for company: in a fetch, to a task, into Python; {wait_ms} if left out",
    )
    return parser


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


def keyed_sequences(
    env: StreamExecutionEnvironment,
    kafka: KafkaConnection,
    group: str,
    start: str,
    wait_ms: int,
    model: ModelSpec,
    shards: int = 1,
    keys: list[int] | None = None,
) -> KeyedStream:
    """The records of `sequences`, once for each shard, under the key of their (lane, shard); `keys` has others, one for
    each. `start` is the Kafka table's scan.startup.mode; `wait_ms`, how long a fetch may wait for more.

    The lane is Kafka's own key, which PyFlink hands over from a table only; so Java sends a record to its task, and
    Python reads it once. A record without a lane for a key goes to the first lane, whose operator refuses it.
    """
    tables = StreamTableEnvironment.create(env)
    tables.get_config().set("table.exec.uid.generation", "ALWAYS")  # a savepoint finds its source by them
    options = {
        "topic": "sequences",
        "scan.startup.mode": start,
        "key.format": "raw",
        "key.fields": "lane",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
        "properties.group.id": group,
        "properties.auto.offset.reset": "earliest",
        "properties.isolation.level": "read_committed",
        "properties.max.partition.fetch.bytes": str(FETCH_BYTES),
        "properties.fetch.min.bytes": str(FETCH_BYTES // 4),
        "properties.fetch.max.wait.ms": str(wait_ms),
        **{f"properties.{name}": value for name, value in kafka.java_client().items()},
    }
    table = TableDescriptor.for_connector("kafka").schema(
        Schema.new_builder().column("lane", DataTypes.STRING()).column("record", DataTypes.BYTES()).build()
    )
    for name, value in options.items():
        table.option(name, value)
    tables.create_temporary_table("sequences", table.build())
    keys, lane = keys or flink_keys(model.lanes * shards), "TRY_CAST(lane AS INT)"
    index = f"CASE WHEN {lane} BETWEEN 0 AND {model.lanes - 1} THEN {lane} + 1 ELSE 1 END"  # SQL counts from 1
    with_keys = tables.sql_query(
        " UNION ALL ".join(
            f"SELECT ARRAY{keys[shard::shards]}[{index}], COALESCE(record, X'') FROM sequences"
            for shard in range(shards)
        )
    )
    return keyed(tables.to_append_stream(with_keys, KEYED_RECORD))


def keyed(rows: DataStream) -> KeyedStream:
    """Rows (key, record) as records by key: what DataStream.key_by does behind its Python function that makes them."""
    key_type = Types.ROW([Types.INT()]).get_java_type_info()
    return KeyedStream(rows._j_data_stream.keyBy(get_gateway().jvm.KeyByKeySelector(), key_type), RECORD, rows)


def readouts(env: StreamExecutionEnvironment, kafka: KafkaConnection, group: str) -> DataStream:
    """All records of `readouts` that Kafka has, and those to come."""
    return _records(env, kafka, group, "readouts", KafkaOffsetsInitializer.earliest())


def witnesses(env: StreamExecutionEnvironment, kafka: KafkaConnection, group: str) -> DataStream:
    """All records of `witnesses` that Kafka has, and those to come."""
    return _records(env, kafka, group, "witnesses", KafkaOffsetsInitializer.earliest())


def weights(env: StreamExecutionEnvironment, kafka: KafkaConnection, group: str) -> DataStream:
    """All records of `weights` that Kafka has, and those to come."""
    return _records(env, kafka, group, "weights", KafkaOffsetsInitializer.earliest())


def spike_columns(env: StreamExecutionEnvironment, kafka: KafkaConnection, group: str) -> DataStream:
    """The records of `spike-columns` from where the group's checkpoints have got to."""
    start = KafkaOffsetsInitializer.committed_offsets(KafkaOffsetResetStrategy.EARLIEST)
    return _records(env, kafka, group, "spike-columns", start)


def _records(
    env: StreamExecutionEnvironment, kafka: KafkaConnection, group: str, topic: str, start: KafkaOffsetsInitializer
) -> DataStream:
    """The committed records of a topic, values alone."""
    built = (
        KafkaSource.builder()
        .set_topics(topic)
        .set_group_id(group)
        .set_starting_offsets(start)
        .set_value_only_deserializer(ByteArraySchema())
        .set_properties({**kafka.java_client(), "isolation.level": "read_committed"})
        .build()
    )
    return env.from_source(built, WatermarkStrategy.no_watermarks(), topic, type_info=RECORD).uid(f"source-{topic}")


def sink(
    stream: DataStream, kafka: KafkaConnection, topic: str, transactions: str | None = None, largest: int = LARGEST
) -> None:
    """Write bytes to `topic`, records of up to `largest`: exactly once in transactions named `transactions`, else at
    least once."""
    schema = KafkaRecordSerializationSchema.builder().set_topic(topic)
    builder = KafkaSink.builder().set_bootstrap_servers(kafka.bootstrap)
    for key, value in kafka.java_client().items():
        builder.set_property(key, value)
    builder.set_property("compression.type", "lz4").set_property("max.request.size", str(largest))
    builder.set_property("buffer.memory", str(max(largest, BUFFER_BYTES)))
    builder.set_record_serializer(schema.set_value_serialization_schema(ByteArraySchema()).build())
    builder.set_delivery_guarantee(DeliveryGuarantee.AT_LEAST_ONCE)
    if transactions:
        builder.set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE).set_transactional_id_prefix(transactions)
        builder.set_property("transaction.timeout.ms", str(TRANSACTION_TIMEOUT_MS))
    stream.sink_to(builder.build()).name(topic).uid(f"sink-{topic}")

"""The `models` topic: registering a model and finding it again; and how far the training of one has got."""

import time
from collections.abc import Iterator

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from snn.model import ModelSpec
from wire.codec import decode_model, encode_model
from wire.connection import KafkaConnection
from wire.reasons import WireError
from wire.weights import weights_of

TOPIC = "models"
READ_SECONDS = 30  # to read a compacted topic of a few kilobytes; longer means that the broker is not there


class RegistryError(ValueError):
    """A model that is missing, or that would change under its users' feet."""


def register_model(connection: KafkaConnection, model: ModelSpec) -> bool:
    """Publish `model`; False where it is registered already. A name keeps its meaning: another specification under
    the same name is refused, since columns and readouts of the two would not fit together."""
    known = read_models(connection).get(model.model)
    if known is not None:
        if known.digest != model.digest:
            raise RegistryError(
                f"model {model.model!r} is registered with another specification; expected digest {known.digest:016x}, "
                f"got {model.digest:016x}. Choose another name for the changed model"
            )
        return False
    producer = KafkaProducer(**connection.python_client(), acks="all")
    try:
        producer.send(TOPIC, key=model.model.encode(), value=encode_model(model)).get(READ_SECONDS)
    finally:
        producer.close()
    return True


def find_model(connection: KafkaConnection, name: str) -> ModelSpec:
    models = read_models(connection)
    if name not in models:
        known = ", ".join(sorted(models)) or "none"
        raise RegistryError(
            f"model {name!r} is not registered (registered: {known}); run: spikeloom register MODEL.yaml"
        )
    return models[name]


def read_models(connection: KafkaConnection) -> dict[str, ModelSpec]:
    """The newest specification of every registered model; records that are no models are passed over."""
    models = {}
    for record in read_all(connection, TOPIC):
        try:
            model = decode_model(record)
        except WireError:
            continue
        models[model.model] = model
    return models


def read_weights_version(connection: KafkaConnection, model: ModelSpec) -> int:
    """The newest version on `weights` of the model, 0 where there is none."""
    newest = 0
    for record in read_all(connection, "weights"):
        try:
            message = weights_of(record, model)
        except WireError:
            continue
        newest = max(newest, message.version if message is not None else 0)
    return newest


def read_all(connection: KafkaConnection, topic: str) -> Iterator[bytes]:
    """Every committed record that is on `topic` now, oldest first within a partition."""
    consumer = KafkaConsumer(**connection.python_client(), isolation_level="read_committed", enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        deadline = time.monotonic() + READ_SECONDS
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for records in consumer.poll(timeout_ms=200).values():
                deadline = time.monotonic() + READ_SECONDS
                yield from (record.value for record in records if record.value is not None)
            if time.monotonic() > deadline:
                raise RegistryError(f"topic {topic!r}: no answer for {READ_SECONDS} s from {connection.bootstrap}")
    finally:
        consumer.close()

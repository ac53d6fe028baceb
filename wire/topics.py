"""The topics of kafka/topics.yaml, made on a broker."""

from collections.abc import Mapping
from pathlib import Path

import yaml
from kafka import KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError
from pydantic import BaseModel, ConfigDict, PositiveInt, TypeAdapter

from wire.connection import KafkaConnection

TOPICS_FILE = Path(__file__).resolve().parents[1] / "kafka" / "topics.yaml"


class Topic(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    partitions: PositiveInt
    config: dict[str, str | int] = {}


class TopicsDiffer(ValueError):
    """A topic exists with another number of partitions than the contract states."""


def read_topics(path: Path = TOPICS_FILE) -> dict[str, Topic]:
    return TypeAdapter(dict[str, Topic]).validate_python(yaml.safe_load(path.read_text()))


def create_topics(connection: KafkaConnection, path: Path = TOPICS_FILE, replication_factor: int = -1) -> list[str]:
    """Make the topics that are missing and return their names; -1 leaves the replication to the broker's default.

    Settings of topics that exist are left as they are: an operator may have changed them on purpose. Another number
    of partitions is an error, because a key would no longer find its partition.
    """
    wanted = read_topics(path)
    admin = KafkaAdminClient(**connection.python_client())
    try:
        missing = {name: topic for name, topic in wanted.items() if name not in set(admin.list_topics())}
        created = [name for name, topic in missing.items() if _create(admin, name, topic, replication_factor)]
        admin.wait_for_topics(list(wanted))
        _check_partitions(admin, wanted)
    finally:
        admin.close()
    return created


def _create(admin: KafkaAdminClient, name: str, topic: Topic, replication_factor: int) -> bool:
    settings = {
        "num_partitions": topic.partitions,
        "replication_factor": replication_factor,
        "configs": {key: str(value) for key, value in topic.config.items()},
    }
    try:
        admin.create_topics({name: settings})
    except TopicAlreadyExistsError:  # another process made it since we looked
        return False
    return True


def _check_partitions(admin: KafkaAdminClient, wanted: Mapping[str, Topic]) -> None:
    found = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(list(wanted))}
    differing = [
        f"{name} has {found[name]} partitions, {topic.partitions} expected"
        for name, topic in wanted.items()
        if found[name] != topic.partitions
    ]
    if differing:
        raise TopicsDiffer(
            "; ".join(differing) + ". Change kafka/topics.yaml, or delete the topic and let it be created anew."
        )

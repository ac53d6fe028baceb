"""A Kafka broker of one node: its settings, the formatting of its folder and the command that runs it."""

import base64
import os
import shutil
import uuid
from pathlib import Path
from string import Template

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from spikeloom import PROJECT_ROOT
from spikeloom.errors import StackError
from spikeloom.local import jars
from spikeloom.local.java import SHORT_LIVED, java
from spikeloom.local.ports import HOST, accepts_connections
from spikeloom.local.process import run

SETTINGS = PROJECT_ROOT / "kafka" / "server.properties"
LOGGING = PROJECT_ROOT / "kafka" / "log4j2.properties"
# Page cache, not heap, holds Kafka's data; a 64 MiB readout record passes through the heap a few times.
HEAP = "-Xmx768m"


def command(folder: Path, logs: Path) -> list[str]:
    settings = str(folder / "server.properties")
    return java(HEAP, "-XX:+UseG1GC", *_arguments("kafka.Kafka", settings, log=logs / "kafka.log"))


def prepare(folder: Path, port: int, controller_port: int) -> None:
    """Write the settings and, the first time, format the data folder; records survive from one start to the next."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    settings = folder / "server.properties"
    settings.write_text(
        Template(SETTINGS.read_text()).substitute(port=port, controller_port=controller_port, data=data)
    )
    if (data / "meta.properties").exists():
        return
    format_arguments = ["format", "--standalone", "--cluster-id", _new_cluster_id(), "--config", str(settings)]
    command = java(SHORT_LIVED, *_arguments("kafka.tools.StorageTool", *format_arguments, log=folder / "format.log"))
    done = run(command, os.environ)
    if done.code:
        shutil.rmtree(data)  # a half-formatted folder would be taken for a formatted one
        raise StackError(f"Kafka could not format {data}:\n{done.output.strip()}")


def answers(folder: Path, port: int) -> bool:
    """Whether the broker of this folder, and no other that may have taken the port, tells its metadata."""
    if not accepts_connections(port):
        return False
    try:
        admin = KafkaAdminClient(bootstrap_servers=f"{HOST}:{port}", bootstrap_timeout_ms=5000)
        try:
            cluster_id = admin.describe_cluster()["cluster_id"]
        finally:
            admin.close()
    except (KafkaError, OSError):
        return False
    return f"cluster.id={cluster_id}" in (folder / "data" / "meta.properties").read_text().splitlines()


def _arguments(main_class: str, *arguments: str, log: Path) -> list[str]:
    return [
        f"-Dlog4j2.configurationFile={LOGGING}",
        f"-Dlog.file={log}",
        "-classpath",
        ":".join(map(str, jars.class_path("kafka"))),
        main_class,
        *arguments,
    ]


def _new_cluster_id() -> str:
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text

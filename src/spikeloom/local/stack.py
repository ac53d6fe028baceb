"""The local stack: start, look, break and stop it.

    with Stack(Path(".spikeloom"), slots=4) as stack:
        job = stack.submit(Path("flink_jobs/roll_out.py"))

Whoever starts a stack owns it: when the owner ends, even by SIGKILL, the stack ends (see supervise.py). After
`detach()` nobody owns it, and `Stack.attach(directory)` finds it again.
"""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from spikeloom.errors import NotRunning, StackError
from spikeloom.local import broker, flink
from spikeloom.local.flink import Cluster, FlinkSettings
from spikeloom.local.jars import cache_folder
from spikeloom.local.ports import HOST, Ports, accepts_connections
from spikeloom.local.process import Process
from wire.connection import KafkaConnection
from wire.topics import create_topics

KAFKA_PORT = 9092
REST_PORT = 8081
METRICS_PORT = 9249  # Flink's Prometheus reporter: the job manager, then each task manager the next one
SOLVER_METRICS_PORT = 9260
START_SECONDS = 120  # takes 8 s on two idle cores, 20 s on two busy ones
FREE_MEMORY = 2 * 10**9  # measured: 0.9 GB when it is up and idle, and each Python worker with torch takes 0.4 GB

KAFKA = "kafka"
JOB_MANAGER = "jobmanager"
SOLVER = "solver"


class StackState(BaseModel):
    """What must be known to find a running stack again: `state.json`."""

    settings: FlinkSettings
    kafka_port: int
    rest_port: int
    metrics_ports: dict[str, int] = {}
    processes: dict[str, Process] = {}


class Stack:
    def __init__(
        self,
        directory: Path | str,
        *,
        task_managers: int = 1,
        slots: int = 2,
        solver: bool = False,
        settings: FlinkSettings | None = None,
    ) -> None:
        self.directory = Path(directory).resolve()
        self._task_managers = task_managers
        self._solver = solver
        self._settings = (settings or FlinkSettings()).model_copy(update={"slots": slots})
        self._ports = Ports()
        self._owned = False
        self._known: StackState | None = None

    @classmethod
    def attach(cls, directory: Path | str) -> Self:
        """The stack that runs in this folder."""
        stack = cls(directory)
        stack._known = stack._read_state()
        if not stack._known or not any(process.is_alive() for process in stack._known.processes.values()):
            raise NotRunning(f"No stack runs in {stack.directory}. `spikeloom up` starts one.")
        return stack

    # -- life ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if not self._owned:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owned:
            self.stop()

    def start(self, report: Callable[[str], None] = lambda step: None) -> None:
        """Return when everything answers; whatever goes wrong on the way, nothing keeps running."""
        with self._exclusively():
            self._end_leftovers()
            self._owned = True
            try:
                with _one_start_at_a_time(report):
                    self._start_all(report)
            except BaseException:
                self._stop_all()
                raise

    def detach(self) -> None:
        """Let the stack outlive this process."""
        for process in self._state.processes.values():
            process.release()
        self._owned = False

    def stop(self) -> None:
        with self._exclusively():
            self._stop_all()

    def delete_data(self) -> None:
        """Records, checkpoints, solver state, logs: all of a stopped stack."""
        for name in ("kafka", "flink", "solver", "logs"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        (self.directory / "state.json").unlink(missing_ok=True)

    # -- addresses -------------------------------------------------------------------------------------------------

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self._state.kafka_port}"

    @property
    def connection(self) -> KafkaConnection:
        return KafkaConnection(bootstrap=self.bootstrap)

    @property
    def rest_url(self) -> str:
        return self.cluster.url

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.directory / "flink", self._state.rest_port)

    @property
    def metrics_urls(self) -> dict[str, str]:
        """Where Prometheus finds the metrics of the processes that run now."""
        return {
            name: f"http://{HOST}:{port}/metrics"
            for name, port in self._state.metrics_ports.items()
            if name in self._state.processes
        }

    @property
    def environment(self) -> dict[str, str]:
        """For clients of this stack: with it, the wheel's own `bin/flink` and every job find their way."""
        return {
            **os.environ,
            **flink.environment(self.directory / "flink"),
            "PYTHONPATH": flink.python_path(),
            "SPIKELOOM_KAFKA_BOOTSTRAP": self.bootstrap,
        }

    # -- jobs ------------------------------------------------------------------------------------------------------

    def submit(
        self,
        job_file: Path | str,
        *arguments: str,
        savepoint: str | None = None,
        parallelism: int | None = None,
        wait: bool = True,
    ) -> str:
        """`flink run` a Python job; its id, once all its tasks run."""
        job = self.cluster.submit(Path(job_file).resolve(), arguments, self.environment, savepoint, parallelism)
        if wait:
            self._wait(f"job {Path(job_file).name} to run", lambda: self.cluster.is_running(job))
        return job

    def job_state(self, job: str) -> str:
        return self.cluster.state(job)

    def savepoint(self, job: str, *, stop: bool = False) -> str:
        return self.cluster.savepoint(job, stop)

    def cancel(self, job: str) -> None:
        self.cluster.cancel(job)

    # -- task managers ---------------------------------------------------------------------------------------------

    @property
    def task_managers(self) -> list[str]:
        return [name for name in self._state.processes if name.startswith("taskmanager-")]

    def kill_task_manager(self, index: int = 0) -> None:
        """SIGKILL the JVM of the index-th running task manager, as a crash would."""
        name = self.task_managers[index]
        self._state.processes.pop(name).kill()
        self._write_state()

    def start_task_manager(self) -> str:
        """One more task manager, registered and with free slots; its name."""
        with _one_start_at_a_time():
            name = self._launch_task_manager()
            self._wait(f"{name} to register", lambda: name in self.cluster.task_managers())
        return name

    # -- looking ---------------------------------------------------------------------------------------------------

    @property
    def processes(self) -> dict[str, Process]:
        return dict(self._state.processes)

    def memory(self) -> dict[str, int]:
        """Bytes of every process, Flink's Python workers included: the peak where the system tells it, else now."""
        usage = {}
        for name, process in self._state.processes.items():
            workers = 0
            for member in process.group():
                with contextlib.suppress(psutil.Error):
                    if member.pid == process.pid:
                        usage[name] = _peak_memory(member)
                    elif "pyflink.fn_execution.beam.beam_boot" in member.cmdline():
                        workers += 1
                        usage[f"{name} python {workers}"] = _peak_memory(member)
        return usage

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def _state(self) -> StackState:
        if self._known is None:
            raise NotRunning(f"The stack in {self.directory} has not been started.")
        return self._known

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.directory / "lock", timeout=0):
                yield
        except Timeout as error:
            raise StackError(f"Another command is starting or stopping the stack in {self.directory}.") from error

    def _end_leftovers(self) -> None:
        known = self._read_state()
        if not known:
            return
        if any(process.is_alive() for process in known.processes.values()):
            raise StackError(
                f"A stack runs in {self.directory} already. `spikeloom down` stops it, or name another folder."
            )
        for process in known.processes.values():
            process.wait_until_gone(seconds=0)

    def _start_all(self, report: Callable[[str], None]) -> None:
        if (free := psutil.virtual_memory().available) < FREE_MEMORY:
            raise StackError(
                f"{free / 1e9:.1f} GB of memory are free; the stack needs {FREE_MEMORY / 1e9:.0f} GB. "
                "Close other programs and try again."
            )
        self._known = StackState(
            settings=self._settings,
            kafka_port=self._ports.take(KAFKA_PORT),
            rest_port=self._ports.take(REST_PORT),
        )
        report("Starting Flink and Kafka")
        flink_folder, logs = self.directory / "flink", self.directory / "logs"
        flink.prepare(flink_folder, self._settings, self._ports.take(), self._state.rest_port)
        metrics_port = self._new_metrics_port(JOB_MANAGER, METRICS_PORT)
        job_manager = flink.job_manager_command(flink_folder, logs / f"{JOB_MANAGER}.log", metrics_port)
        self._launch(JOB_MANAGER, job_manager)
        for _ in range(self._task_managers):
            self._launch_task_manager()
        broker.prepare(self.directory / "kafka", self._state.kafka_port, self._ports.take())
        self._launch(KAFKA, broker.command(self.directory / "kafka", logs))

        self._wait("Kafka to answer", lambda: broker.answers(self.directory / "kafka", self._state.kafka_port))
        create_topics(self.connection)
        if self._solver:
            self._launch_solver()
        report("Waiting for Flink's task managers")
        self._wait("Flink to answer", self.cluster.answers)
        names = set(self.task_managers)
        self._wait("the task managers to register", lambda: names <= self.cluster.task_managers().keys())
        if self._solver:
            report("Waiting for the solver service")
            port = self._state.metrics_ports[SOLVER]
            self._wait("the solver service to answer", lambda: accepts_connections(port))

    def _launch_task_manager(self) -> str:
        taken = self._state.metrics_ports
        number = next(n for n in range(1, len(taken) + 2) if f"taskmanager-{n}" not in taken)
        name = f"taskmanager-{number}"
        port = self._new_metrics_port(name, METRICS_PORT + number)
        log = self.directory / "logs" / f"{name}.log"
        self._launch(name, flink.task_manager_command(self.directory / "flink", log, port, name))
        return name

    def _launch_solver(self) -> None:
        state = self.directory / "solver"
        state.mkdir(parents=True, exist_ok=True)
        port = self._new_metrics_port(SOLVER, SOLVER_METRICS_PORT)
        extra = {"SPIKELOOM_SOLVER_METRICS_PORT": str(port), "SPIKELOOM_SOLVER_STATE": str(state)}
        self._launch(SOLVER, [sys.executable, "-m", "solver_service"], extra)

    def _new_metrics_port(self, name: str, preferred: int) -> int:
        port = self._state.metrics_ports[name] = self._ports.take(preferred)
        return port

    def _launch(self, name: str, command: list[str], extra: dict[str, str] | None = None) -> None:
        environment = {**self.environment, **(extra or {})}
        self._state.processes[name] = Process.start(name, command, environment, self.directory / "logs")
        self._write_state()  # at once: whatever runs can be found

    def _wait(self, what: str, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not happened():
            for process in self._state.processes.values():
                process.check()
            if time.monotonic() > deadline:
                tails = "\n".join(f"{p.name}:\n{p.tail(5)}" for p in self._state.processes.values())
                raise StackError(f"Waited {START_SECONDS} s for {what} in vain. The ends of the logs:\n{tails}")
            time.sleep(0.1)

    def _stop_all(self) -> None:
        if not self._known:
            return
        processes = self._known.processes
        # Kafka last: the others flush to it, and log a page of complaints when it is gone.
        for group in ([p for name, p in processes.items() if name != KAFKA], [processes.get(KAFKA)]):
            for process in filter(None, group):
                process.ask_to_stop()
            for process in filter(None, group):
                process.wait_until_gone()
        self._known.processes.clear()
        self._write_state()
        self._owned = False

    def _write_state(self) -> None:
        temporary = self.directory / "state.json.new"
        temporary.write_text(self._state.model_dump_json(indent=2))
        temporary.replace(self.directory / "state.json")

    def _read_state(self) -> StackState | None:
        try:
            return StackState.model_validate_json((self.directory / "state.json").read_text())
        except (FileNotFoundError, ValidationError):
            return None


@contextlib.contextmanager
def _one_start_at_a_time(report: Callable[[str], None] = lambda step: None) -> Iterator[None]:
    # Between the choice of a free port and its use by a JVM lie seconds in which another stack would choose it, too.
    path = cache_folder() / "start.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    report("Waiting for another stack to start")
    with FileLock(path):
        yield


def _peak_memory(process: psutil.Process) -> int:
    with contextlib.suppress(OSError, StopIteration, ValueError):
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) * 1024
    return int(process.memory_info().rss)

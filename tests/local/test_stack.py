"""The stack on this machine: real processes, real ports, real deaths."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from spikeloom.errors import NotRunning, ProcessDied, StackError
from spikeloom.local import Stack, broker, flink
from spikeloom.local.ports import HOST, Ports
from spikeloom.local.process import Process, run
from wire.topics import TopicsDiffer, create_topics, read_topics

READ_SECONDS = 90


def test_all_processes_run_and_answer(stack: Stack) -> None:
    (task_manager,) = stack.task_managers  # not always the first: other tests kill it
    assert set(stack.processes) == {"kafka", "jobmanager", task_manager}
    assert all(process.is_alive() for process in stack.processes.values())
    assert stack.cluster.task_managers()[task_manager] == 4
    assert all(peak > 50 * 2**20 for peak in stack.memory().values())


def test_topics_have_the_settings_of_the_contract(stack: Stack) -> None:
    wanted = read_topics()
    admin = KafkaAdminClient(**stack.connection.python_client())
    partitions = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(list(wanted))}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in wanted]
    settings = admin.describe_configs(resources)["topic"]
    admin.close()
    assert partitions == {name: topic.partitions for name, topic in wanted.items()}
    for name, topic in wanted.items():
        for key, value in topic.config.items():
            assert set(settings[name][key]["value"].split(",")) == set(str(value).split(",")), (name, key)


def test_creating_topics_again_changes_nothing(stack: Stack) -> None:
    assert create_topics(stack.connection) == []


def test_a_topic_with_other_partitions_is_named(stack: Stack, tmp_path: Path) -> None:
    other = tmp_path / "topics.yaml"
    other.write_text("models: {partitions: 3}\n")
    with pytest.raises(TopicsDiffer, match="models has 1 partitions, 3 expected"):
        create_topics(stack.connection, other)


def test_nobody_creates_a_topic_by_a_typing_error(stack: Stack) -> None:
    consumer = KafkaConsumer("sequencse", **stack.connection.python_client())
    consumer.poll(500)
    consumer.close()
    admin = KafkaAdminClient(**stack.connection.python_client())
    assert "sequencse" not in admin.list_topics()
    admin.close()


def test_prometheus_can_scrape_every_flink_process(stack: Stack) -> None:
    for url in stack.metrics_urls.values():
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"# TYPE flink_" in answer.read()


def test_the_wheels_own_flink_command_finds_the_cluster(stack: Stack) -> None:
    command = [str(flink.home() / "bin" / "flink"), "list"]
    done = subprocess.run(command, env=stack.environment, capture_output=True, text=True, check=True)
    assert "running" in done.stdout.lower()


def test_a_port_that_somebody_has_is_not_taken(stack: Stack) -> None:
    taken = int(stack.bootstrap.rsplit(":", 1)[1])
    with socket.socket() as other:
        assert Ports().take(taken) != taken
        other.bind((HOST, 0))
        other.listen()
        assert Ports().take(other.getsockname()[1]) != other.getsockname()[1]


def test_a_free_port_is_kept_and_given_once() -> None:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        free = probe.getsockname()[1]
    ports = Ports()
    assert ports.take(free) == free
    assert ports.take(free) != free


def test_somebody_elses_broker_and_cluster_are_not_taken_for_ours(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("cluster.id=another\n")
    assert not broker.answers(tmp_path, int(stack.bootstrap.rsplit(":", 1)[1]))
    assert not flink.Cluster(tmp_path, int(stack.rest_url.rsplit(":", 1)[1])).answers()


def test_a_folder_with_a_running_stack_takes_no_second_one(stack: Stack) -> None:
    with pytest.raises(StackError, match="already"):
        Stack(stack.directory).start()
    assert Stack.attach(stack.directory).bootstrap == stack.bootstrap


def test_an_empty_folder_has_no_stack(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="spikeloom up"):
        Stack.attach(tmp_path)


def test_a_job_that_cannot_be_submitted_says_why(stack: Stack, tmp_path: Path) -> None:
    job = tmp_path / "broken.py"
    job.write_text("raise ValueError('the readout is missing')\n")
    with pytest.raises(StackError, match="the readout is missing"):
        stack.submit(job)


def test_a_job_that_only_restarts_is_reported_with_its_reason(stack: Stack, tmp_path: Path) -> None:
    job = tmp_path / "crashing.py"
    job.write_text(CRASHING_JOB)
    identifier = stack.submit(job, wait=False)
    with pytest.raises(StackError, match=r"(?s)crashing is .*no membrane"):
        _watch(stack, identifier, seconds=120)
    stack.cancel(identifier)


def _watch(stack: Stack, job: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        stack.cluster.is_running(job)
        time.sleep(0.2)


CRASHING_JOB = """
from pyflink.datastream import StreamExecutionEnvironment

def crash(value):
    raise ValueError("no membrane")

environment = StreamExecutionEnvironment.get_execution_environment()
environment.from_collection([1, 2]).map(crash).print()
environment.execute("crashing")
"""

OWNER = """
import sys, time
from spikeloom.local import Stack
with Stack(sys.argv[1], slots=1) as stack:
    {before}
    print(*(pid for p in stack.processes.values() for pid in (p.pid, p.guard_pid)), flush=True)
    {after}
"""


@pytest.mark.slow
def test_two_stacks_that_start_at_once_get_ports_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        stacks = [Stack(tmp_path / name, slots=1) for name in ("one", "other")]
        try:
            list(pool.map(Stack.start, stacks))
            assert stacks[0].bootstrap != stacks[1].bootstrap
            assert stacks[0].rest_url != stacks[1].rest_url
        finally:
            list(pool.map(Stack.stop, stacks))


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_owner(death: signal.Signals, tmp_path: Path) -> None:
    owner, pids = _start_owner(tmp_path, after="time.sleep(600)")
    owner.send_signal(death)
    owner.wait(timeout=60)
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=30)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_a_detached_stack_outlives_its_starter_and_comes_up_again_with_its_records(tmp_path: Path) -> None:
    owner, pids = _start_owner(tmp_path, after="stack.detach()")
    assert owner.wait(timeout=60) == 0
    time.sleep(2)  # longer than a guard takes to notice that its parent is gone
    first = Stack.attach(tmp_path)
    assert all(process.is_alive() for process in first.processes.values())
    producer = KafkaProducer(**first.connection.python_client())
    producer.send("models", key=b"kept", value=b"kept")
    producer.close()
    first.stop()
    assert not any(psutil.pid_exists(pid) and not _is_zombie(pid) for pid in pids)
    with pytest.raises(NotRunning):
        Stack.attach(tmp_path)

    with Stack(tmp_path, slots=1) as second:
        assert _read_committed(second, "models", 1) == [b"kept"]


def test_a_process_that_dies_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('no such broker'); sys.exit(3)"]
    process = Process.start("short", command, os.environ, tmp_path)
    process.wait_until_gone()
    with pytest.raises(ProcessDied, match=r"(?s)short ended by itself.*no such broker"):
        process.check()


def test_a_process_that_cannot_start_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ProcessDied, match="No such file"):
        Process.start("absent", [str(tmp_path / "absent")], os.environ, tmp_path)


def test_a_command_run_to_its_end_gives_its_code_and_output() -> None:
    assert run(["sh", "-c", "echo out; echo err >&2; exit 3"], os.environ) == (3, "out\nerr\n")


def test_what_a_killed_process_had_started_is_ended(tmp_path: Path) -> None:
    process = Process.start("parent", ["sh", "-c", "sleep 600 & sleep 600"], os.environ, tmp_path)
    deadline = time.monotonic() + 10
    while len(process.group()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(process.group()) == 3
    process.kill()
    assert process.group() == []


def _start_owner(directory: Path, *, before: str = "pass", after: str) -> tuple[subprocess.Popen[str], list[int]]:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(before=before, after=after), str(directory)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert owner.stdout
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(pids) == 6
    return owner, pids


def _read_committed(stack: Stack, topic: str, count: int) -> list[bytes]:
    """At least `count` values, and whatever comes within two checkpoints after them: one too many must be seen."""
    consumer = KafkaConsumer(
        topic,
        **stack.connection.python_client(),
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    values: list[bytes] = []
    deadline = time.monotonic() + READ_SECONDS
    while time.monotonic() < deadline:
        for records in consumer.poll(200).values():
            values += [record.value for record in records]
        if len(values) >= count:
            deadline = min(deadline, time.monotonic() + 4)
            count = 2**31  # the deadline has been set
    consumer.close()
    return sorted(values)


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True

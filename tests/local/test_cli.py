"""The commands as typed: exit codes, and one sentence instead of a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spikeloom.local import Stack


def spikeloom(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spikeloom", *arguments, "--dir", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, cwd=directory, env=_environment())


def test_status_without_a_stack_is_a_sentence_and_exit_code_3(tmp_path: Path) -> None:
    done = spikeloom("status", directory=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("Error: No stack runs in")
    assert "Traceback" not in done.stderr


def test_down_without_a_stack_is_no_error(tmp_path: Path) -> None:
    assert spikeloom("down", "--delete", directory=tmp_path).returncode == 0


def test_status_names_processes_and_addresses(stack: Stack) -> None:
    done = spikeloom("status", directory=stack.directory)
    assert done.returncode == 0, done.stderr
    assert {*stack.processes, stack.bootstrap, stack.rest_url} <= set(done.stdout.split())


def test_up_where_a_stack_runs_shows_it(stack: Stack) -> None:
    done = spikeloom("up", directory=stack.directory)
    assert done.returncode == 0
    assert stack.bootstrap in done.stdout


def test_logs_show_what_a_process_said_and_name_what_there_is(stack: Stack) -> None:
    assert "Kafka" in spikeloom("logs", "kafka", "-n", "500", directory=stack.directory).stdout
    unknown = spikeloom("logs", "zookeeper", directory=stack.directory)
    assert unknown.returncode == 1
    assert "jobmanager" in unknown.stderr


@pytest.mark.parametrize("arguments", [["up", "--slots", "0"], ["nonsense"]])
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str], tmp_path: Path) -> None:
    assert spikeloom(*arguments, directory=tmp_path).returncode == 2


def _environment() -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")]), "COLUMNS": "120"}

"""The bootstrap script, with a fake uv and a fake Python in place of the slow ones."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

FAKE_UV = """#!/bin/sh
echo "uv $1 $2" >> "$CALLS"
case "$1" in
venv)
    for last; do :; done
    mkdir -p "$last/bin"
    cp "$FAKE_PYTHON" "$last/bin/python"
    [ -z "${SLOW:-}" ] || sleep 600
    ;;
pip) [ -z "${BREAK:-}" ] || { echo "connection reset" >&2; exit 2; };;
esac
"""
FAKE_PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit 0
echo "python $*" >> "$CALLS"
"""


class Clone:
    """A checkout with the bootstrap script and nothing else."""

    def __init__(self, folder: Path, script: Path) -> None:
        self.root = folder / "clone"
        self.root.mkdir()
        shutil.copy(script, self.root)
        for name in ("requirements.lock", "pyproject.toml"):
            (self.root / name).write_text("first")
        self.calls = folder / "calls"
        programs = folder / "programs"
        programs.mkdir()
        for name, text in (("uv", FAKE_UV), ("fake-python", FAKE_PYTHON)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.environment = {
            "PATH": f"{programs}:/usr/bin:/bin:/usr/sbin:/sbin",
            "CALLS": str(self.calls),
            "FAKE_PYTHON": str(programs / "fake-python"),
            "SPIKELOOM_SKIP_CHECKS": "1",
        }

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        return subprocess.run(
            [str(self.root / "spikeloom"), *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


HANDED_OVER = "python -m spikeloom status"
BUILT_ANEW = ["uv venv --quiet", "uv pip install", "uv pip install", HANDED_OVER]


@pytest.fixture
def clone(tmp_path: Path, project_root: Path) -> Clone:
    return Clone(tmp_path, project_root / "spikeloom")


def test_the_first_start_builds_and_the_second_does_not(clone: Clone) -> None:
    clone.run("status")
    assert clone.called() == BUILT_ANEW
    started = time.monotonic()
    clone.run("status")
    assert clone.called() == [HANDED_OVER]
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_another_lock_file_is_installed_into_the_same_environment(clone: Clone, changed: str) -> None:
    clone.run("status")
    (clone.root / changed).write_text("second")
    clone.run("status")
    assert clone.called() == BUILT_ANEW[1:]


def test_a_failed_download_is_said_and_the_next_start_builds_anew(clone: Clone) -> None:
    failed = clone.run("status", BREAK="1")
    assert failed.returncode == 1
    assert "could not be installed" in failed.stderr
    assert "run the same command again" in failed.stderr
    clone.run("status")
    assert clone.called() == BUILT_ANEW


def test_a_killed_build_is_not_trusted_and_its_lock_is_taken_over(clone: Clone) -> None:
    build = subprocess.Popen(
        [str(clone.root / "spikeloom"), "status"],
        env=clone.environment | {"SLOW": "1"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 10
    while not (clone.root / ".venv" / "bin" / "python").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(build.pid, signal.SIGKILL)
    build.wait()
    assert (clone.root / ".spikeloom" / "build.lock").exists()
    assert clone.run("status").returncode == 0
    assert HANDED_OVER in clone.called()
    assert not (clone.root / ".spikeloom" / "build.lock").exists()


def test_a_full_disk_is_said_beforehand(clone: Clone) -> None:
    programs = Path(clone.environment["FAKE_PYTHON"]).parent
    (programs / "df").write_text("#!/bin/sh\necho header\necho disk 1 1 3000000 1% /\n")
    (programs / "df").chmod(0o755)
    refused = clone.run("status", SPIKELOOM_SKIP_CHECKS="")
    assert refused.returncode == 1
    assert "has 3 GB free; the environment needs" in refused.stderr
    assert clone.called() == []


def test_a_folder_with_a_space_is_refused_before_anything_is_downloaded(clone: Clone) -> None:
    # Flink's pyflink-udf-runner.sh does not quote the interpreter's path: every worker would die at its start.
    clone.root = clone.root.rename(clone.root.with_name("a clone"))
    refused = clone.run("status")
    assert refused.returncode == 1
    assert "has a space in it" in refused.stderr
    assert clone.called() == []


def test_a_missing_python_is_said(clone: Clone) -> None:
    programs = Path(clone.environment["FAKE_PYTHON"]).parent
    (programs / "uv").unlink()
    for name in ("python3.11", "python3", "python"):
        (programs / name).write_text("#!/bin/sh\nexit 1\n")
        (programs / name).chmod(0o755)
    refused = clone.run("status")
    assert refused.returncode == 1
    assert "Python 3.11 was not found" in refused.stderr

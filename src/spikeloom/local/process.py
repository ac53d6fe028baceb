"""A process of the stack as seen from outside: found again by process id and start time, from any other process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import psutil
from pydantic import BaseModel, ConfigDict

from spikeloom.errors import ProcessDied
from spikeloom.local import supervise

STOP_SECONDS = supervise.GRACE_SECONDS + 5


class Finished(NamedTuple):
    code: int
    output: str


_commands: set[subprocess.Popen[bytes]] = set()  # guards of those that `run` waits for


def run(command: Sequence[str], environment: Mapping[str, str]) -> Finished:
    """Run to the end, under a guard: whatever becomes of the calling process, the command does not outlive it."""
    guard = _start_guard(command, environment, errors=subprocess.PIPE, names=subprocess.DEVNULL)
    assert guard.stderr
    _commands.add(guard)
    try:
        output = guard.stderr.read().decode(errors="replace")
        return Finished(guard.wait(), output)
    except BaseException:
        guard.terminate()
        guard.wait()
        raise
    finally:
        _commands.discard(guard)
        guard.stderr.close()


def end_commands() -> None:
    """End what other threads wait for in `run`: Ctrl-C reaches the main thread only."""
    for guard in list(_commands):
        guard.terminate()


class Process(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    created: float  # with the pid, this names a process for good: pids are reused
    guard_pid: int
    guard_created: float
    log: Path  # what it logs
    output: Path  # what it prints besides

    @classmethod
    def start(cls, name: str, command: Sequence[str], environment: Mapping[str, str], logs: Path) -> "Process":
        """Start under a guard that ends it together with the calling process."""
        logs.mkdir(parents=True, exist_ok=True)
        log, output = logs / f"{name}.log", logs / f"{name}.out"
        log.unlink(missing_ok=True)
        with output.open("wb") as file:
            guard = _start_guard(command, environment, errors=file, names=subprocess.PIPE)
        assert guard.stdout
        try:
            with guard.stdout:
                pid = int(guard.stdout.readline())
            return cls(
                name=name,
                pid=pid,
                created=psutil.Process(pid).create_time(),
                guard_pid=guard.pid,
                guard_created=psutil.Process(guard.pid).create_time(),
                log=log,
                output=output,
            )
        except (ValueError, psutil.NoSuchProcess) as error:
            guard.wait()
            raise ProcessDied(_death_message(name, log, output)) from error
        except BaseException:  # nobody knows of it yet, so nobody else would end it
            guard.terminate()
            guard.wait()
            raise

    def is_alive(self) -> bool:
        return _is_alive(self.pid, self.created)

    def check(self) -> None:
        if not self.is_alive():
            raise ProcessDied(_death_message(self.name, self.log, self.output))

    def release(self) -> None:
        """From now on the process outlives its owner."""
        if _is_alive(self.guard_pid, self.guard_created):
            os.kill(self.guard_pid, signal.SIGUSR1)

    def ask_to_stop(self) -> None:
        if _is_alive(self.guard_pid, self.guard_created):
            os.kill(self.guard_pid, signal.SIGTERM)

    def wait_until_gone(self, seconds: float = STOP_SECONDS) -> None:
        """Wait for the end that was asked for, then enforce it; nothing of the process group is left afterwards."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and _is_alive(self.guard_pid, self.guard_created):
            time.sleep(0.02)
        for pid, created in ((self.guard_pid, self.guard_created), (self.pid, self.created)):
            if _is_alive(pid, created):
                os.kill(pid, signal.SIGKILL)
        left = self.group()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)
        with contextlib.suppress(ChildProcessError):  # it is the child of whoever started it
            os.waitpid(self.guard_pid, os.WNOHANG)

    def kill(self) -> None:
        """SIGKILL the process itself, as a crash would; its guard cleans up what it had started."""
        if self.is_alive():
            os.kill(self.pid, signal.SIGKILL)
        self.wait_until_gone()

    def group(self) -> list[psutil.Process]:
        """The process and all it started that still runs, also after its own death."""
        members = []
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
                # Whoever joined this group did so after its leader began; an older pid is someone else's.
                if os.getpgid(process.pid) == self.pid and process.create_time() >= self.created:
                    members.append(process)
        return [process for process in members if process.status() != psutil.STATUS_ZOMBIE]

    def tail(self, lines: int = 30) -> str:
        return _tail(self.log, self.output, lines)


def _start_guard(
    command: Sequence[str], environment: Mapping[str, str], *, errors: int | IO[bytes], names: int
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", supervise.__file__, str(os.getpid()), *command],
        stdin=subprocess.DEVNULL,
        stdout=names,  # there the guard names its child
        stderr=errors,  # there goes what the child prints
        env=dict(environment),
        start_new_session=True,  # Ctrl-C is for the owner alone, which then stops the stack in order
    )


def _is_alive(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _death_message(name: str, log: Path, output: Path) -> str:
    return f"{name} ended by itself. The last lines of its log ({log}):\n{_tail(log, output, 15)}"


def _tail(log: Path, output: Path, lines: int) -> str:
    texts = [path.read_text(errors="replace") for path in (log, output) if path.exists()]
    return "\n".join("\n".join(text.splitlines()[-lines:]) for text in texts if text.strip())

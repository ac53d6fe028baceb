"""One guard per process of the stack: `python -I -S supervise.py OWNER COMMAND...` runs COMMAND and ends it, with
everything it started, when COMMAND itself ends, when the guard gets SIGTERM, or when the owner is gone.

The owner is the guard's parent process. When that dies, however it dies, the guard's parent becomes another one: this
holds on Linux and macOS alike. SIGUSR1 releases the guard from its owner (`spikeloom up` returns, the stack stays).

The standard library alone, and no site-packages: a guard starts in some 20 ms and stays below 12 MB.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

OWNER_POLL_SECONDS = 0.5
GRACE_SECONDS = 10.0  # Kafka's controlled shutdown takes 2 s on an idle machine
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(owner: int, command: list[str]) -> int:
    received: set[int] = set()
    wakeup = _wake_on_signals(received)
    # A session of its own makes a process group of its own: Flink's Python workers are in it and stay in it when
    # the task manager that started them is killed, so the group is what must be ended.
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr, start_new_session=True
    )
    try:
        with contextlib.suppress(BrokenPipeError):  # the owner may be gone already
            os.write(sys.stdout.fileno(), f"{child.pid}\n".encode())
        os.close(sys.stdout.fileno())
        while child.poll() is None:
            if received.intersection(STOP_SIGNALS) or _is_orphaned(owner, received):
                _end(child)
                break
            _sleep(wakeup, OWNER_POLL_SECONDS)
    finally:
        _kill_group(child.pid)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _wake_on_signals(received: set[int]) -> int:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (*STOP_SIGNALS, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, lambda number, frame: received.add(number))
    return reader


def _sleep(wakeup: int, seconds: float) -> None:
    if select.select([wakeup], [], [], seconds)[0]:
        os.read(wakeup, 1024)


def _is_orphaned(owner: int, received: set[int]) -> bool:
    return signal.SIGUSR1 not in received and os.getppid() != owner


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if child.poll() is None:
        _kill_group(child.pid)
        child.wait()


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM when only zombies are left
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))

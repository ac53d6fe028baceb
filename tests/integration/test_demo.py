"""The README's first command as a person runs it, and as a person interrupts it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import eventually

FIGURES = {
    "sequences",
    "seconds",
    "sequences_per_second",
    "columns",
    "support",
    "relative_gap",
    "test_then_train_accuracy",
    "held_out_accuracy",
    "readout_versions",
}


def demo(folder: Path, *arguments: str) -> list[str]:
    where = ["--dir", str(folder / "stack"), "--picture", str(folder / "demo.png"), "--json", str(folder / "demo.json")]
    return [sys.executable, "-m", "spikeloom", "demo", *where, *arguments]


def left_behind(folder: Path) -> list[str]:
    """Processes that mention the demo's folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(folder) in line:
            found.append(line[:200])
    return found


def test_the_demo_achieves_what_it_prints(tmp_path: Path) -> None:
    done = subprocess.run(demo(tmp_path), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "demo.json").read_text())
    assert figures.keys() >= FIGURES
    assert figures["sequences"] == 1437
    assert figures["relative_gap"] <= 1e-6
    assert figures["readout_versions"] >= 3
    assert 0 < figures["support"] <= figures["columns"]
    assert figures["held_out_accuracy"] > 0.93
    assert figures["test_then_train_accuracy"] > 0.6
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert f"{figures['held_out_accuracy']:.4f}" in done.stdout
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("moment", ["jobmanager.out", "kafka.out", "solver.out", "flink-run.log"])
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, moment: str) -> None:
    running = subprocess.Popen(demo(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "stack/logs" / moment).exists():
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline, f"waited in vain for {moment}"
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=90)
    assert running.returncode == 130, output
    assert "Traceback" not in output
    # A process that was being started at that very moment is ended by its guard, which looks twice a second.
    eventually(lambda: left_behind(tmp_path) == [], "the last guard", seconds=20)

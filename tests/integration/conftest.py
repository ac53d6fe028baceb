"""Jobs and services on the session's stack."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from snn import lif
from snn.engine import to_inputs
from snn.model import ModelSpec
from spikeloom.local import Stack
from spikeloom.local.ports import Ports
from tests.dashboards import ROOT, load, metrics_in, of_row
from wire import messages_pb2 as pb
from wire.codec import decode_readout
from wire.registry import read_all

LEARNING = ROOT / "deploy" / "grafana" / "dashboards" / "learning.json"


@contextmanager
def job(stack: Stack, root: Path, name: str, model: ModelSpec, *arguments: str) -> Iterator[str]:
    running = stack.submit(root / "flink_jobs" / f"{name}.py", "--model", model.model, *arguments)
    try:
        yield running
    finally:
        stack.cancel(running)


def eventually(happened: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)


def readouts_of(stack: Stack, model: ModelSpec) -> list[pb.Readout]:
    """All that the solver has published of a model; other tests leave spoilt readouts of theirs on the topic."""
    records = read_all(stack.connection, "readouts")
    return [decode_readout(record) for record in records if pb.Readout.FromString(record).model == model.model]


def scraped(urls: Iterable[str]) -> list[str]:
    """What Prometheus would read, line by line."""
    pages = (urllib.request.urlopen(url).read().decode() for url in urls)
    return [line for page in pages for line in page.splitlines()]


def not_shown(row: str, urls: Iterable[str]) -> set[str]:
    """Metrics that panels of the dashboard "learning" ask for, below the row of this title, and no page has."""
    panels = of_row(load(LEARNING), row)
    there = {line.split("{")[0] for line in scraped(urls)}
    return {metric for _, query in panels for metric in metrics_in(query)} - there


class Solver:
    """The solver service as a process of its own."""

    def __init__(self, stack: Stack, state: Path, **settings: str) -> None:
        port = Ports().take()
        self.metrics_url = f"http://127.0.0.1:{port}/metrics"
        self._environment = {
            **stack.environment,
            "SPIKELOOM_SOLVER_STATE": str(state),
            "SPIKELOOM_SOLVER_METRICS_PORT": str(port),
            "SPIKELOOM_SOLVER_EVERY_SECONDS": "1",
            "SPIKELOOM_SOLVER_SNAPSHOT_SECONDS": "1",
            **{f"SPIKELOOM_SOLVER_{name.upper()}": value for name, value in settings.items()},
        }
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", "solver_service"], env=self._environment)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, as an orchestrator would; it saves its state."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(timeout=60) == 0

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def solver(stack: Stack, tmp_path: Path) -> Iterator[Solver]:
    made = Solver(stack, tmp_path / "solver")
    yield made
    made.end()


def offline_spikes(codes: np.ndarray, model: ModelSpec) -> np.ndarray:
    """[N, P] final spikes by a plain loop: one sequence and one timestep at a time through the reference."""
    network = model.network(range(model.witnesses.count))
    rows = []
    for sequence in codes:
        state = lif.initial_state(network, 1)
        for t in range(model.input.timesteps):
            result = lif.roll_out(
                to_inputs(sequence[None, t : t + 1], model.input, np.array([t + 1 == len(sequence)])), state, network
            )
            state = result.state
        rows.append(result.spikes[0])
    return torch.stack(rows).numpy()

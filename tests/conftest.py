"""What tests of every room share."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from spikeloom.local import Stack

# A shell that puts pytest in the background makes it ignore Ctrl-C, and its children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


torch.set_num_threads(1)  # several spin while they wait for each other on cores that a stack uses


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also the tests of minutes, for which CI has no room")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="minutes; run with --slow"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A real broker and a real cluster with one task manager of four slots, started by the first test that asks."""
    with Stack(tmp_path_factory.mktemp("stack"), task_managers=1, slots=4) as running:
        yield running


@pytest.fixture
def project_root() -> Path:
    return Path(__file__).resolve().parents[1]

"""The deployment's files, read as their programs read them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml


@pytest.fixture
def compose(project_root: Path) -> dict:
    return yaml.safe_load((project_root / "docker-compose.yml").read_text())


@pytest.fixture
def container(project_root: Path) -> ModuleType:
    """deploy/images/container.py."""
    spec = importlib.util.spec_from_file_location("container", project_root / "deploy" / "images" / "container.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

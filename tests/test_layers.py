"""Dependencies point one way: flink_jobs -> operators -> snn, solver_service -> snn, spikeloom -> all, bench -> all."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

MAY_IMPORT = {
    "snn": {"snn"},
    "wire": {"wire", "snn"},
    "operators": {"operators", "wire", "snn"},
    "flink_jobs": {"flink_jobs", "operators", "wire", "snn"},
    "solver_service": {"solver_service", "wire", "snn"},
    "spikeloom": {"spikeloom", "flink_jobs", "operators", "solver_service", "wire", "snn"},
    "bench": {"bench", "spikeloom", "flink_jobs", "operators", "solver_service", "wire", "snn"},
}
ROOMS = {*MAY_IMPORT, "tests"}
FOLDERS = {"spikeloom": "src/spikeloom"}
FORBIDDEN = {
    "snn": {"pyflink", "kafka", "prometheus_client", "time", "datetime"},
    "operators": {"kafka"},
    "flink_jobs": {"numpy", "torch", "snn.lif", "snn.fused", "snn.engine"},
    "solver_service": {"pyflink"},
}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_a_specification_costs_no_torch() -> None:
    """Submitting a job and running the solver need no tensors; importing torch takes seconds and 600 MB."""
    jobs = "flink_jobs.roll_out, flink_jobs.predict, flink_jobs.gram, flink_jobs.train_hebbian"
    code = f"import sys, {jobs}, solver_service.service; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_operators_load_numba_themselves() -> None:
    """Flink's worker imports an operator's file before the operator can prepare the import (operators/worker.py)."""
    operators = "operators.roll_out, operators.predict, operators.gram, operators.hebbian"
    code = f"import sys, {operators}; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(room: str, project_root: Path) -> None:
    files = list((project_root / FOLDERS.get(room, room)).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            top = name.split(".")[0]
            assert top not in ROOMS - MAY_IMPORT[room], f"{path} imports {name}"
            clash = {name, top} & FORBIDDEN.get(room, set())
            assert not clash, f"{path} imports {name}"


def test_jobs_compute_nothing(project_root: Path) -> None:
    """No loops and no arithmetic in a job: sources, operators and sinks are wired, that is all."""
    banned = (ast.For, ast.While, ast.BinOp, ast.AugAssign, ast.ListComp, ast.DictComp)
    for path in (project_root / "flink_jobs").glob("*.py"):
        if path.name in ("wiring.py", "__init__.py"):
            continue
        found = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, banned)]
        assert not found, f"{path} computes in lines {found}"

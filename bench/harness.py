"""What every benchmark shares: its arguments, runs taken in turns, rows, the table and the file they are written to.

A benchmark is a file that can be run. Its docstring says what it measures, against what and how; its `run(report)` adds
rows. `python -m bench.NAME [--quick] [--results FOLDER]` is what `spikeloom bench NAME` calls.
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import re
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import psutil
import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter
from rich.console import Console
from rich.table import Table

from spikeloom import PROJECT_ROOT
from spikeloom.errors import SpikeloomError

RESULTS = PROJECT_ROOT / "bench" / "results"
MOST_RUNS = 200  # of microseconds each; more would not move the median
Better = Literal["less", "more"]


class BenchError(SpikeloomError):
    """A benchmark that cannot run; the text says what it needs and how to get it."""


class Row(BaseModel):
    """One measured number; where it stands beside a peer's, `ratio` is above 1 when ours is the better one."""

    model_config = ConfigDict(extra="forbid")

    case: str
    metric: str
    unit: str
    ours: float
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    runs: int
    command: str
    cores: int
    device: str
    curve: list[tuple[float, float]] | None = (
        None  # the peer's where there is one; what the points are, a docstring says
    )


class Report:
    """The rows of one run of a benchmark, shown as they come."""

    def __init__(self, name: str, quick: bool, cores: int, only: str = "") -> None:
        """`only`: a pattern that the cases have to match."""
        self.quick = quick
        self._only = only
        self.cores = cores
        self.rows: list[Row] = []
        self.console = Console()
        self._name = name
        self._begun = time.monotonic()

    def add(
        self,
        case: str,
        metric: str,
        unit: str,
        ours: float,
        *,
        runs: int = 1,
        peer: str | None = None,
        peer_value: float | None = None,
        better: Better = "less",
        curve: list[tuple[float, float]] | None = None,
    ) -> None:
        ratio = None
        if peer_value is not None:
            ratio = peer_value / ours if better == "less" else ours / peer_value
        command = f"spikeloom bench {self._name}" + (" --quick" if self.quick else "")
        row = Row(
            case=case, metric=metric, unit=unit, ours=ours, peer=peer, peer_value=peer_value, ratio=ratio, runs=runs,
            command=command, cores=self.cores, device=device(), curve=curve,
        )  # fmt: skip
        self.rows.append(row)
        self.say("  ".join(filter(None, _cells(row))))

    def wants(self, case: str) -> bool:
        """Whether a case is to be measured; for those of benchmarks of hours, which can be run one after the other."""
        return re.search(self._only, case) is not None

    def say(self, text: str) -> None:
        """Progress: a benchmark of minutes says what it does."""
        line = f"{time.monotonic() - self._begun:5.0f} s  {text}"
        self.console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)

    def table(self) -> Table:
        table = Table("case", "metric", title=self._name)
        for heading in ("ours", "peer's", "ratio"):
            table.add_column(heading, justify="right")
        table.add_column("peer")
        for row in self.rows:
            case, metric, ours, value, ratio, peer = _cells(row)
            table.add_row(case, metric, ours, value, ratio, peer)
        return table

    def write(self, folder: Path) -> Path:
        """A file of these rows; with `only`, those of other cases stay in it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._name}.json"
        cases: dict[str, list[Row]] = {}
        for row in read(path) if self._only and path.exists() else []:
            cases.setdefault(row.case, []).append(row)
        for case in dict.fromkeys(row.case for row in self.rows):
            cases[case] = [row for row in self.rows if row.case == case]
        rows = [row for held in cases.values() for row in held]
        held = [row.model_dump(exclude={"curve"} if row.curve is None else None) for row in rows]
        path.write_text(json.dumps(held, indent=1) + "\n")
        return path


def read(path: Path) -> list[Row]:
    return TypeAdapter(list[Row]).validate_python(json.loads(path.read_text()))


def main(name: str, run: Callable[[Report], None], cores: int, by_case: bool = False) -> None:
    """The command line of a benchmark. `cores`: those it uses; one means one thread. `by_case`: it asks `Report.wants`
    before it measures a case."""
    parser = argparse.ArgumentParser(prog=f"spikeloom bench {name}")
    parser.add_argument("--quick", action="store_true", help="small sizes: a trial, no figures to quote")
    parser.add_argument("--results", type=Path, help="folder of the JSON file")
    if by_case:
        parser.add_argument("--only", default="", metavar="PATTERN", help="cases that match; the file keeps the others")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of processes that are started from here
    torch.set_num_threads(1)
    if cores == 1 and (allowed := _affinity()):
        psutil.Process().cpu_affinity([allowed[-1]])  # whatever threads a library starts
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is stopped then, too
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also in the background, where shells have it ignored
    report = Report(name, options.quick, cores, options.only if by_case else "")
    try:
        run(report)
    except SpikeloomError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    if not report.rows:
        sys.exit(f"Error: --only: expected a pattern that a case matches, got {options.only!r}")
    report.console.print(report.table())
    # A trial must not overwrite figures that the docs are drawn from.
    folder = options.results or (RESULTS / "quick" if options.quick else RESULTS)
    report.console.print(f"Written: {os.path.relpath(report.write(folder))}")


class Taken(NamedTuple):
    """Median seconds of a call of each contestant over `runs` calls."""

    seconds: dict[str, float]
    runs: int


def interleaved(contestants: Mapping[str, Callable[[], object]], runs: int, seconds: float = 0) -> Taken:
    """Time contestants after one call each to warm up. They take turns, so that what slows the machine for a while
    slows everyone: `runs` times, or more often until `seconds` have passed."""
    for call in contestants.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    done, until = 0, time.perf_counter() + seconds
    gc.collect()
    gc.disable()
    try:
        while done < runs or (time.perf_counter() < until and done < MOST_RUNS):
            for name, call in contestants.items():
                begun = time.perf_counter()
                call()
                taken[name].append(time.perf_counter() - begun)
            done += 1
    finally:
        gc.enable()
    return Taken({name: statistics.median(values) for name, values in taken.items()}, done)


def device() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cores() -> int:
    """That this process may use."""
    return len(_affinity()) or os.cpu_count() or 1


def _affinity() -> list[int]:
    return list(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else []


def shared_folder(name: str) -> Path:
    """A folder of data that is not part of the project."""
    shared = Path(os.environ.get("SPIKELOOM_SHARED", PROJECT_ROOT.parent / "shared"))
    folder = shared / "data" / name
    if not folder.is_dir():
        raise BenchError(
            f"expected data in $SPIKELOOM_SHARED/data/{name}, found no folder {folder}. Get the files (mnist: the "
            "four IDX files, gzipped or not) and set SPIKELOOM_SHARED to the folder above data/"
        )
    return folder


def highest() -> int:
    """Most bytes that this process has taken."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def trim() -> None:
    """Give free memory back to the system."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _cells(row: Row) -> tuple[str, str, str, str, str, str]:
    return (
        row.case,
        row.metric,
        f"{number(row.ours)} {row.unit}",
        "" if row.peer_value is None else f"{number(row.peer_value)} {row.unit}",
        "" if row.ratio is None else factor(row.ratio),
        row.peer or "",
    )


def factor(value: float) -> str:
    """Two decimals, where they count."""
    return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def number(value: float) -> str:
    """Three digits that count, and no powers of ten for what benchmarks measure."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"

"""What growing by price is worth: a dictionary whose columns were priced, beside as many of the same law drawn blindly.

Data: MNIST rows, 20,000 training images, for templates 50,000; first-last XOR of T steps. Apart from them there are
fresh rows (their prices decide on the stop), held-out rows (they choose beta), and the test set. All sets differ with
the seed.

Priced: `solver_service.growing.grow`, squared loss, group penalty; `candidates` witnesses are rolled out on all
training rows for each column that enters. Blind: the first witnesses whose columns are different and not constant.
Either way the readout of P columns is solved with the beta that does best on the held-out rows.

accuracy   of the readout on the test set; with softmax, multinomial loss and ridge on the same columns
seconds    from nothing to the columns and a solve over them, roll-outs included, on one core
price left the largest price of a candidate on fresh rows, over beta, when the last columns entered

A size is left out where the pool, `candidates` witnesses for each column, was used up before: columns that are never
used leave.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench import harness
from bench.harness import Report, shared_folder
from snn import engine
from snn.bits import BitMatrix
from snn.laws import StoredTemplates
from snn.model import ModelSpec, parse_model
from snn.sums import of_rows
from solver_service.fit import Samples
from solver_service.growing import TOLERANCE, Rows, Rules, Witnesses, beside, different, grow
from solver_service.losses import LOSSES
from solver_service.path import warm_path
from solver_service.solvers import solve
from spikeloom.tasks import load_task
from spikeloom.tasks.sequences import first_last_xor

SEEDS = 3
BLOCK, TOGETHER = 2000, 1024  # sequences and witnesses stepped at a time
MORE = 2  # blind witnesses for each column that is missing
BETAS, SOFTMAX_BETAS = (1e-2, 3e-3, 1e-3, 3e-4), (1e-2, 3e-3)  # relative
HELD = 5000  # rows each: fresh ones, and those that choose beta

LOCAL_FIELDS = {
    "name": "heterogeneous", "fields": (4, 14), "decay": (0.01, 0.5), "threshold": (0.003, 0.3),
}  # fmt: skip
XOR_LAW = {"name": "heterogeneous", "scale": 1.0, "bias": 1.0, "decay": (0.001, 0.3), "threshold": (0.2, 5.0)}


class Part(NamedTuple):
    """Grid codes [N, T, m] and classes [N]."""

    codes: npt.NDArray[np.int16]
    classes: npt.NDArray[np.int64]


class Parts(NamedTuple):
    train: Part
    fresh: Part
    held_out: Part
    test: Part


class Case(NamedTuple):
    """sizes: columns to stop at. candidates: priced for each that enters. softmax: sizes that get it, too."""

    name: str
    data: Callable[[int], Parts]
    model: Callable[[int], ModelSpec]
    sizes: tuple[int, ...]
    candidates: int
    softmax: tuple[int, ...] = ()


def mnist(rows: int, seed: int) -> Parts:
    task = load_task("mnist-rows", shared_folder("mnist"))
    assert task.train.targets is not None
    assert task.test.targets is not None
    order = np.random.default_rng(seed).permutation(len(task.train.targets))
    ends = np.cumsum([rows, HELD, HELD])
    codes, classes = (task.train.inputs * 256).astype(np.int16), task.train.targets
    train, fresh, held_out = (Part(codes[rows], classes[rows]) for rows in np.split(order, ends)[:3])
    return Parts(train, fresh, held_out, Part((task.test.inputs * 256).astype(np.int16), task.test.targets))


def xor(timesteps: int, rows: int, seed: int) -> Parts:
    made = [first_last_xor(rows, timesteps, 4 * seed + part) for part in range(4)]
    parts = []
    for data in made:
        assert data.targets is not None
        parts.append(Part(data.inputs.astype(np.int16), data.targets))
    train, fresh, held_out, test = parts
    return Parts(train, fresh, held_out, test)


def model(grid: dict[str, Any], law: dict[str, Any], outputs: int, seed: int) -> ModelSpec:
    return parse_model({
        "model": "bench", "input": grid, "witnesses": {"law": law, "seed": seed, "count": 2**20},
        "readout": {"loss": "squared", "outputs": outputs},
    })  # fmt: skip


def digits(law: dict[str, Any], end_pulse: bool = False) -> Callable[[int], ModelSpec]:
    return partial(model, {"timesteps": 28, "features": 28, "bits": 8, "end_pulse": end_pulse}, law, 10)


def templates(seed: int) -> ModelSpec:
    examples = load_task("mnist-rows", shared_folder("mnist")).train.inputs
    return digits(StoredTemplates().calibrated(examples).model_dump())(seed)


def bits(timesteps: int) -> Callable[[int], ModelSpec]:
    return partial(model, {"timesteps": timesteps, "features": 1, "bits": 0}, XOR_LAW, 2)


FEW, MANY = partial(mnist, 20_000), partial(mnist, 50_000)
SIZES = (500, 1000, 2000)
CASES = [
    Case("MNIST rows, local integrators", FEW, digits({"name": "local_integrators"}, True), SIZES, 8, (2000,)),
    Case("MNIST rows, local fields", FEW, digits(LOCAL_FIELDS), SIZES, 16, (2000,)),
    Case("MNIST rows, Gaussian", FEW, digits({"name": "gaussian"}), SIZES, 16),
    Case("MNIST rows, templates", MANY, templates, SIZES, 4, SIZES),
    Case("first-last XOR, T = 15", partial(xor, 15, 4096), bits(15), SIZES, 16),
    Case("first-last XOR, T = 20", partial(xor, 20, 4096), bits(20), SIZES, 16),
]
QUICK = [Case("first-last XOR, T = 10", partial(xor, 10, 1024), bits(10), (200, 300), 4, (300,))]


def run(report: Report) -> None:
    for case in filter(lambda case: report.wants(case.name), QUICK if report.quick else CASES):
        several: dict[tuple[str, str], list[Figure]] = {}
        for seed in range(1 if report.quick else SEEDS):
            for figure in Comparison(case, seed).figures(report):
                several.setdefault((figure.metric, figure.unit), []).append(figure)
        for (metric, unit), figures in several.items():
            blind = [figure.blind for figure in figures if figure.blind is not None]
            report.add(
                case.name, metric, unit, mean(figure.priced for figure in figures), runs=len(figures),
                peer="blind" if blind else None, peer_value=mean(blind) if blind else None,
                better="less" if unit == "s" else "more",
            )  # fmt: skip


class Figure(NamedTuple):
    metric: str
    unit: str
    priced: float
    blind: float | None = None


class Comparison:
    def __init__(self, case: Case, seed: int) -> None:
        self.case, self.seed = case, seed
        self.model = case.model(seed)
        self.parts = case.data(seed)

    def figures(self, report: Report) -> Iterator[Figure]:
        train, fresh = (self._rows(part) for part in self.parts[:2])
        rules = Rules(self.case.sizes[-1], candidates=self.case.candidates)
        sizes, left, begun = list(self.case.sizes), 0.0, time.perf_counter()
        priced: dict[int, tuple[Witnesses, float]] = {}
        for grown in grow(train, fresh, LOSSES["squared"], rules):
            seconds = time.perf_counter() - begun
            report.say(
                f"{self.case.name}, seed {self.seed}: {len(grown.witnesses)} columns of {grown.tried} witnesses, "
                f"price left {grown.best:.3g}, beta {grown.solution.beta:.3g}, {seconds:.0f} s"
            )
            left = grown.best / grown.solution.beta if grown.best else left
            while sizes and len(grown.witnesses) >= sizes[0]:
                size = sizes.pop(0)
                priced[size] = grown.witnesses[:size], seconds
        for size, (witnesses, seconds) in priced.items():
            blind, blind_seconds = self._blind(size)
            losses = ("squared", "multinomial") if size in self.case.softmax else ("squared",)
            ours, theirs = (self._accuracies(chosen, losses) for chosen in (witnesses, blind))
            for loss in losses:
                metric = f"{size:,} columns" + (", softmax" if loss == "multinomial" else "")
                yield Figure(metric, "accuracy", ours[loss], theirs[loss])
            yield Figure(f"{size:,} columns", "s", seconds, blind_seconds)
        yield Figure("price left", "beta", left)

    def _blind(self, size: int) -> tuple[Witnesses, float]:
        """The first different columns, and the seconds they and a solve take."""
        begun, train = time.perf_counter(), self._rows(self.parts.train)
        ids, tried = np.arange(len(train.targets), dtype=np.uint64), size
        spikes = train.columns(np.arange(tried))
        while len(chosen := different(of_rows(spikes, ids, train.targets))) < size:
            more = np.arange(tried, tried + MORE * (size - len(chosen)))
            spikes, tried = beside(spikes, train.columns(more)), tried + len(more)
        chosen = chosen[:size]
        fit = Samples(LOSSES["squared"], spikes.select(chosen), train.targets)
        solve(fit, "group", Rules(size).relative_beta, TOLERANCE)
        return chosen, time.perf_counter() - begun

    def _accuracies(self, witnesses: Witnesses, losses: Sequence[str]) -> dict[str, float]:
        """By the loss, on the test set, with the beta of BETAS that does best on the held-out rows."""
        rows = [self._rows(part) for part in (self.parts.train, self.parts.held_out, self.parts.test)]
        spikes = [part.columns(witnesses) for part in rows]
        found = {}
        for loss in losses:
            train, held_out, test = (
                Samples(LOSSES[loss], each, part.targets) for each, part in zip(spikes, rows, strict=True)
            )
            path = (
                warm_path(train.moments(), held_out, "group", BETAS)
                if loss == "squared"
                else warm_path(train, held_out, "ridge", SOFTMAX_BETAS)
            )
            best = path.solutions[path.chosen("best")]
            scores = test.times(best.coefficients) + best.intercept
            found[loss] = float((scores.argmax(axis=1) == self.parts.test.classes).mean())
        return found

    def _rows(self, part: Part) -> Rows:
        return Rows(partial(self._columns, part.codes), np.eye(self.model.readout.outputs)[part.classes])

    def _columns(self, codes: npt.NDArray[np.int16], witnesses: Witnesses) -> BitMatrix:
        """Of any number of witnesses, some at a time."""
        spikes = [self._spikes(codes, part) for part in np.split(witnesses, range(TOGETHER, len(witnesses), TOGETHER))]
        return BitMatrix.from_dense(np.concatenate(spikes, axis=1))

    def _spikes(self, codes: npt.NDArray[np.int16], witnesses: Witnesses) -> npt.NDArray[np.bool_]:
        network = engine.on_device(self.model, witnesses.tolist())
        tops = range(0, len(codes), BLOCK)
        return np.concatenate(
            [engine.final_spikes(codes[top : top + BLOCK], self.model.input, network) for top in tops]
        )


if __name__ == "__main__":
    harness.main("growing", run, cores=1, by_case=True)

"""The paper's tables (seeds/003, sections 4 and 5), ours beside its figures (`bench/paper_figures.py`).

A case is a task at a depth and a variant of `bench.variants`. Accuracy is the mean over the seeds (of data, witnesses
and batches) on sequences that nothing was trained on or chosen by; the points of `curve` are (seed, accuracy), `spread`
is the standard deviation over the seeds. A cell that several of the paper's tables share is run once:

    table 1   gap: first-last XOR, a few subnetworks: accuracy, primal, dual and the certified gap between them
    table 2   main: XOR, MNIST, addition at depths 3 and 10; each variant beside the paper's best of its kind
    table 3   lengths: addition, trained at 10 digits, asked at up to 100
    tables 4, 5   XOR and MNIST by depth and by timesteps
    table 6   scaling: addition in base 2 by the number of training sequences; whole sequences and tokens right

The paper's setting is kept: Gaussian weights without bias, one leak and one threshold; disjoint subnetworks, of each of
which one neuron is a column; digit and carry with a head each at every timestep, right if both are; the carry that is
asked with is the network's own. What our text of it does not say, or what one core cannot pay, is ours:

    depth d           d layers of neurons: d - 1 hidden ones, `width` wide in a subnetwork, and one neuron on top
    leak, threshold   SHORT_XOR, LONG_XOR, TOKENS and PICTURES below, the same at every depth, for weights
                      N(0, 1 / fan-in); chosen on sequences held out of the training set, as were SG's rates
    subnetworks       SG trains 64, the paper's largest number in table 1, half of them for pictures, as do the variants
                      that begin or end with it. CVX samples 1,024: a frozen subnetwork costs next to nothing
    beta              for XOR "best" on a tenth of the training rows, else BETA of beta_max
    SG                Adam with linear decay, batches of 64, `steps` steps, `tuning` more to finetune; no ramped weights

"best law": CVX on as many columns of the law that `witness_laws` found best. A depth beyond its own is made by relays
on top that copy its spikes (`relayed`): no bit changes.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from bench import harness, paper_figures
from bench.harness import Report, shared_folder
from bench.paper_figures import DEEP, LONGER, SHALLOW, TRAINED_AT, Figures
from bench.variants import Rows, Trained, cvx, sg, spikes_of
from snn.laws import Gaussian, Hyperplanes, StoredTaps, StoredTemplates
from snn.laws.base import WitnessLaw
from snn.network import Layer, Network
from snn.training.spec import TrainingSpec
from solver_service import ReadoutRegressor
from solver_service.path import Choice
from spikeloom.tasks import load_task, sequences

BETA = 0.003
GAP_BETA, GAP_TIMESTEPS = 0.01, 5
RELAY_THRESHOLD = 0.25  # below the half by which a copied spike exceeds the bias


class Size(NamedTuple):
    """What a trial has less of. rows: training sequences, of images `images`; tests: sequences asked."""

    seeds: tuple[int, ...] = (0, 1, 2)
    width: int = 8
    columns: int = 1024
    subnetworks: int = 64
    steps: int = 600
    tuning: int = 300
    rows: int = 4096
    images: int = 20_000
    tests: int = 2048


FULL = Size()
TRIAL = Size((0,), 4, 96, 8, 12, 6, 256, 600, 256)


class Neuron(NamedTuple):
    leak: float
    threshold: float


SHORT_XOR, LONG_XOR = Neuron(leak=0.5, threshold=0.25), Neuron(leak=0.9, threshold=0.5)  # T = 5; above
TOKENS = Neuron(leak=0.1, threshold=0.25)
PICTURES = Neuron(leak=0.8, threshold=0.0625)
SHALLOW_RATE, DEEP_RATE = 0.01, 0.003  # of SG at depth 3, and beyond

Question = Callable[[Trained], float]


class Made(NamedTuple):
    """A task for one seed: rows to train on, and what is asked afterwards, by the name that a case gets for it."""

    train: Rows
    asked: dict[str, Question]


class Arrays(NamedTuple):
    """inputs [N, T, m], classes [N]."""

    inputs: npt.NDArray
    targets: npt.NDArray


class Cell(NamedTuple):
    """paper: by the question and by the variant; a kind's best stands under CVX and SG."""

    task: str
    depth: int
    make: Callable[[Size, int], Made]
    neuron: Neuron
    variants: tuple[str, ...]
    relative_beta: float | Choice = BETA
    best: Callable[[Rows], WitnessLaw] | None = None
    paper: Mapping[str, Mapping[str, float]] = {}


CVX_AND_SG = ("CVX", "SG")
FROZEN = (*CVX_AND_SG, "SG-CVX")
ALL = (*FROZEN, "SG-SG", "CVX-SG")


def run(report: Report) -> None:
    size, cells = (TRIAL, trial()) if report.quick else (FULL, every())
    cells = [cell for cell in cells if report.wants(f"{cell.task}, depth {cell.depth}")]
    report.say(f"surrogate gradients will take about {estimate(cells, size) / 60:.0f} min of this, most of it")
    for subnetworks in paper_figures.GAP:
        if report.wants(f"gap, first-last XOR, {subnetworks} subnetworks"):
            gap(report, size, subnetworks)
    for cell in cells:
        table(report, cell, size)


def every() -> list[Cell]:
    longer = {T: figures for T, figures in paper_figures.XOR_TIMESTEPS.items() if T > 5}
    return [
        *(xor(5, depth, figures) for depth, figures in paper_figures.XOR_DEPTHS.items()),
        *(xor(timesteps, SHALLOW, figures) for timesteps, figures in longer.items()),
        xor(20, DEEP, paper_figures.XOR_DEEP_AND_LONG),
        *(added(base, depth) for depth in (SHALLOW, DEEP) for base in (2, 3, 5)),
        *(scaled(rows) for rows in paper_figures.SCALING),
        *(rows_of_pixels("MNIST", depth, figures) for depth, figures in paper_figures.MNIST_DEPTHS.items()),
        *(patches("MNIST", side, figures) for side, figures in paper_figures.MNIST_PATCHES.items()),
    ]  # fmt: skip


def trial() -> list[Cell]:
    return [
        xor(5, SHALLOW, paper_figures.XOR_DEPTHS[SHALLOW]),
        xor(5, DEEP, paper_figures.XOR_DEPTHS[DEEP]),
        added(3, SHALLOW),
        scaled(512),
        rows_of_pixels("digits", SHALLOW),
        patches("digits", 2),
    ]


def xor(timesteps: int, depth: int, figures: Figures) -> Cell:
    def make(size: Size, seed: int) -> Made:
        train, test = (
            Rows.of(*_xor_arrays(count, timesteps, 2 * seed + part), 2)
            for part, count in enumerate((size.rows, size.tests))
        )
        return Made(train, {"": lambda trained: trained.accuracy(test)})

    task = f"first-last XOR, T = {timesteps}"
    return Cell(
        task,
        depth,
        make,
        SHORT_XOR if timesteps <= 5 else LONG_XOR,
        ALL,
        "best",
        lambda _: StoredTaps(),
        {"": _of_kinds(figures)},
    )


def _xor_arrays(count: int, timesteps: int, seed: int) -> Arrays:
    data = sequences.first_last_xor(count, timesteps, seed)
    assert data.targets is not None
    return Arrays(data.inputs, data.targets)


def added(base: int, depth: int) -> Cell:
    lengths = (TRAINED_AT, *LONGER) if depth == SHALLOW and base in paper_figures.LENGTHS else (TRAINED_AT,)

    def make(size: Size, seed: int) -> Made:
        tests = {f", length {length}": _addition(base, size.tests, length, 2 * seed + 1) for length in lengths}
        return Made(
            _addition(base, size.rows, TRAINED_AT, 2 * seed),
            {name: partial(_tokens_right, test=test) for name, test in tests.items()},
        )

    of_kinds = {f", length {TRAINED_AT}": _of_kinds(paper_figures.ADDITION[depth][base])}
    of_variants = {
        f", length {length}": {variant: found[at] for variant, found in paper_figures.LENGTHS[base].items()}
        for at, length in enumerate(lengths)
        if len(lengths) > 1
    }
    variants = ALL if depth == SHALLOW else FROZEN
    return Cell(
        f"addition base {base}", depth, make, TOKENS, variants,
        best=lambda _: Hyperplanes(), paper=of_kinds | of_variants,
    )  # fmt: skip


def scaled(rows: int) -> Cell:
    def make(size: Size, seed: int) -> Made:
        test = _addition(2, size.tests, TRAINED_AT, 2 * seed + 1)
        asked: dict[str, Question] = {
            ", tokens": partial(_tokens_right, test=test),
            ", sequences": lambda trained: float(trained.right_with_own_carry(test).all(axis=1).mean()),
        }
        return Made(_addition(2, rows, TRAINED_AT, 2 * seed), asked)

    paper = {
        ", tokens": _of_kinds(paper_figures.SCALING_TOKENS[rows]),
        ", sequences": _of_kinds(paper_figures.SCALING[rows]),
    }
    return Cell(f"addition base 2, {rows} to train on", SHALLOW, make, TOKENS, CVX_AND_SG, paper=paper)


def rows_of_pixels(name: str, depth: int, figures: Figures | None = None) -> Cell:
    return _pictures(name, "rows", depth, lambda images: images, figures)


def patches(name: str, side: int, figures: Figures | None = None) -> Cell:
    """Square patches of so many pixels, one a timestep, row by row of patches."""

    def cut(images: npt.NDArray) -> npt.NDArray:
        count, height, _ = images.shape
        blocks = images.reshape(count, height // side, side, height // side, side).swapaxes(2, 3)
        return blocks.reshape(count, -1, side * side)

    return _pictures(name, f"patches of {side} x {side}", SHALLOW, cut, figures)


def _pictures(
    name: str, how: str, depth: int, cut: Callable[[npt.NDArray], npt.NDArray], figures: Figures | None
) -> Cell:
    train, test = _images(name)
    timesteps = cut(train.inputs[:1]).shape[1]
    side = 3 if name == "digits" else 6

    def make(size: Size, seed: int) -> Made:
        chosen = np.random.default_rng(seed).permutation(len(train.inputs))[: size.images]
        held_out = Rows.of(cut(test.inputs), test.targets, 10)
        rows = Rows.of(cut(train.inputs[chosen]), train.targets[chosen], 10)
        return Made(rows, {"": lambda trained: trained.accuracy(held_out)})

    def templates(rows: Rows) -> WitnessLaw:
        return StoredTemplates(side_min=side, side_max=2 * side - 1).calibrated(rows.inputs.numpy())

    return Cell(
        f"{name} in {how}, T = {timesteps}", depth, make, PICTURES, FROZEN,
        best=templates if how == "rows" else None, paper={"": _of_kinds(figures)} if figures else {},
    )  # fmt: skip


def _of_kinds(figures: Figures) -> dict[str, float]:
    """Beside each variant the paper's best of its kind; CVX-SG is of neither."""
    return {"CVX": figures.cvx, "SG-CVX": figures.cvx, "SG": figures.sg, "SG-SG": figures.sg}


@cache
def _images(name: str) -> tuple[Arrays, Arrays]:
    """MNIST; for a trial the digits of scikit-learn, which everybody has."""
    task = load_task("digits", None) if name == "digits" else load_task("mnist-rows", shared_folder("mnist"))
    train, test = (Arrays(part.inputs, np.asarray(part.targets)) for part in (task.train, task.test))
    return train, test


def _addition(base: int, count: int, length: int, seed: int) -> Rows:
    data = sequences.addition(count, base, length, seed)
    assert data.targets is not None
    return Rows.of(data.inputs, data.targets, base, 2)


def _tokens_right(trained: Trained, test: Rows) -> float:
    return float(trained.right_with_own_carry(test).mean())


def table(report: Report, cell: Cell, size: Size) -> None:
    """A row for each variant and question."""
    found: dict[tuple[str, str], list[float]] = {}
    for seed in size.seeds:
        made = cell.make(size, seed)
        for variant, trained in variants(cell, size, seed, made.train):
            report.say(f"{cell.task}, depth {cell.depth}, seed {seed}: {variant}")
            for question, ask in made.asked.items():
                found.setdefault((question, variant), []).append(ask(trained))
    for (question, variant), values in found.items():
        case = f"{cell.task}, depth {cell.depth}{question}: {variant}"
        figures = cell.paper.get(question, {})
        peer = "CVX" if variant == "best law" else variant
        report.add(
            case, "accuracy", "of 1", float(np.mean(values)),
            runs=len(values), peer=f"paper {peer}" if peer in figures else None, peer_value=figures.get(peer),
            better="more", curve=list(zip(map(float, size.seeds), values, strict=True)),
        )  # fmt: skip
        if len(values) > 1:
            report.add(case, "spread", "of 1", float(np.std(values)), runs=len(values))


def variants(cell: Cell, size: Size, seed: int, rows: Rows) -> Iterator[tuple[str, Trained]]:
    """What each of the cell's variants makes of the rows."""

    def sampled(count: int) -> Network:
        return _law(cell, size).sample(seed, range(count), rows.grid.timesteps, rows.grid.features)

    def solved(start: Network | Trained) -> Trained:
        return cvx(start, rows, cell.relative_beta)

    def trained(start: Network | Trained, steps: int) -> Trained:
        return sg(start, rows, _training(cell, steps, seed))

    few = cache(lambda: sampled(_trained_ones(cell, size)))
    pretrained = cache(lambda: trained(few(), size.steps))
    made: dict[str, Callable[[], Trained]] = {
        "CVX": lambda: solved(sampled(size.columns)),
        "SG": pretrained,
        "SG-CVX": lambda: solved(pretrained()),
        "SG-SG": lambda: trained(pretrained(), size.tuning),
        "CVX-SG": lambda: trained(solved(few()), size.tuning),
    }
    for variant in cell.variants:
        yield variant, made[variant]()
    if cell.best is not None:
        law = cell.best(rows)
        network = law.sample(seed, range(size.columns), rows.grid.timesteps, rows.grid.features)
        yield "best law", solved(relayed(network, cell.depth))


def _law(cell: Cell, size: Size) -> Gaussian:
    hidden = (size.width,) * (cell.depth - 1)
    return Gaussian(widths=hidden, leak=cell.neuron.leak, threshold=cell.neuron.threshold)


def _trained_ones(cell: Cell, size: Size) -> int:
    return size.subnetworks // (2 if cell.neuron is PICTURES else 1)


def _training(cell: Cell, steps: int, seed: int) -> TrainingSpec:
    rate = SHALLOW_RATE if cell.depth == SHALLOW else DEEP_RATE
    return TrainingSpec(rounds=steps, local_steps=1, learning_rate=rate, seed=seed)


def relayed(network: Network, depth: int) -> Network:
    """The network with relays on top, as many layers as it lacks of `depth`: leak 0, weight 1, bias -1/2, so that
    u[t] = s[t] - 1/2 - threshold s[t-1], which is at least 0 where the column below fires and nowhere else."""
    count = len(network[-1].bias)
    every = torch.ones(count)
    relay = Layer(torch.ones(count, 1, 1), -0.5 * every, 0 * every, RELAY_THRESHOLD * every)
    return (*network, *[relay] * (depth - len(network)))


def gap(report: Report, size: Size, subnetworks: int) -> None:
    """Squared loss, classes -1 and 1, l1."""
    paper = paper_figures.GAP[subnetworks]
    cell = xor(GAP_TIMESTEPS, SHALLOW, paper_figures.XOR_TIMESTEPS[GAP_TIMESTEPS])
    right, readouts = [], []
    for seed in size.seeds:
        rows, test = (
            Rows.of(*_xor_arrays(count, GAP_TIMESTEPS, 2 * seed + part), 2)
            for part, count in enumerate((size.rows, size.tests))
        )
        network = _law(cell, size).sample(seed, range(subnetworks), GAP_TIMESTEPS, 1)
        readout = ReadoutRegressor(penalty="l1", relative_beta=GAP_BETA)
        readout.fit(spikes_of(network, rows).numpy(), 2.0 * rows.classes[:, 0] - 1)
        said = readout.predict(spikes_of(network, test).numpy()) > 0
        right.append(float((said == test.classes[:, 0]).mean()))
        readouts.append(readout)
    case, runs = f"gap, first-last XOR, {subnetworks} subnetworks", len(size.seeds)
    report.add(
        case, "accuracy", "of 1", float(np.mean(right)), runs=runs, peer="paper CVX", peer_value=paper.accuracy,
        better="more", curve=list(zip(map(float, size.seeds), right, strict=True)),
    )  # fmt: skip
    report.add(case, "primal", "", float(np.mean([one.primal_ for one in readouts])), runs=runs)
    report.add(case, "dual", "", float(np.mean([one.dual_ for one in readouts])), runs=runs)
    report.add(case, "largest relative gap", "", max(one.relative_gap_ for one in readouts), runs=runs)


def estimate(cells: list[Cell], size: Size) -> float:
    """Seconds of all steps by surrogate gradients, from one step of each cell."""
    seconds = 0.0
    for cell in cells:
        rows = cell.make(size, 0).train
        network = _law(cell, size).sample(0, range(_trained_ones(cell, size)), rows.grid.timesteps, rows.grid.features)
        tunings = sum(variant in ("SG-SG", "CVX-SG") for variant in cell.variants)
        sg(network, rows, _training(cell, 1, 0))  # what only the first one takes
        begun = time.perf_counter()
        sg(network, rows, _training(cell, 1, 0))
        seconds += (time.perf_counter() - begun) * (size.steps + tunings * size.tuning) * len(size.seeds)
    return seconds


if __name__ == "__main__":
    harness.main("paper", run, cores=1, by_case=True)

"""The ladder of witness laws: what each law's dictionary is worth, task by task, with the same convex readout on top.

A case is a task and a law. For each of the seeds a dictionary is rolled out on training sequences, a readout is solved
on it to a relative gap of 1e-6, and sequences that neither has seen are answered:

    first-last XOR    final spikes; squared loss, l1
    MNIST             final spikes, rows of 28 pixels (T = 28) or pixel after pixel (T = 784); multinomial, ridge
    addition          spikes at every timestep, digit and carry; squared loss, group; trained at length 10. A token is
                      right where both are. With the carry as input the network goes on with its own carries
    running parity    spikes at every timestep; squared loss, l1; trained at length 10

Accuracy is the mean over the seeds, of witnesses and of data that is made; the points of `curve` are (seed, accuracy).
Beside it: the firing rate of the columns on training rows, the shares of silent and saturated ones, how many differ and
are not constant, seconds of roll-out and of solve. beta is chosen on a tenth of the training rows that is held out, for
MNIST once and for all on 6,000 training digits (`MNIST_BETA`). The peer's figures are the paper's.
"""

import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter

import spikeloom.data
from bench import harness, paper_figures
from bench.harness import Report, shared_folder
from bench.paper_figures import ADDITION, SHALLOW, TRAINED_AT
from snn import activity, engine, fused, lif
from snn.encoding import to_codes
from snn.laws import Law
from snn.laws.base import WitnessLaw
from snn.model import ModelSpec, parse_model
from solver_service import ReadoutClassifier, ReadoutRegressor
from spikeloom.tasks import load_task, sequences

SEEDS = (0, 1, 2)
XOR_ROWS, XOR_TESTS, XOR_COLUMNS = 2048, 4096, 2048
TOKEN_ROWS, TOKEN_TESTS = 1000, 500  # sequences of `TRAINED_AT` digits or bits
MNIST_BETA = 0.003  # of ridge at .01 and .003, group at .003 and .001; `stored_templates` at 4,096 columns
PIXEL_ROWS = 20_000  # training digits of laws whose columns must be rolled out pixel by pixel
BLOCK = 256  # sequences stepped at a time
WITNESSES = 1024  # sampled and stepped at a time: templates take 100 MB then

PAPER = (
    {f"first-last XOR, T = {timesteps}": figures for timesteps, figures in paper_figures.XOR_TIMESTEPS.items()}
    | {"MNIST, rows": paper_figures.MNIST_DEPTHS[SHALLOW]}
    | {f"addition base {base}, length {TRAINED_AT}": found for base, found in ADDITION[SHALLOW].items()}
    | {f"addition base {base}, length 100": paper_figures.best(base, 100) for base in paper_figures.LENGTHS}
)

Bits = npt.NDArray[np.bool_]
Answer = Callable[[Bits], npt.NDArray[np.float64]]


class Data(NamedTuple):
    """inputs: [N, T, m]; targets: classes [N], or [N, T, heads]."""

    inputs: npt.NDArray
    targets: npt.NDArray


class Rung(NamedTuple):
    """A law with its parameters, as the table names it, and how many witnesses are drawn."""

    name: str
    law: dict[str, Any]
    columns: int


class Measured(NamedTuple):
    """accuracy: of each case that the readout was asked; dictionary: the columns on training rows [N, P]."""

    accuracy: dict[str, float]
    dictionary: Bits
    roll_out: float
    solve: float


GAUSSIAN: dict[str, Any] = {"name": "gaussian"}
LONG_LEAKS = {
    "name": "heterogeneous", "scale": 1.2, "bias": 1.0, "decay": [0.001, 0.3], "threshold": [0.2, 5.0],
}  # fmt: skip
SHORT_LEAKS = {
    "name": "heterogeneous", "scale": 3.0, "bias": 3.0, "decay": [0.3, 0.9], "threshold": [0.02, 1.0],
}  # fmt: skip

LOCAL_FIELDS = {
    "name": "heterogeneous", "scale": 3.0, "bias": 0.2, "decay": [0.02, 0.5], "threshold": [0.003, 0.3],
    "fields": [4, 14],
}  # fmt: skip

SMALL_TEMPLATES: dict[str, Any] = {"name": "stored_templates", "side_min": 3, "side_max": 5}


def run(report: Report) -> None:
    quick, seeds = report.quick, SEEDS[:1] if report.quick else SEEDS
    for timesteps in (5, 10) if quick else (5, 10, 15, 20, 30):
        ladder(report, xor_rungs(quick), seeds, partial(xor, timesteps=timesteps))
    for base in (2,) if quick else (2, 3, 5):
        ladder(report, addition_rungs(quick), seeds, partial(added, base=base))
        ladder(report, memory_rungs(base, quick), seeds, partial(remembered, base=base))
    ladder(report, parity_rungs(quick), seeds, parity)
    ladder(report, row_rungs(quick), seeds, partial(rows, quick=quick))
    ladder(report, pixel_rungs(quick), seeds, partial(pixels, quick=quick))


def addition_rungs(quick: bool) -> list[Rung]:
    columns = 64 if quick else 512
    return [Rung("gaussian", GAUSSIAN, columns), Rung("hyperplanes", {"name": "hyperplanes"}, columns)]


def memory_rungs(base: int, quick: bool) -> list[Rung]:
    columns = 128 if quick else 1024
    return [
        Rung("gaussian", GAUSSIAN, columns),
        Rung("gaussian, recurrent", GAUSSIAN | {"recurrent": 1.0, "leak": 0.0}, columns),
        Rung("heterogeneous", SHORT_LEAKS, columns),
        Rung("hubs", {"name": "hubs", "weight": base - 1, "top": 2 * base}, columns),
    ]


def parity_rungs(quick: bool) -> list[Rung]:
    columns = 128 if quick else 1024
    return [
        Rung("gaussian", GAUSSIAN, columns),
        Rung("gaussian, recurrent", GAUSSIAN | {"recurrent": 1.0}, columns),
        Rung("heterogeneous", LONG_LEAKS, columns),
        Rung("counters", {"name": "counters"}, 64),
    ]


def xor_rungs(quick: bool) -> list[Rung]:
    columns = XOR_COLUMNS // 4 if quick else XOR_COLUMNS
    taps = Rung("stored_taps", {"name": "stored_taps"}, columns)
    return [Rung("gaussian", GAUSSIAN, columns), Rung("heterogeneous", LONG_LEAKS, columns), taps]


def row_rungs(quick: bool) -> list[Rung]:
    gaussian = GAUSSIAN | {"scale": 5.0}  # W ~ N(0, 1), near enough
    if quick:
        return [Rung("gaussian", gaussian, 256), Rung("stored_templates", SMALL_TEMPLATES, 256)]
    templates: dict[str, Any] = {"name": "stored_templates"}
    return [
        Rung("gaussian", gaussian, 2048),
        Rung("calibrated", {"name": "calibrated"}, 2048),
        Rung("heterogeneous", {"name": "heterogeneous", "scale": 5.0}, 2048),
        Rung("heterogeneous, fields", LOCAL_FIELDS, 2048),
        Rung("local_integrators", {"name": "local_integrators"}, 2048),
        Rung("stored_templates, no shifts", templates | {"shifts": 0}, 4096),
        Rung("stored_templates, smooth", templates | {"pattern": "smooth"}, 4096),
        Rung("stored_templates", templates, 4096),
        Rung("stored_templates, 25 shifts", templates | {"shifts": 2}, 4096),
    ]


def pixel_rungs(quick: bool) -> list[Rung]:
    columns = 256 if quick else 2048
    templates = SMALL_TEMPLATES | {"width": 8} if quick else {"name": "stored_templates", "width": 28}
    return [
        Rung("gaussian", GAUSSIAN, columns),
        Rung("heterogeneous", LONG_LEAKS, columns),
        Rung("stored_templates", templates, columns),
    ]


def ladder(report: Report, rungs: list[Rung], seeds: tuple[int, ...], measure: Callable[[Rung, int], Measured]) -> None:
    """A row for each figure of each law."""
    for rung in rungs:
        found = [measure(rung, seed) for seed in seeds]
        for task in found[0].accuracy:
            case, values = f"{task}: {rung.name}", [each.accuracy[task] for each in found]
            curve = [(float(seed), value) for seed, value in zip(seeds, values, strict=True)]
            peers = zip(("paper CVX", "paper SG"), PAPER.get(task, ()), strict=False)
            told: list[tuple[str | None, float | None]] = [*peers] or [(None, None)]
            for peer, value in told:
                report.add(
                    case, "accuracy", "of 1", float(np.mean(values)),
                    runs=len(seeds), peer=peer, peer_value=value, better="more", curve=curve,
                )  # fmt: skip
        for metric, unit, value in _figures(found):
            report.add(case, metric, unit, value, runs=len(seeds))


def _figures(found: list[Measured]) -> Iterator[tuple[str, str, float]]:
    """Of the dictionaries: the mean over the seeds."""
    counts = [each.dictionary.sum(axis=0) for each in found]
    rows = len(found[0].dictionary)
    lively = [each.dictionary[:, (n > 0) & (n < rows)] for each, n in zip(found, counts, strict=True)]
    shares = [(n.mean() / rows, (n == 0).mean(), (n == rows).mean(), len(n)) for n in counts]
    rate, silent, saturated, columns = np.mean(shares, axis=0).tolist()
    yield "columns", "", columns
    yield "distinct", "", float(np.mean([activity.distinct(each) for each in lively]))
    yield "firing rate", "of 1", rate
    yield "silent", "of 1", silent
    yield "saturated", "of 1", saturated
    yield "roll-out", "s", float(np.mean([each.roll_out for each in found]))
    yield "solve", "s", float(np.mean([each.solve for each in found]))


def xor(rung: Rung, seed: int, timesteps: int) -> Measured:
    train = _made(sequences.first_last_xor(XOR_ROWS, timesteps, 2 * seed))
    test = _made(sequences.first_last_xor(XOR_TESTS, timesteps, 2 * seed + 1))
    spec = model(rung, seed, train, bits=0)
    begun = time.perf_counter()
    columns = final(spec, train.inputs)
    rolled_out = time.perf_counter()
    answer = squared(columns, train.targets[:, None])
    solved = time.perf_counter()
    right = (answer(final(spec, test.inputs))[:, 0] > 0.5) == test.targets
    task = f"first-last XOR, T = {timesteps}"
    return Measured({task: right.mean()}, columns, rolled_out - begun, solved - rolled_out)


def parity(rung: Rung, seed: int) -> Measured:
    def make(count: int, timesteps: int, seed: int) -> Data:
        return _made(sequences.running_parity(count, timesteps, seed))

    def right(scores: npt.NDArray, targets: npt.NDArray) -> Bits:
        return (scores[..., 0] > 0.5) == targets[..., 0]

    return _every_step(rung, seed, make, lambda targets: targets, right, "running parity", (10, 30, 100))


def remembered(rung: Rung, seed: int, base: int) -> Measured:
    """Addition without the carry as input."""

    def make(count: int, timesteps: int, seed: int) -> Data:
        return _made(sequences.addition(count, base, timesteps, seed, carry_input=False))

    def right(scores: npt.NDArray, targets: npt.NDArray) -> Bits:
        return (_tokens(scores) == targets).all(axis=-1)

    return _every_step(
        rung, seed, make, _digit_and_carry(base), right, f"addition base {base} without carry", (10, 100)
    )


def _every_step(
    rung: Rung,
    seed: int,
    make: Callable[[int, int, int], Data],
    as_targets: Callable[[npt.NDArray], npt.NDArray],
    right: Callable[[npt.NDArray, npt.NDArray], Bits],
    task: str,
    lengths: tuple[int, ...],
) -> Measured:
    """Trained at the first length, asked at every one; accuracy over all timesteps."""
    train = make(TOKEN_ROWS, lengths[0], 2 * seed)
    begun = time.perf_counter()
    columns = every_step(model(rung, seed, train), train.inputs)
    rolled_out = time.perf_counter()
    targets = as_targets(train.targets)
    answer = squared(columns.reshape(-1, rung.columns), targets.reshape(-1, targets.shape[-1]))
    solved = time.perf_counter()
    accuracy = {}
    for length in lengths:
        test = make(TOKEN_TESTS, length, 2 * seed + 1)
        spikes = every_step(model(rung, seed, test), test.inputs)
        scores = answer(spikes.reshape(-1, rung.columns)).reshape(*spikes.shape[:2], -1)
        accuracy[f"{task}, length {length}"] = float(right(scores, test.targets).mean())
    return Measured(accuracy, columns.reshape(-1, rung.columns), rolled_out - begun, solved - rolled_out)


def added(rung: Rung, seed: int, base: int) -> Measured:
    """Addition with the carry as input: trained on true carries, asked with those that it predicted itself."""
    train = _made(sequences.addition(TOKEN_ROWS, base, TRAINED_AT, 2 * seed))
    begun = time.perf_counter()
    columns = every_step(model(rung, seed, train), train.inputs).reshape(-1, rung.columns)
    rolled_out = time.perf_counter()
    targets = _digit_and_carry(base)(train.targets)
    answer = squared(columns, targets.reshape(-1, base + 1))
    solved = time.perf_counter()
    accuracy = {}
    for length in (TRAINED_AT, 10 * TRAINED_AT):
        test = _made(sequences.addition(TOKEN_TESTS, base, length, 2 * seed + 1))
        network = fused.Prepared(model(rung, seed, test).network(range(rung.columns)))
        state, right = lif.initial_state(network, TOKEN_TESTS), []
        carry = np.zeros(TOKEN_TESTS)
        for t in range(length):
            heard = test.inputs[:, t : t + 1].copy()
            heard[:, 0, 2] = carry
            result = fused.roll_out(torch.tensor(heard, dtype=torch.float32), state, network)
            state, tokens = result.state, _tokens(answer(result.spikes.numpy()))
            right.append((tokens == test.targets[:, t]).all(axis=1))
            carry = tokens[:, 1].astype(np.float64)
        accuracy[f"addition base {base}, length {length}"] = float(np.mean(right))
    return Measured(accuracy, columns, rolled_out - begun, solved - rolled_out)


def _digit_and_carry(base: int) -> Callable[[npt.NDArray], npt.NDArray]:
    """Targets [..., 2] as one-hot digits and the carry [..., base + 1]."""
    return lambda targets: np.concatenate([np.eye(base)[targets[..., 0]], targets[..., 1:]], axis=-1)


def _tokens(scores: npt.NDArray) -> npt.NDArray[np.int64]:
    """Digit and carry [..., 2] from scores [..., base + 1]."""
    return np.stack([scores[..., :-1].argmax(axis=-1), scores[..., -1] > 0.5], axis=-1)


def rows(rung: Rung, seed: int, quick: bool) -> Measured:
    """Images, a row of pixels a timestep."""
    name, train, test = _images(quick)
    spec = model(rung, seed, train)
    return _digits(f"{name}, rows", spec, train, test.targets, lambda: final(spec, test.inputs))


def pixels(rung: Rung, seed: int, quick: bool) -> Measured:
    """One pixel after another. Stored templates see in single pixels the bits that they see in rows: their dictionary
    is that of the rows, which is checked, so that only what is asked is rolled out pixel by pixel."""
    name, train, test = _images(quick)
    one_by_one, asked = (Data(part.inputs.reshape(len(part.inputs), -1, 1), part.targets) for part in (train, test))
    spec = model(rung, seed, one_by_one)
    if rung.law["name"] == "stored_templates":
        of_rows = model(rung, seed, train)
        if not np.array_equal(final(spec, one_by_one.inputs[:BLOCK]), final(of_rows, train.inputs[:BLOCK])):
            raise harness.BenchError("expected the columns of single pixels to be those of rows, got others")
        return _digits(f"{name}, pixels", of_rows, train, test.targets, lambda: final(spec, asked.inputs))
    return _digits(
        f"{name}, pixels", spec, _first(one_by_one, PIXEL_ROWS), test.targets, lambda: final(spec, asked.inputs)
    )


def _digits(task: str, spec: ModelSpec, train: Data, classes: npt.NDArray, asked: Callable[[], Bits]) -> Measured:
    begun = time.perf_counter()
    columns = final(spec, train.inputs)
    rolled_out = time.perf_counter()
    readout = ReadoutClassifier(penalty="ridge", relative_beta=MNIST_BETA)
    readout.fit(columns.view(np.uint8), train.targets)
    solved = time.perf_counter()
    right = readout.predict(asked().view(np.uint8)) == classes
    return Measured({task: float(right.mean())}, columns, rolled_out - begun, solved - rolled_out)


@cache
def _images(quick: bool) -> tuple[str, Data, Data]:
    """MNIST; for a trial the digits of scikit-learn, which everybody has."""
    task = load_task("digits", None) if quick else load_task("mnist-rows", shared_folder("mnist"))
    return "digits" if quick else "MNIST", _made(task.train), _made(task.test)


def _made(data: spikeloom.data.Data) -> Data:
    assert data.targets is not None
    return Data(data.inputs, data.targets)


def _first(data: Data, count: int) -> Data:
    return Data(data.inputs[:count], data.targets[:count])


def model(rung: Rung, seed: int, data: Data, bits: int = 8) -> ModelSpec:
    """Witnesses for sequences like `data`, from which the law takes its statistics if it has any."""
    law: WitnessLaw = TypeAdapter(Law).validate_python(rung.law)
    if type(law).calibrated is not WitnessLaw.calibrated:
        law = law.calibrated(data.inputs)
    _, timesteps, features = data.inputs.shape
    end_pulse = rung.law["name"] == "local_integrators"
    return parse_model({
        "model": "bench",
        "input": {"timesteps": timesteps, "features": features, "bits": bits, "end_pulse": end_pulse},
        "witnesses": {"law": law.model_dump(), "seed": seed, "count": rung.columns},
        "readout": {"outputs": 2},
    })  # fmt: skip


def final(spec: ModelSpec, inputs: npt.NDArray) -> Bits:
    """Spikes [N, P] at the last timestep."""
    columns = np.empty((len(inputs), spec.witnesses.count), np.bool_)
    for first in range(0, spec.witnesses.count, WITNESSES):
        ids = range(first, min(first + WITNESSES, spec.witnesses.count))
        network = engine.on_device(spec, ids)
        for top in range(0, len(inputs), BLOCK):
            codes = to_codes(inputs[top : top + BLOCK], spec.input)
            columns[top : top + BLOCK, ids.start : ids.stop] = engine.final_spikes(codes, spec.input, network)
    return columns


def every_step(spec: ModelSpec, inputs: npt.NDArray) -> Bits:
    """Spikes [N, T, P]."""
    network = fused.Prepared(spec.network(range(spec.witnesses.count)))
    x = engine.to_inputs(to_codes(inputs, spec.input), spec.input)
    return fused.roll_out(x, lif.initial_state(network, len(x)), network, every_step=True).spikes.numpy()


def squared(columns: Bits, targets: npt.NDArray) -> Answer:
    """Scores [N, C] of new columns, after a fit to the targets [N, C]."""
    readout = ReadoutRegressor(penalty="l1" if targets.shape[1] == 1 else "group", relative_beta="best")
    readout.fit(columns.view(np.uint8), targets)
    if readout.relative_gap_ > readout.tolerance:
        raise harness.BenchError(f"expected a gap of {readout.tolerance}, got {readout.relative_gap_}")
    return lambda asked: readout.predict(asked.view(np.uint8)).reshape(len(asked), -1)


if __name__ == "__main__":
    harness.main("witness_laws", run, cores=1)

"""Time to accuracy  T(Es; p) = inf { t : P(A_t >= p) >= p }  of every trainer, in updates, samples and seconds.

Each seed is a stream of labelled sequences, each of which comes once, and a set of held-out ones on which A_t is
measured after 96, 144, 192, 288, 384, ... sequences. The probability is over the seeds, with five of which p = 0.9
asks for all. A T that is infinite is left out. The trainers, on the same witnesses:

    CVX       frozen witnesses; the readout is solved anew, to a relative gap of 1e-6, over all that came so far
    SG        a step of Adam for each BATCH sequences, witnesses and readout together
    SG-CVX    SG, and at each measurement the readout that is optimal over its witnesses, over all that came so far
    CVX-SG    CVX over the first SOLVED_AT sequences, then SG from there
    Hebbian   parity only: the emotion-driven rule and the network of `bench.parity`

SG-SG is SG that goes on, and so is not a trainer of its own here. An update is a solve, a step, or a number from which
the Hebbian rule learnt something. Seconds are those of training, of CPU time but for the Hebbian rule's: SG's
steps; for CVX every roll-out and solve up to then, over all rows each time. A trainer's first moment on each task comes
once before, untimed: Numba compiles then. The tasks, with held-out accuracy:

    first-last XOR    witnesses that differ in leak and threshold
    addition          base 3, with the carry as input; tokens right with the network's own carries
    MNIST             rows; local fields
    parity            of the one-hot numbers below 32, drawn at random; there are no others to hold out

Witness laws are those of `witness_laws`; SG's learning rate is RATE for all. beta is 0.003 of beta_max.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from bench import harness, parity
from bench.harness import Report, shared_folder
from bench.variants import Rows, Trained, cvx, sg_by_portions
from bench.witness_laws import GAUSSIAN, LOCAL_FIELDS, LONG_LEAKS
from snn.laws import Law
from snn.laws.base import WitnessLaw
from snn.network import Network
from snn.training.hebbian import HebbianSpec
from snn.training.spec import TrainingSpec
from snn.training.time_to_accuracy import Run, time_to_accuracy
from spikeloom.data import Data
from spikeloom.tasks import load_task, sequences

PS = (0.5, 0.7, 0.9, 0.95, 0.99)
BATCH = 16
FIRST = 96  # sequences until the first measurement: with fewer, a digit may not have come yet
SOLVED_AT = 192  # of CVX-SG
FIELDS_OF_DIGITS = LOCAL_FIELDS | {"fields": [2, 6]}
RATE, BETA = 0.01, 0.003
CLOCKS = ("updates", "samples", "seconds")
PARITY = "parity of 32, one-hot"
HEBBIAN = f"{PARITY}: Hebbian"


class Size(NamedTuple):
    """limit: sequences of a stream; tests: held-out ones."""

    seeds: int
    limit: int
    columns: int
    tests: int


FULL, TRIAL = Size(5, 12_288, 512, 2000), Size(2, 384, 64, 200)


class Stream(NamedTuple):
    """rows in the order in which they come; accuracy: on held-out sequences."""

    rows: Rows
    accuracy: Callable[[Trained], float]
    witnesses: Network


class Moment(NamedTuple):
    """What a trainer has after so many samples and updates; seconds: of the work since the last moment."""

    samples: int
    updates: int
    seconds: float
    trained: Trained


class Clocked(NamedTuple):
    """A run's clocks and accuracy at each measurement [K]."""

    updates: npt.NDArray[np.integer]
    samples: npt.NDArray[np.integer]
    seconds: npt.NDArray[np.floating]
    accuracy: npt.NDArray[np.float64]


def run(report: Report) -> None:
    size = TRIAL if report.quick else FULL
    pictures = "digits" if report.quick else "MNIST"
    streams: dict[str, Callable[[int], Stream]] = {
        "first-last XOR, T = 5": lambda seed: xor(size, 5, seed),
        "first-last XOR, T = 10": lambda seed: xor(size, 10, seed),
        "addition base 3": lambda seed: addition(size, 3, seed),
        f"{pictures} in rows": lambda seed: rows_of_pixels(size, pictures, seed),
        PARITY: lambda seed: numbers(size, seed),
    }
    for task, stream in streams.items():
        for trainer, train in TRAINERS.items():
            if report.wants(case := f"{task}: {trainer}"):
                next(train(stream(0), 0))
                add(report, case, [clocked(train, stream(seed), seed) for seed in range(size.seeds)])
    if report.wants(HEBBIAN):
        add(report, HEBBIAN, hebbian(size))


def hebbian(size: Size) -> list[Clocked]:
    one_hot = next(task for task in parity.tasks(parity.STEPS) if task.name.startswith("32-8-2"))
    specs = [HebbianSpec(hidden=one_hot.hidden, seed=seed) for seed in range(size.seeds)]
    runs = [parity.train(one_hot, spec, size.limit) for spec in specs]
    return [Clocked(one.updates, one.samples, one.seconds, one.accuracy) for one in runs]


def add(report: Report, case: str, runs: list[Clocked]) -> None:
    """The curve of the first row: mean accuracy over samples."""
    seeds = len(runs)
    mean = np.mean([one.accuracy for one in runs], axis=0)
    curve = list(zip(runs[0].samples.tolist(), mean.tolist(), strict=True))
    report.add(case, "accuracy at the end", "of 1", float(mean[-1]), runs=seeds, curve=curve)
    for p in PS:
        for clock in CLOCKS:
            t = time_to_accuracy([Run(getattr(one, clock), one.accuracy) for one in runs], p)
            if np.isfinite(t):
                report.add(case, f"T(Es; {p:g})", clock, t, runs=seeds)


def clocked(train: "Trainer", stream: Stream, seed: int) -> Clocked:
    found = []
    seconds = 0.0
    for moment in train(stream, seed):
        seconds += moment.seconds
        found.append((moment.updates, moment.samples, seconds, stream.accuracy(moment.trained)))
    updates, samples, taken, accuracy = (np.array(column) for column in zip(*found, strict=True))
    return Clocked(updates, samples, taken, accuracy)


def marks(limit: int) -> list[int]:
    """Numbers of sequences after which accuracy is measured: two to each doubling, all multiples of BATCH."""
    return sorted(
        {n for power in range(limit.bit_length()) for n in (FIRST << power, FIRST * 3 // 2 << power) if n <= limit}
    )


def by_cvx(stream: Stream, _: int) -> Iterator[Moment]:
    for updates, n in enumerate(marks(len(stream.rows.inputs)), start=1):
        yield Moment(n, updates, *timed(partial(cvx, stream.witnesses, first(stream.rows, n), BETA)))


def by_sg(stream: Stream, seed: int) -> Iterator[Moment]:
    return steps(stream.witnesses, stream.rows, 0, seed)


def by_sg_cvx(stream: Stream, seed: int) -> Iterator[Moment]:
    for solves, moment in enumerate(by_sg(stream, seed), start=1):
        seconds, solved = timed(partial(cvx, moment.trained, first(stream.rows, moment.samples), BETA))
        yield Moment(moment.samples, moment.updates + solves, moment.seconds + seconds, solved)


def by_cvx_sg(stream: Stream, seed: int) -> Iterator[Moment]:
    seconds, solved = timed(partial(cvx, stream.witnesses, first(stream.rows, SOLVED_AT), BETA))
    yield Moment(SOLVED_AT, 1, seconds, solved)
    for moment in steps(solved, stream.rows, SOLVED_AT, seed):
        yield moment._replace(updates=moment.updates + 1)


Trainer = Callable[[Stream, int], Iterator[Moment]]
TRAINERS: dict[str, Trainer] = {"CVX": by_cvx, "SG": by_sg, "SG-CVX": by_sg_cvx, "CVX-SG": by_cvx_sg}


def steps(start: Network | Trained, rows: Rows, begin: int, seed: int) -> Iterator[Moment]:
    """Surrogate gradients on the rows from `begin` on."""
    ends = [n for n in marks(len(rows.inputs)) if n > begin]
    order = np.arange(begin, ends[-1]).reshape(-1, BATCH)
    portions = np.split(order, [(n - begin) // BATCH for n in ends[:-1]])
    training = TrainingSpec(rounds=len(order), local_steps=1, learning_rate=RATE, decay="none", batch=BATCH, seed=seed)
    trained = sg_by_portions(start, rows, training, portions)
    for n in ends:
        yield Moment(n, (n - begin) // BATCH, *timed(partial(next, trained)))


def timed(call: Callable[[], Trained]) -> tuple[float, Trained]:
    begun = time.process_time()
    result = call()
    return time.process_time() - begun, result


def first(rows: Rows, count: int) -> Rows:
    return rows._replace(inputs=rows.inputs[:count], classes=rows.classes[:count])


def xor(size: Size, timesteps: int, seed: int) -> Stream:
    rows, test = (
        _rows(sequences.first_last_xor(count, timesteps, 2 * seed + part), 2)
        for part, count in enumerate((size.limit, size.tests))
    )
    return Stream(rows, lambda trained: trained.accuracy(test), _sampled(LONG_LEAKS, size, rows, seed))


def addition(size: Size, base: int, seed: int) -> Stream:
    rows, test = (
        _rows(sequences.addition(count, base, 10, 2 * seed + part), base, 2)
        for part, count in enumerate((size.limit, size.tests))
    )
    witnesses = _sampled({"name": "hyperplanes"}, size, rows, seed)
    return Stream(rows, lambda trained: float(trained.right_with_own_carry(test).mean()), witnesses)


def rows_of_pixels(size: Size, name: str, seed: int) -> Stream:
    task = load_task("digits", None) if name == "digits" else load_task("mnist-rows", shared_folder("mnist"))
    order = np.random.default_rng(seed).permutation(len(task.train.inputs))[: size.limit]
    rows = Rows.of(task.train.inputs[order], np.asarray(task.train.targets)[order], 10)
    test = Rows.of(task.test.inputs[: size.tests], np.asarray(task.test.targets)[: size.tests], 10)
    law = FIELDS_OF_DIGITS if name == "digits" else LOCAL_FIELDS
    return Stream(rows, lambda trained: trained.accuracy(test), _sampled(law, size, rows, seed))


def numbers(size: Size, seed: int) -> Stream:
    data = sequences.parity(32, parity.STEPS)
    order = np.random.default_rng(seed).integers(0, 32, size.limit)
    every = _rows(data, 2)
    rows = Rows.of(data.inputs[order], np.asarray(data.targets)[order], 2)
    witnesses = _sampled(GAUSSIAN | {"threshold": 2**-7}, size, rows, seed)
    return Stream(rows, lambda trained: trained.accuracy(every), witnesses)


def _rows(data: Data, *outputs: int) -> Rows:
    return Rows.of(data.inputs, np.asarray(data.targets), *outputs)


def _sampled(law: dict[str, Any], size: Size, rows: Rows, seed: int) -> Network:
    drawn: WitnessLaw = TypeAdapter(Law).validate_python(law)
    return drawn.sample(seed, range(size.columns), rows.grid.timesteps, rows.grid.features)


if __name__ == "__main__":
    harness.main("time_to_accuracy", run, cores=1, by_case=True)

"""Parity of numbers by emotion-driven Hebbian learning: the source's rule, ours, ours without each of its parts, and
the convex readout of the same network with its weights as they were drawn.

Numbers are drawn at random, answered, then learned from; a number is given for T = 3 timesteps. Networks are written
as inputs-hidden-outputs:

- 5-2, one-hot: the numbers 0 .. 4, which the source solved;
- 5-8-2, binary: 1 .. 31 in five bits, which it did not. 0 is left out: it is silence, to which nothing can answer;
- 6-8-2, binary and a constant input: 0 .. 31;
- 32-8-2, one-hot: 0 .. 31.

S, perturbation, leak and threshold are the same throughout, those of `HebbianSpec`. `grid`: the source's rule with
others, T = 8. Accuracy is that of the unperturbed network on all numbers; there are no others to hold out. "At the end"
is after LIMIT numbers: nothing stops when all are right, so what is learned must also be kept. T(Es; p) is with
p = 0.99 over seeds, left out where it is infinite; an update is a number that changed a weight. No answer: silence, or
both outputs at once. Fired alike: hidden neurons that are silent, or do what another one does, for every number. The
curve of a row is the mean accuracy over numbers seen.

CVX: the hidden neurons' spikes at each timestep are the columns, with weights as drawn for the Hebbian network, 8 or 64
of them; logistic loss, beta / beta_max = 0.001. Its accuracy is on the numbers that it was solved from, as all others'.
"""

import itertools
import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench import harness
from bench.harness import Report
from snn.training.hebbian import HebbianSpec, State, answers, drive, heard, initial_state, learn
from snn.training.time_to_accuracy import Run, time_to_accuracy
from solver_service import ReadoutClassifier
from spikeloom.tasks.sequences import parity

STEPS, HIDDEN, CLASSES = 3, 8, 2
SEEDS, LIMIT, EVERY = 20, 5120, 64  # numbers of a run, and from one measurement to the next
P = 0.99
GRID_STEPS, GRID_LIMIT = 8, 640
GRID = {"strength": (0.02, 0.2), "perturbation": (0.1, 1.0), "leak": (0.0, 0.5), "threshold": (0.5, 1.0)}
RELATIVE_BETA = 0.001
TAKEN_APART = (1, 3)  # of `tasks`: those that the source may have meant
SOURCE = {"expected": False, "signed": False, "mistakes_only": False}
RULES: dict[str, dict[str, bool]] = {"the source's": SOURCE, "ours": {}}
PARTS: dict[str, dict[str, bool]] = {
    "ours, credit not E s": {"expected": False},
    "ours, weights not signed": {"signed": False},
    "ours, not from mistakes alone": {"mistakes_only": False},
    "the source's, signed": {"expected": False, "mistakes_only": False},
}


class Task(NamedTuple):
    name: str
    hidden: tuple[int, ...]
    inputs: npt.NDArray[np.float64]
    targets: npt.NDArray[np.int64]


class Trained(NamedTuple):
    """A run's clocks and accuracy at each measurement [K], and its last state."""

    samples: npt.NDArray[np.int64]
    updates: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    state: State


def tasks(steps: int) -> list[Task]:
    few, many, bits = parity(5, steps), parity(32, steps), parity(32, steps, "binary")
    assert few.targets is not None
    assert many.targets is not None
    constant = np.pad(bits.inputs, ((0, 0), (0, 0), (0, 1)), constant_values=1)
    return [
        Task("5-2, one-hot", (), few.inputs, few.targets),
        Task("5-8-2, binary", (HIDDEN,), bits.inputs[1:], many.targets[1:]),
        Task("6-8-2, binary and a constant", (HIDDEN,), constant, many.targets),
        Task("32-8-2, one-hot", (HIDDEN,), many.inputs, many.targets),
    ]


def run(report: Report) -> None:
    seeds, limit = (2, 192) if report.quick else (SEEDS, LIMIT)
    for number, task in enumerate(tasks(STEPS)):
        rules = RULES | PARTS if number in TAKEN_APART else RULES
        for rule, switches in rules.items():
            measure(report, task, rule, switches, seeds, limit)
        if task.hidden:
            for width in (HIDDEN, 8 * HIDDEN):
                convex(report, task, width, seeds)
    for number in TAKEN_APART:
        grid(report, tasks(GRID_STEPS)[number], seeds, GRID_LIMIT // 10 if report.quick else GRID_LIMIT)


def measure(report: Report, task: Task, rule: str, switches: dict[str, bool], seeds: int, limit: int) -> None:
    specs = [HebbianSpec(hidden=task.hidden, seed=seed, **switches) for seed in range(seeds)]
    runs = [train(task, spec, limit) for spec in specs]
    case = f"{task.name}: {rule}"
    curve = list(zip(runs[0].samples.tolist(), np.mean([one.accuracy for one in runs], axis=0).tolist(), strict=True))
    final = [float(one.accuracy[-1]) for one in runs]
    report.add(case, "accuracy at the end", "", float(np.mean(final)), runs=seeds, curve=curve)
    report.add(case, "of the worst seed", "", min(final), runs=seeds)
    report.add(case, "all right at the end", "seeds", sum(one == 1 for one in final), runs=seeds)
    report.add(case, "ever all right", "seeds", sum(one.accuracy.max() == 1 for one in runs), runs=seeds)
    told = [answers(task.inputs, one.state.weights, specs[0], CLASSES).outputs.sum(axis=1) for one in runs]
    report.add(case, "no answer", "%", 100 * float(np.mean([one != 1 for one in told])), runs=seeds)
    if task.hidden:
        own = [distinct(hidden_spikes(task, one.state.weights, spec)) for one, spec in zip(runs, specs, strict=True)]
        report.add(case, "fired alike", f"of {HIDDEN}", HIDDEN - float(np.mean(own)), runs=seeds)
    for unit in ("updates", "samples", "seconds"):
        t = time_to_accuracy([Run(getattr(one, unit), one.accuracy) for one in runs], P)
        if np.isfinite(t):
            report.add(f"{case}, T(Es; {P:g})", "T", unit, t, runs=seeds)


def train(task: Task, spec: HebbianSpec, limit: int) -> Trained:
    """Seconds are those of answering and learning, without those of measuring."""
    state, taken, updates = initial_state(spec, task.inputs.shape[2], CLASSES), 0.0, 0
    order = np.random.default_rng(spec.seed).integers(0, len(task.inputs), limit)
    measured = [(0, 0, 0.0, accuracy(task, state, spec))]
    for first in range(0, limit, EVERY):
        begun = time.perf_counter()
        for number in order[first : first + EVERY].tolist():
            inputs = task.inputs[number]
            answered = int(answers(inputs[None], state.weights, spec, CLASSES).classes[0])
            before = state.weights
            state = learn(state, inputs, int(task.targets[number]), spec, CLASSES, answered)
            updates += not np.array_equal(before, state.weights)
        taken += time.perf_counter() - begun
        measured.append((first + EVERY, updates, taken, accuracy(task, state, spec)))
    samples, changed, seconds, right = (np.array(column) for column in zip(*measured, strict=True))
    return Trained(samples, changed, seconds, right, state)


def accuracy(task: Task, state: State, spec: HebbianSpec) -> float:
    return float((answers(task.inputs, state.weights, spec, CLASSES).classes == task.targets).mean())


def grid(report: Report, task: Task, seeds: int, limit: int) -> None:
    """The best of the source's rule over S, perturbation, leak and threshold."""
    means, best, solved, cells = [], 0.0, 0, list(itertools.product(*GRID.values()))
    for values in cells[:2] if report.quick else cells:
        chosen = dict(zip(GRID, values, strict=True))
        said = {"hidden": task.hidden} | SOURCE | chosen
        specs = [HebbianSpec.model_validate(said | {"seed": seed}) for seed in range(seeds)]
        reached = [train(task, spec, limit).accuracy for spec in specs]
        means.append(float(np.mean([one[-1] for one in reached])))
        best = max(best, *(float(one.max()) for one in reached))
        solved += sum(one.max() == 1 for one in reached)
    case = f"{task.name}: the source's, grid of {len(cells)} settings"
    report.add(case, "accuracy at the end, best setting", "", max(means), runs=seeds)
    report.add(case, "best of any seed at any time", "", best, runs=seeds)
    report.add(case, "ever all right", "runs", solved, runs=seeds * len(means))


def convex(report: Report, task: Task, width: int, seeds: int) -> None:
    reached, gaps = [], []
    for seed in range(seeds):
        spec = HebbianSpec(hidden=(width,), seed=seed)
        weights = initial_state(spec, task.inputs.shape[2], CLASSES).weights
        columns = hidden_spikes(task, weights, spec).reshape(len(task.inputs), -1).astype(np.float64)
        readout = ReadoutClassifier(relative_beta=RELATIVE_BETA).fit(columns, task.targets)
        reached.append(float((readout.predict(columns) == task.targets).mean()))
        gaps.append(readout.relative_gap_)
    case = f"{task.name}: CVX on {width} hidden neurons as drawn"
    report.add(case, "CVX accuracy", "", float(np.mean(reached)), runs=seeds)
    report.add(case, "CVX, of the worst seed", "", min(reached), runs=seeds)
    report.add(case, "CVX, all right", "seeds", sum(one == 1 for one in reached), runs=seeds)
    report.add(case, "largest relative gap", "", max(gaps), runs=seeds)


def hidden_spikes(task: Task, weights: npt.NDArray[np.float64], spec: HebbianSpec) -> npt.NDArray[np.bool_]:
    """[N, T, hidden] of the unperturbed network."""
    membranes = np.zeros((len(task.inputs), len(weights)))
    fired = []
    for t in range(task.inputs.shape[1]):
        membranes = drive(heard(task.inputs[:, t], membranes >= spec.threshold), membranes, weights, spec)
        fired.append(membranes[:, task.inputs.shape[2] : -CLASSES] >= spec.threshold)
    return np.stack(fired, axis=1)


def distinct(spikes: npt.NDArray[np.bool_]) -> int:
    """Hidden neurons that fire, and not as one counted already does."""
    columns = np.unique(spikes.reshape(-1, spikes.shape[2]), axis=1)
    return int(columns.any(axis=0).sum())


if __name__ == "__main__":
    harness.main("parity", run, cores=1)

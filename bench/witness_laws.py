"""The ladder of witness laws: what each law's dictionary is worth, task by task, with the same convex readout on top.

A case is a task and a law. For each of the seeds a dictionary is rolled out on training sequences, a readout is solved
on it to a relative gap of 1e-6, and sequences that neither has seen are answered (`bench/law_tasks.py` has the tasks).

Accuracy is the mean over the seeds, of witnesses and of data that is made; the points of `curve` are (seed, accuracy).
Beside it: the largest relative gap; the firing rate of the columns on training rows, the shares of silent and saturated
ones, how many differ and are not constant, seconds of roll-out and of solve. The peer's figures are the paper's.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from bench import harness, paper_figures
from bench.harness import Report
from bench.law_tasks import Measured, Rung, added, parity, pixels, remembered, rows, xor
from bench.paper_figures import ADDITION, SHALLOW, TRAINED_AT
from snn import activity

SEEDS = (0, 1, 2)
XOR_COLUMNS = 4096

PAPER = (
    {f"first-last XOR, T = {timesteps}": figures for timesteps, figures in paper_figures.XOR_TIMESTEPS.items()}
    | {"MNIST, rows": paper_figures.MNIST_DEPTHS[SHALLOW]}
    | {f"addition base {base}, length {TRAINED_AT}": found for base, found in ADDITION[SHALLOW].items()}
    | {f"addition base {base}, length 100": paper_figures.best(base, 100) for base in paper_figures.LENGTHS}
)

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

GREY_TEMPLATES: dict[str, Any] = {"name": "stored_templates", "shifts": 2, "levels": [0.25, 0.5, 0.75]}
SMALL_TEMPLATES: dict[str, Any] = {"name": "stored_templates", "side_min": 3, "side_max": 5}


def run(report: Report) -> None:
    quick = report.quick
    for timesteps in (5, 10) if quick else (5, 10, 15, 20, 30):
        ladder(report, f"first-last XOR, T = {timesteps}", xor_rungs(quick), partial(xor, timesteps=timesteps))
    for base in (2,) if quick else (2, 3, 5):
        ladder(report, f"addition base {base}", addition_rungs(quick), partial(added, base=base))
        ladder(report, f"addition base {base} without carry", memory_rungs(base, quick), partial(remembered, base=base))
    ladder(report, "running parity", parity_rungs(quick), parity)
    images = "digits" if quick else "MNIST"
    ladder(report, f"{images}, rows", row_rungs(quick), partial(rows, name=images))
    ladder(report, f"{images}, pixels", pixel_rungs(quick), partial(pixels, name=images))


def addition_rungs(quick: bool) -> list[Rung]:
    columns = 64 if quick else 512
    return [Rung("gaussian", GAUSSIAN, columns), Rung("hyperplanes", {"name": "hyperplanes"}, columns)]


def memory_rungs(base: int, quick: bool) -> list[Rung]:
    columns = 128 if quick else 3072
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
        Rung("local_integrators", {"name": "local_integrators"}, 4096),
        Rung("stored_templates, no shifts", templates | {"shifts": 0}, 4096),
        Rung("stored_templates, smooth", templates | {"pattern": "smooth"}, 4096),
        Rung("stored_templates", templates, 4096),
        Rung("stored_templates, 25 shifts", templates | {"shifts": 2}, 4096),
        Rung("stored_templates, 25 shifts, 3 levels", GREY_TEMPLATES, 4096),
    ]


def pixel_rungs(quick: bool) -> list[Rung]:
    columns = 256 if quick else 2048
    templates = SMALL_TEMPLATES | {"width": 8} if quick else {"name": "stored_templates", "width": 28}
    return [
        Rung("gaussian", GAUSSIAN, columns),
        Rung("heterogeneous", LONG_LEAKS, columns),
        Rung("stored_templates", templates, columns),
    ]


def ladder(report: Report, task: str, rungs: list[Rung], measure: Callable[[Rung, int], Measured]) -> None:
    """A row for each figure of each law."""
    seeds = SEEDS[:1] if report.quick else SEEDS
    for rung in rungs:
        if not report.wants(f"{task}: {rung.name}"):
            continue
        found = [measure(rung, seed) for seed in seeds]
        for asked in found[0].accuracy:
            case, values = f"{asked}: {rung.name}", [each.accuracy[asked] for each in found]
            curve = [(float(seed), value) for seed, value in zip(seeds, values, strict=True)]
            peers = zip(("paper CVX", "paper SG"), PAPER.get(asked, ()), strict=False)
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
    yield "largest relative gap", "", max(each.gap for each in found)
    yield "roll-out", "s", float(np.mean([each.roll_out for each in found]))
    yield "solve", "s", float(np.mean([each.solve for each in found]))


if __name__ == "__main__":
    harness.main("witness_laws", run, cores=1, by_case=True)

"""The pictures of the docs, drawn from the rows of a benchmark; `PICTURES` has one for each that has any."""

import re
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from bench.harness import Row

OURS, PEER = "#d1495b", "#8d99ae"
PEERS = ("C0", "C1", "C2", "C4", "C5", "C7", "C8", "C9", "C6")  # without the red of ours
DOTS = {"marker": "o", "markersize": 3}


def _roll_out(rows: list[Row]) -> plt.Figure:
    """The first case as bars: ours and every peer."""
    chosen = [row for row in rows if row.case == rows[0].case and row.unit == "ms"]
    values = {row.peer or "": row.peer_value or 0.0 for row in chosen}
    values |= {f"ours, {row.metric}": row.ours for row in chosen}
    names = sorted(values, key=lambda name: -values[name])
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.32 * len(names)), layout="constrained")
    bars = axes.barh(names, [values[name] for name in names], color=[_colour(name) for name in names])
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.set_xlabel("ms")
    axes.set_title(f"{rows[0].case}, one core", fontsize="medium", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _colour(name: str) -> str:
    return OURS if name.startswith("ours") else PEER


def _latency(rows: list[Row]) -> plt.Figure:
    """Percentiles over load, whole sequences and single timesteps."""
    found = [(re.match(r"(.+), (\d+)% load, 10 ms waits$", row.case), row) for row in rows]
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for kind, colour in zip(dict.fromkeys(match[1] for match, _ in found if match), (OURS, PEER), strict=False):
        for share, style in (("50", "-"), ("99", "--"), ("99.9", ":")):
            points = [
                (int(m[2]), row.ours) for m, row in found if m and m[1] == kind and row.metric == f"read, p{share}"
            ]
            axes.plot(*zip(*points, strict=True), style, marker="o", color=colour, label=f"{kind}, p{share}")
    axes.set(xlabel="load, % of capacity", ylabel="ms, due to read", yscale="log")
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _live_sequences(rows: list[Row]) -> plt.Figure:
    """Throughput over the number of live sequences."""
    found = [(re.match(r"([\d,]+) live, (.+)", row.case), row) for row in rows if row.metric == "throughput"]
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for kind in dict.fromkeys(match[2] for match, _ in found if match):
        points = [(int(m[1].replace(",", "")), row.ours) for m, row in found if m and m[2] == kind]
        axes.plot(*zip(*points, strict=True), marker="o", label=kind)
    axes.set(xlabel="live sequences", ylabel="slices/s", xscale="log", ylim=(0, None))
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _solver(rows: list[Row]) -> plt.Figure:
    """Certified relative gap over seconds, ours and every peer's: a row for each dictionary and beta / beta max."""
    curves: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row.curve:
            name, kind, relative_beta = row.case.rsplit(", ", 2)
            curves.setdefault((f"{name}\n{relative_beta}", kind), {})[row.peer or "ours"] = row.curve
    lines, kinds = (list(dict.fromkeys(keys)) for keys in zip(*curves, strict=True))
    peers = sorted({solver for drawn in curves.values() for solver in drawn} - {"ours"})
    colours = {"ours": OURS, **dict(zip(peers, PEERS, strict=False))}
    figure, grid = plt.subplots(
        len(lines), len(kinds), sharex=True, sharey=True, squeeze=False, layout="constrained",
        figsize=(2.7 * len(kinds) + 0.6, 1.7 * len(lines) + 1),
    )  # fmt: skip
    for (line, kind), drawn in curves.items():
        axes = grid[lines.index(line), kinds.index(kind)]
        for solver, points in drawn.items():
            axes.plot(
                *zip(*sorted(points), strict=True), color=colours[solver], lw=2 if solver == "ours" else 1, **DOTS
            )
    for at, axes in np.ndenumerate(grid):
        axes.set(xscale="log", yscale="log")
        axes.spines[["top", "right"]].set_visible(False)
        if (lines[at[0]], kinds[at[1]]) not in curves:
            axes.set_visible(False)
    for column, kind in zip(grid.T, kinds, strict=True):
        next(axes for axes in column if axes.get_visible()).set_title(kind, fontsize="medium")
    for axes, line in zip(grid[:, 0], lines, strict=True):
        axes.set_ylabel(line, fontsize="small")
    for axes in grid[-1]:
        axes.set_xlabel("seconds")
    handles = [plt.Line2D([], [], color=colour, label=solver, **DOTS) for solver, colour in colours.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, fontsize="small")
    return figure


def _witness_laws(rows: list[Row]) -> plt.Figure:
    """Accuracy of every law on every task, mean and range over the seeds; grey, the paper's CVX. Below, pictures."""
    found = {tuple(row.case.split(": ")): row for row in rows if row.metric == "accuracy" and row.peer != "paper SG"}
    pictures = {key: row for key, row in found.items() if key[0].endswith((", rows", ", pixels"))}
    others = {key: row for key, row in found.items() if key not in pictures}
    sizes = [len({task for task, _ in others}), len({law for _, law in pictures})]
    figure, (above, below) = plt.subplots(
        2, figsize=(7.5, 2 + 0.3 * sum(sizes)), height_ratios=sizes, layout="constrained"
    )
    _on_lines(above, [(task, law, row) for (task, law), row in others.items()])
    _on_lines(below, [(law, task, row) for (task, law), row in pictures.items()])
    handles = above.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=4, frameon=False, fontsize="small")
    below.legend(frameon=False, fontsize="small")
    return figure


def _on_lines(axes: plt.Axes, found: list[tuple[str, str, Row]]) -> None:
    """Accuracies (line, marker, row), the peer's beside them."""
    lines, markers = (list(dict.fromkeys(keys)) for keys in list(zip(*found, strict=True))[:2])
    for place, marker in enumerate(markers):
        mine = [(row, lines.index(line)) for line, name, row in found if name == marker]
        means = np.array([row.ours for row, _ in mine])
        seeds = [[value for _, value in row.curve or [(0, row.ours)]] for row, _ in mine]
        spread = [means - [min(values) for values in seeds], [max(values) for values in seeds] - means]
        shape, colour = "osD^"[place // 10], f"C{place % 10}"
        axes.errorbar(means, [at for _, at in mine], xerr=spread, fmt=shape, color=colour, label=marker)
    paper = [(row.peer_value, lines.index(line)) for line, _, row in found if row.peer_value is not None]
    axes.plot(*zip(*paper, strict=True), "|", color=PEER, ms=14, mew=3, label="paper")
    axes.set(yticks=range(len(lines)), yticklabels=lines, xlabel="accuracy", xlim=(None, 1.01))
    axes.invert_yaxis()
    axes.grid(axis="y", lw=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _parity(rows: list[Row]) -> plt.Figure:
    """Accuracy over numbers seen, mean over seeds, a panel for each network."""
    found = [(*row.case.partition(": ")[::2], row) for row in rows if row.curve]
    return _panels(found, "numbers seen")


def _drift(rows: list[Row]) -> plt.Figure:
    """Test-then-train accuracy over sequences, mean over seeds, a panel for each stream."""
    return _panels([(row.case, row.peer or "ours", row) for row in rows if row.curve], "sequences")


def _panels(found: list[tuple[str, str, Row]], xlabel: str) -> plt.Figure:
    """Curves of accuracy (panel, contestant, row), side by side."""
    panels, names = (list(dict.fromkeys(keys)) for keys in list(zip(*found, strict=True))[:2])
    colours = {"ours": OURS, **dict(zip([name for name in names if name != "ours"], PEERS, strict=False))}
    figure, grid = plt.subplots(1, len(panels), sharey=True, squeeze=False, layout="constrained", figsize=(11, 3.2))
    for panel, name, row in found:
        axes = grid[0, panels.index(panel)]
        axes.plot(*zip(*row.curve or [], strict=True), color=colours[name], lw=2 if name == "ours" else 1)
    for axes, panel in zip(grid[0], panels, strict=True):
        axes.set_title(panel, fontsize="medium")
        axes.set(xlabel=xlabel, ylim=(0, 1.02))
        axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylabel("accuracy")
    handles = [plt.Line2D([], [], color=colours[name], label=name) for name in names]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    return figure


PAPER_PANELS = {  # by what the axis is
    "first-last XOR, T = 5, by depth": r"first-last XOR, T = 5, depth (\d+): (.+)",
    "first-last XOR, depth 3, by T": r"first-last XOR, T = (\d+), depth 3: (.+)",
    "pictures in rows, by depth": r"\w+ in rows, T = \d+, depth (\d+): (.+)",
    "pictures in patches, depth 3, by T": r"\w+ in patches of .+, T = (\d+), depth 3: (.+)",
    "addition base 3, by length": r"addition base 3, depth 3, length (\d+): (.+)",
    "addition base 5, by length": r"addition base 5, depth 3, length (\d+): (.+)",
    "addition base 2, tokens, by sequences": r"addition base 2, (\d+) to train on, depth 3, tokens: (.+)",
    "gap: accuracy, by subnetworks": r"gap, first-last XOR, (\d+) (subnetworks)",
}


def _paper(rows: list[Row]) -> plt.Figure:
    """Every variant's accuracy, mean and range over the seeds; dashed, the paper's."""
    found = [row for row in rows if row.metric == "accuracy"]
    variants = dict(zip(("CVX", "best law", "SG", "SG-CVX", "SG-SG", "CVX-SG"), (OURS, *PEERS), strict=False))
    figure, grid = plt.subplots(2, 4, figsize=(13, 6), layout="constrained")
    for axes, (title, pattern) in zip(grid.flat, PAPER_PANELS.items(), strict=True):
        lines: dict[str, list[tuple[int, Row]]] = {}
        for row in found:
            if match := re.fullmatch(pattern, row.case):
                lines.setdefault(match[2].replace("subnetworks", "CVX"), []).append((int(match[1]), row))
        for variant, points in lines.items():
            at, colour = [x for x, _ in points], variants[variant]
            means = np.array([row.ours for _, row in points])
            seeds = [[value for _, value in row.curve or [(0.0, row.ours)]] for _, row in points]
            spread = [means - [min(values) for values in seeds], [max(values) for values in seeds] - means]
            axes.errorbar(at, means, yerr=spread, color=colour, lw=2 if variant == "CVX" else 1, **DOTS)
            theirs = [(x, row.peer_value) for x, row in points if row.peer_value is not None]
            if theirs and variant != "best law":
                axes.plot(*zip(*theirs, strict=True), "--", color=colour, lw=1)
        axes.set(ylim=(0, 1.03))
        axes.set_title(title, fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
    handles = [plt.Line2D([], [], color=colour, label=variant, **DOTS) for variant, colour in variants.items()]
    handles.append(plt.Line2D([], [], color="black", ls="--", lw=1, label="the paper's"))
    figure.legend(handles=handles, loc="outside upper center", ncols=7, frameon=False, fontsize="small")
    return figure


def _time_to_accuracy(rows: list[Row]) -> plt.Figure:
    """T(Es; p) over p, in updates, samples and seconds: lower is sooner, and a line ends where T is infinite."""
    found: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        task, trainer = row.case.split(": ")
        if match := re.fullmatch(r"T\(Es; (.+)\)", row.metric):
            found.setdefault((task, row.unit), {}).setdefault(trainer, []).append((float(match[1]), row.ours))
    tasks, clocks = (list(dict.fromkeys(keys)) for keys in zip(*found, strict=True))
    trainers = list(dict.fromkeys(row.case.split(": ")[1] for row in rows))
    colours = dict(zip(trainers, (OURS, *PEERS), strict=False))
    figure, grid = plt.subplots(
        len(clocks), len(tasks), sharex=True, sharey="row", squeeze=False, layout="constrained",
        figsize=(2.6 * len(tasks), 2.3 * len(clocks) + 0.6),
    )  # fmt: skip
    for (task, clock), drawn in found.items():
        axes = grid[clocks.index(clock), tasks.index(task)]
        for trainer, points in drawn.items():
            axes.plot(*zip(*points, strict=True), color=colours[trainer], lw=2 if trainer == "CVX" else 1, **DOTS)
    for axes in grid.flat:
        axes.set(yscale="log", xlim=(0.45, 1.02))
        axes.spines[["top", "right"]].set_visible(False)
    for axes, task in zip(grid[0], tasks, strict=True):
        axes.set_title(task, fontsize="medium")
    for axes, clock in zip(grid[:, 0], clocks, strict=True):
        axes.set_ylabel(f"T in {clock}")
    for axes in grid[-1]:
        axes.set_xlabel("p")
    handles = [plt.Line2D([], [], color=colours[trainer], label=trainer, **DOTS) for trainer in trainers]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, fontsize="small")
    return figure


def _growing(rows: list[Row]) -> plt.Figure:
    """Accuracy of priced columns, red, and of as many blind ones; dashed: with softmax."""
    found: dict[str, dict[bool, list[tuple[int, Row]]]] = {}
    for row in rows:
        if (match := re.fullmatch(r"([\d,]+) columns(, softmax)?", row.metric)) and row.unit == "accuracy":
            columns = int(match[1].replace(",", ""))
            found.setdefault(row.case, {}).setdefault(match[2] is not None, []).append((columns, row))
    figure, grid = plt.subplots(2, -(-len(found) // 2), figsize=(9, 5), squeeze=False, layout="constrained")
    for axes, (case, drawn) in zip(grid.flat, found.items(), strict=False):
        for softmax, points in drawn.items():
            style: dict[str, Any] = {"ls": "--" if softmax else "-", **DOTS}
            at = [columns for columns, _ in points]
            axes.plot(at, [row.ours for _, row in points], color=OURS, **style)
            axes.plot(at, [row.peer_value for _, row in points], color=PEER, **style)
        axes.set_title(case, fontsize="medium")
    for axes in grid.flat:
        axes.set(xlabel="columns")
        axes.set_visible(bool(axes.lines))
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy")
    handles = [plt.Line2D([], [], color=c, label=name) for name, c in (("priced", OURS), ("blind", PEER))]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    return figure


PICTURES: dict[str, Callable[[list[Row]], plt.Figure]] = {
    "roll_out": _roll_out,
    "latency": _latency,
    "live_sequences": _live_sequences,
    "solver": _solver,
    "witness_laws": _witness_laws,
    "parity": _parity,
    "paper": _paper,
    "time_to_accuracy": _time_to_accuracy,
    "growing": _growing,
    "drift": _drift,
}

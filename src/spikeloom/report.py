"""What a run achieved: as a table, as JSON and as a picture of the brain wave and the accuracy over time."""

import json
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # the backend is chosen first
import numpy as np
from rich.table import Table

ACCURACY_WINDOW = 200  # answers in the moving average, at least: two digits of accuracy, and still a curve
ACCURACY_SHARE = 30  # long runs average over this part of all answers, or the curve is noise


class Achieved(NamedTuple):
    task: str
    sequences: int  # trained on
    seconds: float  # from the first push until the last is answered and in a solved readout
    sequences_per_second: float
    pushed_per_second: float | None  # how the stream was paced, None for not at all
    roll_out_per_second: float  # while the job was at work, training sequences and held-out ones
    predict_per_second: float
    columns: int
    support: int
    relative_gap: float
    test_then_train_sequences: int  # answered by a readout that had not seen them
    test_then_train_accuracy: float
    held_out_sequences: int
    held_out_accuracy: float
    longer_accuracy: float | None  # held-out sequences of ten times the trained length
    readout_versions: int
    dead_letters: int
    peak_memory_mib: dict[str, int]  # by process, Flink's Python workers among them
    waves: dict[int, list[float]]  # by layer: mean active neurons at each timestep
    neurons: dict[int, int]
    tested: list[tuple[int, bool]]  # test-then-train: microseconds, right or wrong
    published: list[tuple[int, int]]  # microseconds, readout version


def table(achieved: Achieved) -> Table:
    a = achieved
    paced = f" (pushed at {a.pushed_per_second:g}/s)" if a.pushed_per_second else ""
    shown = Table(title=f"Spikeloom on {a.task}", show_header=False, title_justify="left")
    jobs = (
        ("roll-out job, sequences/s", f"{a.roll_out_per_second:,.0f}"),
        ("prediction job, sequences/s", f"{a.predict_per_second:,.0f}"),
    )
    for name, value in (
        ("sequences", f"{a.sequences:,}"),
        ("seconds", f"{a.seconds:.1f}"),
        ("sequences/s", f"{a.sequences_per_second:,.0f}{paced}"),
        *(() if a.pushed_per_second else jobs),  # a paced stream says nothing of how fast they are
        ("columns", f"{a.columns:,}"),
        ("support", f"{a.support:,}"),
        ("relative gap", f"{a.relative_gap:.1e}"),
        ("readout versions", f"{a.readout_versions}"),
        ("test-then-train accuracy", f"{a.test_then_train_accuracy:.4f} ({a.test_then_train_sequences:,} sequences)"),
        ("held-out accuracy", f"{a.held_out_accuracy:.4f} ({a.held_out_sequences:,} sequences)"),
        *(() if a.longer_accuracy is None else (("at ten times the length", f"{a.longer_accuracy:.4f}"),)),
        ("peak memory, MiB", "\n".join(f"{name} {peak:,}" for name, peak in a.peak_memory_mib.items())),
    ):
        shown.add_row(name, value)
    return shown


def write_json(achieved: Achieved, path: Path) -> None:
    """The figures of the table, without the curves."""
    curves = ("waves", "neurons", "tested", "published")
    figures = {name: value for name, value in achieved._asdict().items() if name not in curves}
    path.write_text(json.dumps(figures, indent=2) + "\n")


def plot(achieved: Achieved, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for layer, wave in achieved.waves.items():
        share = 100 * np.array(wave) / achieved.neurons[layer]
        left.plot(
            range(1, len(wave) + 1),
            share,
            marker="o",
            ms=3,
            label=f"layer {layer}: {achieved.neurons[layer]:,} neurons",
        )
    left.set(title="Brain wave", xlabel="timestep of a sequence", ylabel="active neurons, % of the layer", ylim=0)
    left.legend(frameon=False)

    if achieved.tested:
        began = min([achieved.tested[0][0]] + [when for when, _ in achieved.published])
        times = np.array([(when - began) / 1e6 for when, _ in achieved.tested])
        right_or_wrong = np.array([correct for _, correct in achieved.tested], float)
        window = min(len(right_or_wrong), max(ACCURACY_WINDOW, len(right_or_wrong) // ACCURACY_SHARE))
        moving = np.convolve(right_or_wrong, np.full(window, 1 / window), "valid")
        right.plot(times[window - 1 :], moving, label=f"test-then-train, last {window:,}")
        for number, (when, _) in enumerate(achieved.published):
            right.axvline((when - began) / 1e6, color="0.85", lw=1, zorder=0, label=None if number else "new readout")
    right.axhline(achieved.held_out_accuracy, color="C1", ls="--", label=f"held out {achieved.held_out_accuracy:.4f}")
    right.set(title="Accuracy", xlabel="seconds", ylabel="share answered right", ylim=(None, 1.005))
    right.legend(loc="best")
    figure.savefig(path, dpi=130)
    plt.close(figure)

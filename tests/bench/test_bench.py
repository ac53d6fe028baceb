"""The benchmarks' machinery: rows, tables drawn from them, the fit. No test asserts a time."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import cluster, draw, harness, latency, paper_figures, pictures, roll_out, scale, time_to_accuracy
from bench.harness import BenchError, Report, Row
from bench.solver_peers import PEERS
from wire.codec import decode_slice

Trial = Callable[[str], list[Row]]


@pytest.fixture
def trial(tmp_path: Path, project_root: Path) -> Trial:
    """A benchmark's --quick from the command line, and the rows that it wrote."""

    def run(name: str) -> list[Row]:
        command = [sys.executable, "-m", "spikeloom", "bench", name, "--quick", "--results", str(tmp_path)]
        done = subprocess.run(command, cwd=project_root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return harness.read(tmp_path / f"{name}.json")

    return run


def row(**changes: object) -> Row:
    held: dict[str, object] = {
        "case": "small", "metric": "kernel", "unit": "ms", "ours": 2.0, "peer": "theirs", "peer_value": 5.0,
        "ratio": 2.5, "runs": 3, "command": "spikeloom bench some", "cores": 1, "device": "a processor",
    }  # fmt: skip
    return Row.model_validate(held | changes)


def test_roll_out_runs_from_the_command_line_and_writes_rows(trial: Trial) -> None:
    rows = trial("roll_out")  # validates the schema
    assert {"torch", "SpikingJelly", "snnTorch", "Norse"} <= {row.peer for row in rows}
    assert {row.metric for row in rows} == {"kernel", "engine"}
    for each in rows:
        assert each.ours > 0
        assert each.ratio == pytest.approx((each.peer_value or 0) / each.ours)
        assert (each.command, each.cores) == ("spikeloom bench roll_out --quick", 1)
        assert each.device


def test_packed_products_compares_every_product(trial: Trial) -> None:
    peers: dict[str, set[str | None]] = {}
    for each in trial("packed_products"):
        assert each.ours > 0
        peers.setdefault(each.metric, set()).add(each.peer)
    products = {f"{name} {kind}" for name in ("times", "transpose_times") for kind in ("float32", "float64")}
    assert all(peers[metric] == {"float32 GEMM", "float64 GEMM", "CSR"} for metric in products | {"memory"})
    assert (peers["gram"], peers["weighted_gram"]) == ({"syrk", "GEMM"}, {"syrk"})


def test_structured_laws_answer_every_sequence_right(trial: Trial) -> None:
    rows = trial("witness_laws")
    accuracy = {row.case: row.ours for row in rows if row.metric == "accuracy"}
    exact = [case for case in accuracy if case.endswith((": stored_taps", ": hyperplanes", ": hubs", ": counters"))]
    assert len(exact) == 9
    assert all(accuracy[case] == 1 for case in exact), accuracy
    assert all(accuracy[f"digits, {way}: stored_templates"] > 0.9 for way in ("rows", "pixels")), accuracy
    assert {row.peer for row in rows if row.metric == "accuracy"} == {None, "paper CVX", "paper SG"}
    table = draw.TABLES["witness_laws"](rows)
    assert "| first-last XOR, T = 5: stored_taps | **1.000** | 1.000 | 0.746 | " in table
    drawn = [
        [label.get_text() for label in axes.get_yticklabels()] for axes in pictures.PICTURES["witness_laws"](rows).axes
    ]
    tasks = dict.fromkeys(case.split(": ")[0] for case in accuracy)
    laws = dict.fromkeys(case.split(": ")[1] for case in accuracy if case.startswith("digits"))
    assert drawn == [[task for task in tasks if not task.startswith("digits")], list(laws)]


def test_solver_certifies_the_peers_that_are_installed(trial: Trial) -> None:
    rows = trial("solver")
    curves = {(row.case, row.peer): row.curve for row in rows if row.metric == "smallest gap"}
    assert {peer for _, peer in curves} == {
        None,
        *(name for name, peer in PEERS.items() if peer.installed and not peer.compiles),
    }
    for (case, peer), curve in curves.items():
        assert curve is not None
        assert curve, f"{case}: {peer} gave no answer"
        assert all(seconds > 0 and gap > 0 for seconds, gap in curve)
        assert min(gap for _, gap in curve) <= (1e-6 if peer is None else 1e-2), f"{case}: {peer}"
    figure = pictures.PICTURES["solver"](rows)
    assert sum(len(axes.lines) for axes in figure.axes) == len(curves)


def test_solver_stream_solves_the_stream_and_all_of_its_rows(trial: Trial) -> None:
    rows = trial("solver_stream")  # every solve was certified, and saw all rows
    assert [(row.metric, row.peer) for row in rows] == 2 * [("re-solve", "all rows"), ("resident memory", "all rows")]
    assert all(row.ours > 0 and (row.peer_value or 0) > 0 for row in rows)


def test_growing_compares_priced_columns_with_blind_ones(trial: Trial) -> None:
    found = trial("growing")
    (panel, _) = pictures.PICTURES["growing"](found).axes
    assert [len(line.get_xdata()) for line in panel.lines] == [2, 2, 1, 1]  # priced and blind, and with softmax
    rows = {(row.metric, row.unit): row for row in found}
    for metric in ("200 columns", "300 columns", "300 columns, softmax"):
        accuracy = rows[metric, "accuracy"]
        assert accuracy.peer == "blind"
        assert 0.4 < (accuracy.peer_value or 0) <= 1
        assert 0.4 < accuracy.ours <= 1
    assert all(rows[f"{size} columns", "s"].ours > 0 for size in (200, 300))
    assert rows["price left", "beta"].ours > 0
    table = draw.tables(found)
    assert all(f"| 200 columns, {unit} |" in table for unit in ("accuracy", "s"))


def test_gram_says_from_which_rate_sums_pay(trial: Trial) -> None:
    ours = {row.metric: row.ours for row in trial("gram")}
    assert ours["less work from"] == pytest.approx(
        ours["a solver's core, reading sums"] / 100 * ours["rows that a solver's core reads"]
    )
    assert ours["fewer bytes from"] > 0
    assert ours["rows that a task of the job sums"] > 0


def test_parity_measures_every_rule_and_draws(trial: Trial) -> None:
    rows = trial("parity")
    cases = {row.case for row in rows}
    networks = ("5-2, one-hot", "5-8-2, binary", "6-8-2, binary and a constant", "32-8-2, one-hot")
    assert {f"{network}: {rule}" for network in networks for rule in ("ours", "the source's")} <= cases
    assert {"5-8-2, binary: ours, weights not signed", "32-8-2, one-hot: ours, weights not signed"} <= cases
    assert all(0 <= row.ours <= 1 for row in rows if "accuracy" in row.metric)
    assert max(row.ours for row in rows if row.metric == "largest relative gap") <= 1e-6
    figure = pictures.PICTURES["parity"](rows)
    assert [axes.get_title() for axes in figure.axes] == list(networks)


def test_paper_puts_every_variant_beside_the_paper(trial: Trial) -> None:
    rows = trial("paper")
    accuracy = {row.case: row for row in rows if row.metric == "accuracy"}
    assert all(0 <= row.ours <= 1 for row in accuracy.values())
    assert max(row.ours for row in rows if row.metric == "largest relative gap") <= 1e-6
    lengths = [f"addition base 3, depth 3, length {length}" for length in (10, 20, 50, 100)]
    for case, theirs in zip(lengths, paper_figures.LENGTHS[3]["SG-CVX"], strict=True):
        assert accuracy[f"{case}: SG-CVX"].peer_value == theirs
        assert accuracy[f"{case}: CVX-SG"].peer is None
        assert accuracy[f"{case}: best law"].ours == 1
    assert accuracy["first-last XOR, T = 5, depth 10: best law"].ours == 1
    assert accuracy["first-last XOR, T = 5, depth 10: best law"].peer == "paper CVX"
    table = draw.TABLES["paper"](rows)
    assert "| accuracy | CVX | SG | SG-CVX | SG-SG | CVX-SG | best law |" in table
    first = next(line for line in table.splitlines() if line.startswith(f"| {lengths[0]} |"))
    assert first.endswith("| 1.000 (0.366) |")
    figure = pictures.PICTURES["paper"](rows)
    assert [axes.get_title() for axes in figure.axes] == list(pictures.PAPER_PANELS)
    assert all(
        axes.lines
        for axes in figure.axes
        if "base 5" not in axes.get_title() and "depth 3, by T" not in axes.get_title()
    )


def test_time_to_accuracy_times_every_trainer(trial: Trial) -> None:
    rows = trial("time_to_accuracy")
    ends = {row.case: row for row in rows if row.metric == "accuracy at the end"}
    tasks = {case.split(": ")[0] for case in ends}
    assert set(ends) == {f"{task}: {name}" for task in tasks for name in time_to_accuracy.TRAINERS} | {
        "parity of 32, one-hot: Hebbian"
    }
    assert all(row.curve for row in ends.values())
    times = {(row.case, row.metric, row.unit): row.ours for row in rows if row.metric.startswith("T(")}
    samples = {key[:2]: ours for key, ours in times.items() if key[2] == "samples"}
    assert all(times[*key, "updates"] <= ours for key, ours in samples.items())
    assert ("addition base 3: CVX", "T(Es; 0.7)", "seconds") in times
    lines = draw.TABLES["time_to_accuracy"](rows).splitlines()
    assert len(lines) == 2 + len(ends), "a line for each trainer on each task"
    figure = pictures.PICTURES["time_to_accuracy"](rows)
    assert {axes.get_title() for axes in figure.axes} - {""} <= tasks


def test_accuracy_is_measured_after_whole_batches_twice_in_a_doubling() -> None:
    marks = time_to_accuracy.marks(time_to_accuracy.FULL.limit)
    assert marks[:4] == [96, 144, 192, 288]
    assert marks[-1] == time_to_accuracy.FULL.limit
    assert all(n % time_to_accuracy.BATCH == 0 for n in marks)
    assert time_to_accuracy.SOLVED_AT in marks


def test_the_papers_best_at_a_length_is_of_its_kind() -> None:
    assert paper_figures.best(5, 20) == (0.188, 0.163)
    assert paper_figures.best(3, 100) == (0.310, 0.202)


def test_a_name_that_is_no_benchmark_is_refused_with_the_names_that_are(project_root: Path) -> None:
    command = [sys.executable, "-m", "spikeloom", "bench", "nothing"]
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True)
    assert done.returncode == 1
    for name in (
        "draw",
        "gram",
        "growing",
        "latency",
        "live_sequences",
        "packed_products",
        "pipeline",
        "roll_out",
        "scale",
        "solver",
        "solver_stream",
    ):
        assert name in done.stderr
    assert "harness" not in done.stderr


def test_a_ratio_above_one_is_better_for_us() -> None:
    report = Report("some", quick=True, cores=1)
    report.add("case", "time", "ms", 2.0, peer="theirs", peer_value=6.0)
    report.add("case", "rate", "1/s", 2.0, peer="theirs", peer_value=6.0, better="more")
    report.add("case", "size", "MB", 2.0)
    assert [row.ratio for row in report.rows] == [3.0, pytest.approx(1 / 3), None]


def test_a_case_that_is_run_again_takes_its_own_place_in_the_file(tmp_path: Path) -> None:
    def measured(only: str, value: float) -> list[tuple[str, float]]:
        report = Report("some", quick=False, cores=1, only=only)
        for case in filter(report.wants, ("first, T = 5", "first, T = 10", "second")):
            report.add(case, "time", "ms", value)
            report.add(case, "size", "MB", value)
        return [(row.case, row.ours) for row in harness.read(report.write(tmp_path)) if row.metric == "size"]

    assert measured("second|T = 10$", 1) == [("first, T = 10", 1), ("second", 1)]
    assert measured("second", 2) == [("first, T = 10", 1), ("second", 2)]
    assert measured("T = 10", 3) == [("first, T = 10", 3), ("second", 2)]
    assert measured("", 4) == [("first, T = 5", 4), ("first, T = 10", 4), ("second", 4)]


def test_a_pattern_that_no_case_matches_is_refused(tmp_path: Path, project_root: Path) -> None:
    command = [sys.executable, "-m", "spikeloom", "bench", "drift", "--only", "tabs", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True)
    assert done.returncode == 1
    assert "expected a pattern that a case matches, got 'tabs'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_tables_go_between_their_markers_and_nothing_else_changes() -> None:
    page = "# Title\n\n<!-- bench some -->\nold\n<!-- /bench some -->\n\nThe end.\n"
    rows = [row(), row(peer="other", peer_value=1.0, ratio=0.5)]
    drawn = draw.put(page, "some", draw.tables(rows))
    assert "| small | kernel, ms | **2** | 5 (2.50) | 1 (0.50) |" in drawn
    assert "old" not in drawn
    assert drawn.startswith("# Title\n\n<!-- bench some -->\n")
    assert drawn.endswith("\n<!-- /bench some -->\n\nThe end.\n")
    assert draw.put(drawn, "some", draw.tables(rows)) == drawn
    with pytest.raises(BenchError, match="marker"):
        draw.put(page, "another", "")


def test_rows_without_a_peer_make_a_column_a_metric() -> None:
    alone = {"peer": None, "peer_value": None, "ratio": None}
    rows = [row(case=case, metric=metric, **alone) for case in ("a", "b") for metric in ("p50", "p99")]
    assert "| case | p50, ms | p99, ms |" in draw.tables(rows)


def test_results_of_the_project_fit_the_schema_and_the_docs_have_their_markers(project_root: Path) -> None:
    page = (project_root / "docs" / "benchmarks.md").read_text()
    for path in (project_root / "bench" / "results").glob("*.json"):
        assert harness.read(path)
        assert f"<!-- bench {path.stem} -->" in page
        assert "--quick" not in path.read_text(), f"{path.name} holds a trial"


def test_missing_data_is_said_with_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKELOOM_SHARED", str(tmp_path))
    with pytest.raises(BenchError, match=r"SPIKELOOM_SHARED.*four IDX files"):
        harness.shared_folder("mnist")


@pytest.mark.parametrize("depth", [1, 3])
def test_plain_torch_fires_as_we_do_in_pieces_and_whole(depth: int) -> None:
    setting = roll_out.prepare(roll_out.QUICK._replace(depth=depth, P=256))
    ours = roll_out.kernel(setting)().spikes
    for name, call in roll_out.eager(setting).items():
        spikes = torch.cat(call())
        if name == "torch":
            assert torch.equal(spikes, ours)
        elif name != "torch matmul":  # resets in another order, but is awake
            assert spikes.shape == ours.shape
            assert spikes.any() or depth > 1


def test_records_hold_every_timestep_of_every_sequence_once() -> None:
    spec = cluster.model("bench-test", witnesses=8, timesteps=8, features=4)
    seen: set[tuple[int, int]] = set()
    for lane, record in cluster.records(spec, cluster.noise(8, 4, count=16), 100, block=3, steps=3):
        piece = decode_slice(record, spec)
        assert piece is not None
        assert piece.lane == lane
        stepped = {(int(i), piece.start + k) for i in piece.ids for k in range(piece.codes.shape[1])}
        assert not seen & stepped
        seen |= stepped
    assert len(seen) == 8 * len({i for i, _ in seen})
    assert len({i for i, _ in seen}) >= 100


@pytest.mark.parametrize("whole", [True, False])
def test_a_plan_sends_each_timestep_in_order(whole: bool) -> None:
    plan = latency.plan(2000, 28, whole)
    expected: dict[int, int] = {}
    for sequence, start in zip(plan.sequence.tolist(), plan.start.tolist(), strict=True):
        if start >= 0:
            assert start == expected.get(sequence, 0)
            expected[sequence] = start + plan.steps
    assert sum(done == 28 for done in expected.values()) > 10


def test_a_rate_is_counted_between_checkpoints_in_the_steady_part() -> None:
    """Bursts of 100 every 2 s after one that is slow to come: 50 a second, whatever the first and the last do."""
    times = [0.0, 10.0, *np.arange(12.0, 28.0, 2.0), 40.0]
    seen = [cluster.Arrival(at + jitter, 50) for at in times for jitter in (0.0, 0.1)]
    rate = cluster.steady(seen, 100 * len(times))
    assert rate.per_second == pytest.approx(50)
    with pytest.raises(BenchError, match="two checkpoints"):
        cluster.steady(seen[:2], 1000)


def test_the_fit_finds_the_costs_it_was_made_from() -> None:
    costs = np.array([2e-9, 5e-4, 2e-5, 1e-8])
    rates = [point.K / float(np.dot(point.terms(), costs)) for point in scale.POINTS]
    assert scale.fit(scale.POINTS, rates) == pytest.approx(costs, rel=1e-6)


def test_results_are_plain_json(tmp_path: Path) -> None:
    report = Report("some", quick=False, cores=2)
    report.add("case", "time", "ms", 2.0)
    (held,) = json.loads(report.write(tmp_path).read_text())
    assert set(held) == {
        "case", "metric", "unit", "ours", "peer", "peer_value", "ratio", "runs", "command", "cores", "device",
    }  # fmt: skip

"""Draws the tables and pictures of the docs from `bench/results/*.json`: no figure is typed.

    spikeloom bench draw

A table goes between the markers `<!-- bench NAME -->` and `<!-- /bench NAME -->` of `docs/benchmarks.md`, one for each
results file; a picture to `docs/bench-NAME.png` where `PICTURES` has one.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from bench.harness import RESULTS, BenchError, Row, factor, number, read
from bench.pictures import PICTURES
from spikeloom import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="spikeloom bench draw", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="from trials: to look at, not to publish")
    parser.add_argument("--results", type=Path, help="folder of the JSON files")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of benchmarks.md and the pictures")
    options = parser.parse_args()
    folder = options.results or (RESULTS / "quick" if options.quick else RESULTS)
    page = options.docs / "benchmarks.md"
    text = page.read_text()
    for name in re.findall(r"<!-- bench (\w+) -->", text):
        path = folder / f"{name}.json"
        if not path.exists():
            print(f"{name}: no results yet; run: spikeloom bench {name}")
            continue
        rows = read(path)
        drawn = [TABLES.get(name, tables)(rows), provenance(rows)]
        if draw := PICTURES.get(name):
            picture = f"bench-{name}.png"
            figure = draw(rows)
            figure.savefig(options.docs / picture, dpi=120)
            plt.close(figure)
            drawn.insert(0, f"![{draw.__doc__}]({picture})")
        text = put(text, name, "\n\n".join(drawn))
        print(f"{name}: {len(rows)} rows")
    page.write_text(text)


def put(text: str, name: str, drawn: str) -> str:
    """`text` with what stands between the markers of `name` replaced."""
    begin, end = f"<!-- bench {name} -->", f"<!-- /bench {name} -->"
    if begin not in text or end not in text:
        raise BenchError(f"expected the markers {begin} and {end} in benchmarks.md, found one or none")
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n{drawn}\n{end}{rest.split(end, 1)[1]}"


def tables(rows: list[Row]) -> str:
    """Rows with peers: a line for each case and metric, a column for each peer. Rows without: a column a metric."""
    compared = [row for row in rows if row.peer]
    alone = [row for row in rows if not row.peer]
    return "\n\n".join(filter(None, (_beside_peers(compared), _by_metric(alone))))


def _beside_peers(rows: list[Row]) -> str:
    if not rows:
        return ""
    peers = list(dict.fromkeys(row.peer for row in rows))
    lines = [["case", "metric", "ours", *(f"{peer}" for peer in peers)]]
    for case, metric, unit in dict.fromkeys((row.case, row.metric, row.unit) for row in rows):
        same = {row.peer: row for row in rows if (row.case, row.metric, row.unit) == (case, metric, unit)}
        first = next(iter(same.values()))
        cells = [
            f"{number(row.peer_value or 0)} ({factor(row.ratio or 0)})" if (row := same.get(peer)) else ""
            for peer in peers
        ]
        lines.append([case, f"{metric}, {unit}", f"**{number(first.ours)}**", *cells])
    return _markdown(lines) + "\n\nIn brackets: the ratio; above 1 ours is better."


def _by_metric(rows: list[Row]) -> str:
    """One table for each set of metrics, so that no table is mostly empty."""
    of_case: dict[str, dict[str, Row]] = {}
    for row in rows:
        of_case.setdefault(row.case, {})[f"{row.metric}, {row.unit}" if row.unit else row.metric] = row
    blocks = []
    for metrics in dict.fromkeys(tuple(held) for held in of_case.values()):
        cases = {case: held for case, held in of_case.items() if tuple(held) == metrics}
        if len(cases) == 1 and len(metrics) > 1:
            ((case, held),) = cases.items()
            lines = [[case, "value"], *([metric, number(row.ours)] for metric, row in held.items())]
        else:
            lines = [
                ["case", *metrics],
                *([case, *(number(held[m].ours) for m in metrics)] for case, held in cases.items()),
            ]
        blocks.append(_markdown(lines))
    return "\n\n".join(blocks)


def _paper_tables(rows: list[Row]) -> str:
    """A line for each task, a column for each variant: mean and spread over the seeds, in brackets the paper's."""
    accuracy = {row.case: row for row in rows if row.metric == "accuracy"}
    lines: dict[str, dict[str, str]] = {}
    for case, row in accuracy.items():
        task, _, variant = case.partition(": ")
        if variant:
            theirs = "" if row.peer_value is None else f" ({row.peer_value:.3f})"
            lines.setdefault(task, {})[variant] = _mean_and_spread(row) + theirs
    variants = list(dict.fromkeys(variant for held in lines.values() for variant in held))
    main = [["accuracy", *variants], *([task, *(held.get(v, "") for v in variants)] for task, held in lines.items())]
    gaps = [row for row in rows if row.case.startswith("gap")]
    return f"{tables(gaps)}\n\n{_markdown(main)}\n\nIn brackets: the paper's."


def _law_table(rows: list[Row]) -> str:
    """A line for each law on each task, with what its columns are like."""
    shown = ("columns", "distinct", "firing rate", "silent", "saturated", "largest relative gap", "roll-out", "solve")
    held: dict[str, dict[str, Row]] = {}
    papers: dict[str, dict[str, str]] = {}
    for row in rows:
        held.setdefault(row.case, {})[row.metric] = row
        if row.peer_value is not None:
            papers.setdefault(row.case, {})[row.peer or ""] = f"{row.peer_value:.3f}"
    lines = [["case", "accuracy", "paper CVX", "paper SG", *(f"{m}, s" if m in shown[-2:] else m for m in shown)]]
    for case, found in held.items():
        peers = [papers.get(case, {}).get(peer, "") for peer in lines[0][2:4]]
        figures = [number(found[metric].ours) if metric in found else "" for metric in shown]
        lines.append([case, f"**{_mean_and_spread(found['accuracy'])}**", *peers, *figures])
    return _markdown(lines)


def _time_table(rows: list[Row]) -> str:
    """A line for each trainer on each task, a column for each p: samples, updates and seconds."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        found.setdefault(row.case, {}).setdefault(row.metric, []).append(f"{number(row.ours)} {row.unit}")
    metrics = list(dict.fromkeys(row.metric for row in rows))
    lines = [["case", *metrics]]
    for case, held in found.items():
        lines.append([case, *("<br>".join(held.get(metric, [])).replace(" of 1", "") for metric in metrics)])
    return _markdown(lines)


def _mean_and_spread(row: Row) -> str:
    """Of an accuracy with a point for each seed."""
    values = [value for _, value in row.curve or []]
    return f"{row.ours:.3f}" + (f" ± {np.std(values):.3f}" if len(values) > 1 else "")


def provenance(rows: list[Row]) -> str:
    runs = sorted({row.runs for row in rows})
    counts = f"{runs[0]:,}" if len(runs) == 1 else f"{runs[0]:,} to {runs[-1]:,}"
    first = rows[0]
    return f"`{first.command}`; {first.device}, cores used: {first.cores}; runs or samples a figure: {counts}."


def _markdown(lines: list[list[str]]) -> str:
    head, *body = (f"| {' | '.join(cells)} |" for cells in lines)
    rule = "|---" + "|---:" * (len(lines[0]) - 1) + "|"
    return "\n".join([head, rule, *body])


TABLES: dict[str, Callable[[list[Row]], str]] = {
    "paper": _paper_tables,
    "witness_laws": _law_table,
    "time_to_accuracy": _time_table,
}

if __name__ == "__main__":
    main()

"""The dashboards as files: found by Grafana, laid out without overlaps, and asking for what there is. Prometheus' own
promtool parses every query."""

import ast
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from solver_service import metrics
from tests.dashboards import DASHBOARDS, FLINKS_LABELS, PREFIX, documented, labels_in, load, metrics_in, queries

COLUMNS = 24  # of Grafana's grid
SERIES = {"counter": {"_total": set()}, "histogram": {"_bucket": {"le"}, "_sum": set(), "_count": set()}}
VARIABLES = {"$model": "m", "$layer": "1", "$window": "5m", "$__rate_interval": "1m"}

each = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def test_dashboards_are_found_and_told_apart(compose: dict, project_root: Path) -> None:
    provider = yaml.safe_load((project_root / "deploy/grafana/provisioning/dashboards/spikeloom.yaml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    grafana = compose["services"]["grafana"]
    assert f"./deploy/grafana/dashboards:{folder}:ro" in grafana["volumes"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.name in {path.name for path in DASHBOARDS}
    dashboards = [load(path) for path in DASHBOARDS]
    assert len({dashboard["uid"] for dashboard in dashboards}) == len(dashboards) > 1
    assert len({dashboard["title"] for dashboard in dashboards}) == len(dashboards)
    assert len({dashboard["schemaVersion"] for dashboard in dashboards}) == 1
    for link in (link for dashboard in dashboards for link in dashboard["links"]):
        assert all(set(link["tags"]) <= set(dashboard["tags"]) for dashboard in dashboards)


@each
def test_a_dashboard_is_complete(path: Path, project_root: Path) -> None:
    dashboard = load(path)
    datasource = yaml.safe_load((project_root / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())
    variables = [variable for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    panels = [panel for panel in dashboard["panels"] if panel["type"] not in ("text", "row")]
    asking = [*variables, *panels, *(target for panel in panels for target in panel["targets"])]
    assert {entry["datasource"]["uid"] for entry in asking} == {datasource["datasources"][0]["uid"]}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names) > 0, panel["title"]


@each
def test_panels_lie_beside_each_other(path: Path) -> None:
    places = [panel["gridPos"] for panel in load(path)["panels"]]
    assert all(at["x"] >= 0 and at["w"] > 0 and at["x"] + at["w"] <= COLUMNS for at in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, f"{one} overlaps {other}"


@each
def test_queries_ask_for_documented_metrics_and_labels(path: Path) -> None:
    known, dashboard = documented(), load(path)
    for title, query in queries(dashboard):
        assert metrics_in(query), f"{title}: no metric in {query}"
        unknown = metrics_in(query) - known.keys()
        assert not unknown, f"{title}: docs/metrics.md lists no {unknown}"
        labels = set[str]().union(*(known[metric] for metric in metrics_in(query)))
        assert labels_in(query) <= labels, f"{title}: {query}"
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named <= labels_in(target["expr"]), f"{panel['title']}: {target['legendFormat']}"
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
            (metric,) = metrics_in(selector)
            assert {label, *labels_in(selector)} <= known[metric]


@each
def test_promtool_parses_every_query(path: Path, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.fail("The program `promtool`, a part of Prometheus, is missing: see test_dashboard.py.")
    rules = []
    for number, (_, query) in enumerate(queries(load(path))):
        for name, value in VARIABLES.items():
            query = query.replace(name, value)
        assert "$" not in query
        rules.append({"record": f"panel:{number}", "expr": query})
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": path.stem, "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_the_solvers_metrics_are_those_of_the_docs() -> None:
    exported = {}
    for collector in vars(metrics).values():
        if isinstance(collector, MetricWrapperBase):
            (family,) = collector.describe()
            for ending, more in SERIES.get(family.type, {"": set()}).items():
                exported[family.name + ending] = set(collector._labelnames) | more
    assert exported == {name: labels for name, labels in documented().items() if not name.startswith(PREFIX)}


def test_the_operators_metrics_of_the_docs_are_counted_somewhere(project_root: Path) -> None:
    trees = [ast.parse(path.read_text()) for path in (project_root / "operators").glob("*.py")]
    named = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    for metric, labels in documented().items():
        if metric.startswith(PREFIX):
            own = "|".join(labels - {"model", *FLINKS_LABELS})
            name = re.sub(rf"^(?:(?:{own})_)+", "", metric.removeprefix(PREFIX)).removesuffix("_billionths")
            assert name in named, f"no operator counts {metric}"

"""The dashboards as Grafana reads them, and the metrics that docs/metrics.md lists."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
PREFIX = "flink_taskmanager_job_task_operator_spikeloom_model_"
FLINKS_LABELS = {"job_name", "operator_name", "subtask_index"}
LABEL_LISTS = r"\b(?:by|without)\s*\(([^)]*)\)"


def load(path: Path) -> dict:
    return json.loads(path.read_text())


def queries(dashboard: dict) -> list[tuple[str, str]]:
    """(title of the panel, query)."""
    return [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])]


def of_row(dashboard: dict, title: str) -> list[tuple[str, str]]:
    """The queries of the panels below the row of this title, up to the next row."""
    found, inside = [], False
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            inside = panel["title"] == title
        elif inside:
            found.append(panel)
    assert found, f"no panels below {title}"
    return queries({"panels": found})


def metrics_in(query: str) -> set[str]:
    """Names that are neither a function nor within a selector or a list of labels."""
    bare = re.sub(rf"\{{[^}}]*\}}|\[[^]]*\]|{LABEL_LISTS}", "", query)
    return set(re.findall(r"\b[a-zA-Z_]\w*\b(?!\s*\()", bare))


def labels_in(query: str) -> set[str]:
    """Labels that the query selects or sums by."""
    selected = re.findall(r"[{,]\s*(\w+)\s*[=!]", query)
    return {*selected, *(label for listed in re.findall(LABEL_LISTS, query) for label in re.findall(r"\w+", listed))}


def documented() -> dict[str, set[str]]:
    """The metrics of docs/metrics.md with the labels of each, as Prometheus has them."""
    metrics = {}
    _, flinks, solvers = re.split(
        r"^## (?:Flink's operators|Solver)$", (ROOT / "docs" / "metrics.md").read_text(), flags=re.M
    )
    for section, prefix, own in ((flinks, PREFIX, {"model", *FLINKS_LABELS}), (solvers, "", set())):
        for names, labels, meaning in re.findall(r"^\| (`.*?) \|(.*?)\| (.*) \|$", section, flags=re.M):
            known = own | set(re.findall(r"`(\w+)`", labels))
            endings = (
                {"_bucket": {"le"}, "_sum": set(), "_count": set()} if meaning.startswith("histogram") else {"": set()}
            )
            for name in re.findall(r"`(\w+)`", names):
                metrics |= {prefix + name + ending: known | more for ending, more in endings.items()}
    return metrics

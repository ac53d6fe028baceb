"""Every query of the brain waves' dashboard, asked of a real Prometheus that scrapes a real stack while digits stream
through it."""

import json
import math
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import yaml
from kafka import KafkaProducer
from sklearn.datasets import load_digits

from snn import engine
from snn.encoding import to_codes
from snn.model import ModelSpec, load_model
from spikeloom.client import Client, Pushed
from spikeloom.local import FlinkSettings, Stack
from spikeloom.local.ports import HOST, Ports
from tests.dashboards import PREFIX, ROOT, load, queries
from wire import messages_pb2 as pb
from wire.codec import SCHEMA

DASHBOARD = load(ROOT / "deploy" / "grafana" / "dashboards" / "brain-waves.json")
MODEL = "brain-waves"  # a name with a dash, which Flink's reporter would change if it were let
VARIABLES = {"$model": MODEL, "$layer": "1", "$window": "5m", "$__rate_interval": "1m"}
PORTION, PORTIONS = 400, 3
PATIENCE_S = 240
SCRAPE_S = 1


class Prometheus:
    def __init__(self, port: int) -> None:
        self.url = f"http://{HOST}:{port}"

    def ask(self, query: str) -> list[dict]:
        """An instant vector; what is no number is left out, as a panel would show nothing there."""
        result = self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': query})}")["result"]
        return [entry for entry in result if math.isfinite(float(entry["value"][1]))]

    def value(self, query: str) -> float:
        return sum(float(entry["value"][1]) for entry in self.ask(query))

    def labels(self, metric: str, label: str) -> list[str]:
        return self._get(f"/api/v1/label/{label}/values?{urllib.parse.urlencode({'match[]': metric})}")

    def is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=2).close()
        except OSError:
            return False
        return True

    def _get(self, path: str) -> list | dict:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)["data"]


@pytest.fixture(scope="module")
def model() -> ModelSpec:
    return load_model(ROOT / "src" / "spikeloom" / "tasks" / "digits.yaml").model_copy(update={"model": MODEL})


@pytest.fixture(scope="module")
def busy_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own: a solver on the shared one would publish readouts of other tests' models."""
    options = {"metrics.reporter.prom.filterLabelValueCharacters": "false"}  # as in the containers
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPIKELOOM_SOLVER_EVERY_SECONDS", "2")
        with Stack(
            tmp_path_factory.mktemp("busy"), slots=2, solver=True, settings=FlinkSettings(options=options)
        ) as stack:
            yield stack


@pytest.fixture(scope="module")
def prometheus(busy_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """With the settings of deploy/prometheus/prometheus.yml; only targets and interval are other ones."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.fail(
            "The program `prometheus` is missing, and without it nobody knows whether the dashboard's queries work. "
            "Debian and Ubuntu: apt-get install prometheus (.ci/run does it); elsewhere put it on the PATH."
        )
    folder, port = tmp_path_factory.mktemp("prometheus"), Ports().take()
    settings = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": f"{SCRAPE_S}s", "scrape_timeout": f"{SCRAPE_S}s"}
    urls = busy_stack.metrics_urls
    for job in settings["scrape_configs"]:
        (url,) = [url for name, url in urls.items() if name.startswith(job["job_name"])]
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": [urllib.parse.urlsplit(url).netloc]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    command = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        server = Prometheus(port)
        wait("Prometheus", lambda: server.is_ready() or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def streamed(busy_stack: Stack, prometheus: Prometheus, model: ModelSpec) -> Prometheus:
    """Digits in portions, so that counters grow between scrapes; then duplicates and poison."""
    digits = load_digits()
    with Client(busy_stack.connection) as client:
        client.register(model)
        for job in ("roll_out", "predict"):
            busy_stack.submit(ROOT / "flink_jobs" / f"{job}.py", "--model", model.model)

        def push(portion: int) -> Pushed:
            rows = slice(portion * PORTION, (portion + 1) * PORTION)
            return client.push(model, digits.images[rows] / 16, digits.target[rows], ids=np.arange(PORTION * 9)[rows])

        for portion in range(PORTIONS):
            push(portion)
            rows, version = (portion + 1) * PORTION, portion + 1
            wait(f"{rows} rows", lambda rows=rows: prometheus.value("spikeloom_dictionary_rows") == rows)
            wait("a readout", lambda version=version: prometheus.value("spikeloom_readout_version") >= version)
            # The first portion waits for the first readout and is answered by a timer, which PyFlink does not count.
            wait("answers", lambda least=portion * PORTION: prometheus.value(total("predictions")) >= least)
        push(1)
        client.send(pb.Block(schema=SCHEMA, model=model.model, features=3, steps=1, ids=[1]).SerializeToString(), 0)
        client.flush()
    producer = KafkaProducer(**busy_stack.connection.python_client())
    producer.send("spike-columns", b"poison")
    producer.close()
    wait("duplicates", lambda: prometheus.value(total("duplicates")) > 0)
    wait("dead letters", lambda: prometheus.value(total("reason_dead_letters")) >= 2)
    wait("the solver's dead letter", lambda: prometheus.value("spikeloom_solver_dead_letters_total") >= 1)
    return prometheus


@pytest.mark.parametrize(("title", "query"), queries(DASHBOARD))
def test_a_query_of_the_dashboard_returns_data(title: str, query: str, streamed: Prometheus) -> None:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query
    assert streamed.ask(query), f"{title}: no data from {query}"


def test_variables_of_the_dashboard_have_values(streamed: Prometheus) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
            values = streamed.labels(metric.replace("$model", MODEL), label)
            assert VARIABLES[f"${variable['name']}"] in values


def test_the_wave_is_the_mean_of_an_offline_roll_out(streamed: Prometheus, model: ModelSpec) -> None:
    """Of what Flink counted in all; increase() of the same counters is what the panel shows."""
    network = engine.on_device(model, range(model.witnesses.count))
    codes = to_codes(load_digits().images[: PORTIONS * PORTION] / 16, model.input)
    resting = np.tile(engine.resting(network), (len(codes), 1))
    waves = engine.advance(codes, 0, resting, network, model.input).active
    for layer, active in enumerate(waves, start=1):
        for timestep, count in enumerate(active):
            labels = f'{{model="{MODEL}", layer="{layer}", timestep="{timestep:04d}"}}'
            assert streamed.value(f"{PREFIX}layer_timestep_active_neurons{labels}") == count
            assert streamed.value(f"{PREFIX}layer_timestep_stepped_sequences{labels}") == PORTIONS * PORTION


def total(name: str) -> str:
    return f'sum({PREFIX}{name}{{model="{MODEL}"}})'


def wait(what: str, happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.2)

"""Surrogate gradients on Flink: the same weights, bit for bit, with and without a crash, and exact witnesses."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from snn import lif
from snn.engine import to_inputs
from snn.model import ModelSpec
from snn.training.objective import of_model, targets_of
from snn.training.on_grid import is_exact, on_grid
from spikeloom.client import Client
from spikeloom.local import Stack
from tests.dashboards import PREFIX
from tests.integration.conftest import eventually, job, not_shown, scraped
from tests.models import small_model
from wire.registry import read_all, read_weights_version
from wire.weights import Weights, decode_weights, decode_witnesses, weights_of, witnesses_model

ROUNDS = 12
TRAINING = {
    "rounds": ROUNDS, "local_steps": 4, "batch": 16, "workers": 2, "learning_rate": 0.02, "publish_every": 4,
    "outer_momentum": 0.5, "round_timeout_s": 120,
}  # fmt: skip
SEQUENCES = ROUNDS * 4 * 16 * 2


def model(name: str, **readout: object) -> ModelSpec:
    witnesses = {"law": {"name": "gaussian", "scale": 3}, "count": 64}
    readout = {"outputs": 3, "loss": "multinomial", **readout}
    return small_model(model=name, witnesses=witnesses, readout=readout, training=TRAINING)


def data() -> tuple[np.ndarray, np.ndarray]:
    """Which third of a sequence's features is brightest."""
    rng = np.random.default_rng(0)
    codes, classes = rng.integers(0, 8, (SEQUENCES, 8, 8)), rng.integers(0, 3, SEQUENCES)
    for start in range(3):
        codes[classes == start, :, 3 * start : 3 * start + 2] += 8
    return codes / 16, classes


def test_the_same_weights_with_and_without_a_crash(stack: Stack, project_root: Path) -> None:
    inputs, classes = data()
    undisturbed, crashed = model("undisturbed"), model("crashed")

    def push(spec: ModelSpec, first: int, last: int, block: int) -> None:
        client.push(spec, inputs[first:last], classes[first:last], ids=np.arange(first, last), block=block)

    with Client(stack.connection) as client:
        for spec in (undisturbed, crashed):
            client.register(spec)
        with job(stack, project_root, "train_surrogate", undisturbed):
            push(undisturbed, 0, SEQUENCES, block=64)
            eventually(lambda: version(stack, undisturbed) == ROUNDS, "all rounds", seconds=240)
            eventually(lambda: len(witnesses(stack, undisturbed)) == 3, "the last witnesses")
            eventually(lambda: shown(stack, "weights_version") == ROUNDS, "the newest version as a metric")
            for name in ("loss", "gradient_norm", "implicit_regulariser", "sharpness", "stable_sharpness"):
                assert shown(stack, f"{name}_billionths") > 0, name
            missing = not_shown("Surrogate gradients (train_surrogate)", stack.metrics_urls.values())
            assert missing <= {f"{PREFIX}worker_late_rounds"}, "counted only where a worker was late"
        with job(stack, project_root, "train_surrogate", crashed):
            half = SEQUENCES // 2
            push(crashed, 0, half, block=7)
            eventually(lambda: version(stack, crashed) >= 2, "the first rounds", seconds=240)
            stack.kill_task_manager()
            stack.start_task_manager()
            push(crashed, half, SEQUENCES, block=7)
            eventually(lambda: version(stack, crashed) == ROUNDS, "all rounds in spite of a crash", seconds=240)

    one, other = history(stack, undisturbed), history(stack, crashed)
    assert [weights.workers for weights in one] == [(0, 1)] * ROUNDS
    for mine, its in zip(one, other, strict=True):
        assert np.array_equal(mine.parameters, its.parameters), f"version {mine.version}"
        assert (mine.samples, mine.loss, mine.workers) == (its.samples, its.loss, its.workers)
    assert one[-1].samples == SEQUENCES
    assert np.isfinite(one[0].sharpness)
    check_learning(undisturbed, one)
    check_witnesses(stack, undisturbed, one)


def shown(stack: Stack, name: str) -> float:
    """The value of a metric of the training, 0 where there is none."""
    lines = (line for line in scraped(stack.metrics_urls.values()) if line.startswith(f"{PREFIX}{name}{{"))
    return sum(float(line.split()[-1]) for line in lines if 'operator_name="average"' in line)


def check_learning(spec: ModelSpec, found: list[Weights]) -> None:
    inputs, classes = data()
    chosen = of_model(spec)
    x = torch.from_numpy(inputs).float()
    x = torch.cat([x, torch.zeros(SEQUENCES, 8, 1)], dim=2)
    x[:, -1, -1] = 1
    y = targets_of(classes.astype(np.int32)[:, None, None], spec.readout)
    with torch.no_grad():
        before, after = (float(chosen.loss(torch.from_numpy(found[at].parameters.copy()), x, y)) for at in (0, -1))
    assert after < 0.5 * before


def check_witnesses(stack: Stack, spec: ModelSpec, found: list[Weights]) -> None:
    published = witnesses(stack, spec)
    assert [number for number, _ in published] == [4, 8, 12]
    chosen, codes = of_model(spec), np.random.default_rng(1).integers(0, 17, (5, 8, 8))
    for number, network in published:
        trained = chosen.network(torch.from_numpy(found[number - 1].parameters.copy()))
        assert is_exact(network, spec.input, 8)
        for mine, its in zip(network, on_grid(trained, spec.input, 8), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine[:4], its[:4], strict=True))
    state = lif.initial_state(network, 5)
    assert lif.roll_out(to_inputs(codes, spec.input), state, network).spikes.shape == (5, 64)


def version(stack: Stack, spec: ModelSpec) -> int:
    return read_weights_version(stack.connection, spec)


def history(stack: Stack, spec: ModelSpec) -> list[Weights]:
    """The first record of every version."""
    size, first = len(of_model(spec).initial()), {}
    for record in of_spec(read_all(stack.connection, "weights"), spec):
        weights = decode_weights(record, spec, size)
        first.setdefault(weights.version, weights)
    return [first[number] for number in sorted(first)]


def of_spec(records: Iterable[bytes], spec: ModelSpec) -> list[bytes]:
    return [record for record in records if weights_of(record, spec) is not None]


def witnesses(stack: Stack, spec: ModelSpec) -> list:
    records = read_all(stack.connection, "witnesses")
    return [decode_witnesses(record, spec) for record in records if witnesses_model(record) == spec.model]

"""A law's dictionary on a task: rolled out on training sequences, solved, asked. What `witness_laws` compares.

first-last XOR    final spikes; squared loss, l1
MNIST             final spikes, rows of 28 pixels (T = 28) or pixel after pixel (T = 784); multinomial, ridge
addition          spikes at every timestep, digit and carry; squared loss, group; trained at length 10. A token is
                  right where both are. With the carry as input the network goes on with its own carries
running parity    spikes at every timestep; squared loss, l1; trained at length 10

beta is chosen on a tenth of the training rows that is held out, for MNIST once and for all on 6,000 training digits.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter

import spikeloom.data
from bench import harness
from bench.harness import shared_folder
from bench.paper_figures import TRAINED_AT
from snn import engine, fused, lif
from snn.encoding import to_codes
from snn.laws import Law
from snn.laws.base import WitnessLaw
from snn.model import ModelSpec, parse_model
from solver_service import ReadoutClassifier, ReadoutRegressor
from spikeloom.tasks import load_task, sequences

XOR_ROWS, XOR_TESTS = 4096, 4096
TOKEN_ROWS, TOKEN_TESTS = 2000, 500  # sequences of `TRAINED_AT` digits or bits
MNIST_BETA = 0.003  # of ridge at .01 and .003, group at .003 and .001; `stored_templates` at 4,096 columns
PIXEL_ROWS = 20_000  # training digits of laws whose columns must be rolled out pixel by pixel
BLOCK = 256  # sequences stepped at a time
WITNESSES = 1024  # sampled and stepped at a time: templates take 100 MB then

Bits = npt.NDArray[np.bool_]


class Data(NamedTuple):
    """inputs: [N, T, m]; targets: classes [N], or [N, T, heads]."""

    inputs: npt.NDArray
    targets: npt.NDArray


class Rung(NamedTuple):
    """A law with its parameters, as the table names it, and how many witnesses are drawn."""

    name: str
    law: dict[str, Any]
    columns: int


class Measured(NamedTuple):
    """accuracy: by what the readout was asked; dictionary: the columns on training rows [N, P]; gap: relative."""

    accuracy: dict[str, float]
    dictionary: Bits
    gap: float
    roll_out: float
    solve: float


def xor(rung: Rung, seed: int, timesteps: int) -> Measured:
    train = _made(sequences.first_last_xor(XOR_ROWS, timesteps, 2 * seed))
    test = _made(sequences.first_last_xor(XOR_TESTS, timesteps, 2 * seed + 1))
    spec = model(rung, seed, train, bits=0)
    begun = time.perf_counter()
    columns = final(spec, train.inputs)
    rolled_out = time.perf_counter()
    readout = squared(columns, train.targets[:, None])
    solved = time.perf_counter()
    right = (scores(readout, final(spec, test.inputs))[:, 0] > 0.5) == test.targets
    task = f"first-last XOR, T = {timesteps}"
    seconds = rolled_out - begun, solved - rolled_out
    return Measured({task: right.mean()}, columns, readout.relative_gap_, *seconds)


def parity(rung: Rung, seed: int) -> Measured:
    def make(count: int, timesteps: int, seed: int) -> Data:
        return _made(sequences.running_parity(count, timesteps, seed))

    def right(scores: npt.NDArray, targets: npt.NDArray) -> Bits:
        return (scores[..., 0] > 0.5) == targets[..., 0]

    return _every_step(rung, seed, make, lambda targets: targets, right, "running parity", (10, 30, 100))


def remembered(rung: Rung, seed: int, base: int) -> Measured:
    """Addition without the carry as input."""

    def make(count: int, timesteps: int, seed: int) -> Data:
        return _made(sequences.addition(count, base, timesteps, seed, carry_input=False))

    def right(scores: npt.NDArray, targets: npt.NDArray) -> Bits:
        return (_tokens(scores) == targets).all(axis=-1)

    return _every_step(
        rung, seed, make, _digit_and_carry(base), right, f"addition base {base} without carry", (10, 100)
    )


def _every_step(
    rung: Rung,
    seed: int,
    make: Callable[[int, int, int], Data],
    as_targets: Callable[[npt.NDArray], npt.NDArray],
    right: Callable[[npt.NDArray, npt.NDArray], Bits],
    task: str,
    lengths: tuple[int, ...],
) -> Measured:
    """Trained at the first length, asked at every one; accuracy over all timesteps."""
    train = make(TOKEN_ROWS, lengths[0], 2 * seed)
    begun = time.perf_counter()
    columns = every_step(model(rung, seed, train), train.inputs)
    rolled_out = time.perf_counter()
    targets = as_targets(train.targets)
    readout = squared(columns.reshape(-1, rung.columns), targets.reshape(-1, targets.shape[-1]))
    solved = time.perf_counter()
    accuracy = {}
    for length in lengths:
        test = make(TOKEN_TESTS, length, 2 * seed + 1)
        spikes = every_step(model(rung, seed, test), test.inputs)
        answers = scores(readout, spikes.reshape(-1, rung.columns)).reshape(*spikes.shape[:2], -1)
        accuracy[f"{task}, length {length}"] = float(right(answers, test.targets).mean())
    seconds = rolled_out - begun, solved - rolled_out
    return Measured(accuracy, columns.reshape(-1, rung.columns), readout.relative_gap_, *seconds)


def added(rung: Rung, seed: int, base: int) -> Measured:
    """Addition with the carry as input: trained on true carries, asked with those that it predicted itself."""
    train = _made(sequences.addition(TOKEN_ROWS, base, TRAINED_AT, 2 * seed))
    begun = time.perf_counter()
    columns = every_step(model(rung, seed, train), train.inputs).reshape(-1, rung.columns)
    rolled_out = time.perf_counter()
    targets = _digit_and_carry(base)(train.targets)
    readout = squared(columns, targets.reshape(-1, base + 1))
    solved = time.perf_counter()
    accuracy = {}
    for length in (TRAINED_AT, 10 * TRAINED_AT):
        test = _made(sequences.addition(TOKEN_TESTS, base, length, 2 * seed + 1))
        network = fused.Prepared(model(rung, seed, test).network(range(rung.columns)))
        state, right = lif.initial_state(network, TOKEN_TESTS), []
        carry = np.zeros(TOKEN_TESTS)
        for t in range(length):
            heard = test.inputs[:, t : t + 1].copy()
            heard[:, 0, 2] = carry
            result = fused.roll_out(torch.tensor(heard, dtype=torch.float32), state, network)
            state, tokens = result.state, _tokens(scores(readout, result.spikes.numpy()))
            right.append((tokens == test.targets[:, t]).all(axis=1))
            carry = tokens[:, 1].astype(np.float64)
        accuracy[f"addition base {base}, length {length}"] = float(np.mean(right))
    return Measured(accuracy, columns, readout.relative_gap_, rolled_out - begun, solved - rolled_out)


def _digit_and_carry(base: int) -> Callable[[npt.NDArray], npt.NDArray]:
    """Targets [..., 2] as one-hot digits and the carry [..., base + 1]."""
    return lambda targets: np.concatenate([np.eye(base)[targets[..., 0]], targets[..., 1:]], axis=-1)


def _tokens(scores: npt.NDArray) -> npt.NDArray[np.int64]:
    """Digit and carry [..., 2] from scores [..., base + 1]."""
    return np.stack([scores[..., :-1].argmax(axis=-1), scores[..., -1] > 0.5], axis=-1)


def rows(rung: Rung, seed: int, name: str) -> Measured:
    """Images, a row of pixels a timestep; MNIST, or for a trial the digits of scikit-learn, which everybody has."""
    train, test = _images(name)
    spec = model(rung, seed, train)
    return _digits(f"{name}, rows", spec, train, test.targets, lambda: final(spec, test.inputs))


def pixels(rung: Rung, seed: int, name: str) -> Measured:
    """One pixel after another. Stored templates see in single pixels the bits that they see in rows: their dictionary
    is that of the rows, which is checked, so that only what is asked is rolled out pixel by pixel."""
    train, test = _images(name)
    one_by_one, asked = (Data(part.inputs.reshape(len(part.inputs), -1, 1), part.targets) for part in (train, test))
    spec = model(rung, seed, one_by_one)
    if rung.law["name"] == "stored_templates":
        of_rows = model(rung, seed, train)
        if not np.array_equal(final(spec, one_by_one.inputs[:BLOCK]), final(of_rows, train.inputs[:BLOCK])):
            raise harness.BenchError("expected the columns of single pixels to be those of rows, got others")
        return _digits(f"{name}, pixels", of_rows, train, test.targets, lambda: final(spec, asked.inputs))
    return _digits(
        f"{name}, pixels", spec, _first(one_by_one, PIXEL_ROWS), test.targets, lambda: final(spec, asked.inputs)
    )


def _digits(task: str, spec: ModelSpec, train: Data, classes: npt.NDArray, asked: Callable[[], Bits]) -> Measured:
    begun = time.perf_counter()
    columns = final(spec, train.inputs)
    rolled_out = time.perf_counter()
    readout = ReadoutClassifier(penalty="ridge", relative_beta=MNIST_BETA)
    readout.fit(columns.view(np.uint8), train.targets)
    solved = time.perf_counter()
    right = readout.predict(asked().view(np.uint8)) == classes
    seconds = rolled_out - begun, solved - rolled_out
    return Measured({task: float(right.mean())}, columns, readout.relative_gap_, *seconds)


@cache
def _images(name: str) -> tuple[Data, Data]:
    task = load_task("digits", None) if name == "digits" else load_task("mnist-rows", shared_folder("mnist"))
    return _made(task.train), _made(task.test)


def _made(data: spikeloom.data.Data) -> Data:
    assert data.targets is not None
    return Data(data.inputs, data.targets)


def _first(data: Data, count: int) -> Data:
    return Data(data.inputs[:count], data.targets[:count])


def model(rung: Rung, seed: int, data: Data, bits: int = 8) -> ModelSpec:
    """Witnesses for sequences like `data`, from which the law takes its statistics if it has any."""
    law: WitnessLaw = TypeAdapter(Law).validate_python(rung.law)
    if type(law).calibrated is not WitnessLaw.calibrated:
        law = law.calibrated(data.inputs)
    _, timesteps, features = data.inputs.shape
    end_pulse = rung.law["name"] == "local_integrators"
    return parse_model({
        "model": "bench",
        "input": {"timesteps": timesteps, "features": features, "bits": bits, "end_pulse": end_pulse},
        "witnesses": {"law": law.model_dump(), "seed": seed, "count": rung.columns},
        "readout": {"outputs": 2},
    })  # fmt: skip


def final(spec: ModelSpec, inputs: npt.NDArray) -> Bits:
    """Spikes [N, P] at the last timestep."""
    columns = np.empty((len(inputs), spec.witnesses.count), np.bool_)
    for first in range(0, spec.witnesses.count, WITNESSES):
        ids = range(first, min(first + WITNESSES, spec.witnesses.count))
        network = engine.on_device(spec, ids)
        for top in range(0, len(inputs), BLOCK):
            codes = to_codes(inputs[top : top + BLOCK], spec.input)
            columns[top : top + BLOCK, ids.start : ids.stop] = engine.final_spikes(codes, spec.input, network)
    return columns


def every_step(spec: ModelSpec, inputs: npt.NDArray) -> Bits:
    """Spikes [N, T, P]."""
    network = fused.Prepared(spec.network(range(spec.witnesses.count)))
    x = engine.to_inputs(to_codes(inputs, spec.input), spec.input)
    return fused.roll_out(x, lif.initial_state(network, len(x)), network, every_step=True).spikes.numpy()


def squared(columns: Bits, targets: npt.NDArray) -> ReadoutRegressor:
    """A fit to the targets [N, C]."""
    readout = ReadoutRegressor(penalty="l1" if targets.shape[1] == 1 else "group", relative_beta="best")
    return readout.fit(columns.view(np.uint8), targets)


def scores(readout: ReadoutRegressor, columns: Bits) -> npt.NDArray[np.float64]:
    """[N, C]."""
    return np.asarray(readout.predict(columns.view(np.uint8))).reshape(len(columns), -1)

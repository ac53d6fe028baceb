"""The built-in tasks: a model, sequences to train on and sequences held out.

    digits, mnist-rows            pictures, a row a timestep
    mnist-patches, mnist-pixels   the same in 7 x 7 patches (T = 16), and pixel by pixel (T = 784)
    xor-T                         first-last XOR of T bits
    addition-B                    in base B, the carry being an input: answered with the model's own carry
    memory-addition-B             without it: memory must hold the carry
    running-parity                of the bits so far, at every timestep
    parity-N                      of the numbers below N, one-hot

Addition and running parity are learnt at length 10; what is held out comes at that length and at ten times of it.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from snn.laws import StoredTemplates
from snn.model import ModelSpec, load_model, parse_model
from spikeloom.autoregressive import Feedback
from spikeloom.data import Data, DataError, read_idx, scale_bytes
from spikeloom.tasks import sequences

LENGTH, LONGER = 10, 100  # timesteps that are learnt, and at which generalisation is tested
TRAIN, TEST = 4096, 1000  # made sequences
TRAIN_SEED, TEST_SEED, LONGER_SEED = 1, 2, 3


class Task(NamedTuple):
    """longer: held-out sequences of another length than the trained ones. feedback: which answer is a part of the next
    input when held-out sequences are answered."""

    model: ModelSpec
    train: Data
    test: Data
    longer: Data | None = None
    feedback: Feedback | None = None


def load_task(name: str, data: Path | None) -> Task:
    """A task by name; `data` is the folder of the tasks that need one."""
    for pattern, task in TASKS.items():
        if match := re.fullmatch(pattern.replace("N", "([1-9][0-9]*)"), name):
            return task(*(int(number) for number in match.groups()), data)
    raise DataError(f"task: expected one of {', '.join(TASKS)}, N a number, got {name!r}")


def _digits(_: Path | None) -> Task:
    digits = load_digits()
    images, test_images, labels, test_labels = train_test_split(
        digits.images / 16, digits.target, test_size=360, random_state=0, stratify=digits.target
    )
    model = load_model(Path(__file__).with_name("digits.yaml"))
    return Task(model, Data(images, labels), Data(test_images, test_labels))


def _mnist_rows(folder: Path | None) -> Task:
    train, test = _mnist(folder)
    law: dict[str, Any] = {"name": "stored_templates", "shifts": 2, "levels": (0.25, 0.5, 0.75)}
    readout = {"outputs": 10, "loss": "multinomial", "penalty": "ridge", "relative_beta": 0.003}
    return Task(_model("mnist-rows", {"timesteps": 28, "features": 28}, law, 2048, readout, train), train, test)


def _mnist_patches(folder: Path | None) -> Task:
    train, test = (data._replace(inputs=_patches(data.inputs)) for data in _mnist(folder))
    grid = {"timesteps": 16, "features": 49, "end_pulse": True}
    readout = {"outputs": 10}
    return Task(_model("mnist-patches", grid, {"name": "local_integrators"}, 2048, readout), train, test)


def _mnist_pixels(folder: Path | None) -> Task:
    train, test = (data._replace(inputs=data.inputs.reshape(-1, 784, 1)) for data in _mnist(folder))
    law: dict[str, Any] = {"name": "stored_templates", "width": 28}
    grid, readout = {"timesteps": 784, "features": 1}, {"outputs": 10, "loss": "multinomial"}
    return Task(_model("mnist-pixels", grid, law, 1024, readout, train), train, test)


def _xor(timesteps: int, _: Path | None) -> Task:
    train, test = (
        sequences.first_last_xor(count, timesteps, seed) for count, seed in ((TRAIN, TRAIN_SEED), (TEST, TEST_SEED))
    )
    grid, readout = {"timesteps": timesteps, "features": 1}, {"outputs": 1, "loss": "logistic"}
    return Task(_model(f"xor-{timesteps}", grid, {"name": "stored_taps"}, 2048, readout), train, test)


def _addition(base: int, _: Path | None) -> Task:
    made = _made(lambda count, length, seed: sequences.addition(count, base, length, seed))
    model = _model(f"addition-{base}", {"features": 3}, {"name": "hyperplanes"}, 512, _digit_and_carry(base))
    return Task(model, *made, feedback=Feedback(head=1, feature=2))


def _memory_addition(base: int, _: Path | None) -> Task:
    made = _made(lambda count, length, seed: sequences.addition(count, base, length, seed, carry_input=False))
    law = {"name": "hubs", "weight": base - 1, "top": 2 * base}
    return Task(_model(f"memory-addition-{base}", {"features": 2}, law, 512, _digit_and_carry(base)), *made)


def _running_parity(_: Path | None) -> Task:
    made, readout = _made(sequences.running_parity), {"outputs": 1, "loss": "logistic", "every_step": True}
    return Task(_model("running-parity", {"features": 1}, {"name": "counters"}, 64, readout), *made)


def _parity(numbers: int, _: Path | None) -> Task:
    every = sequences.parity(numbers)
    train = Data(np.repeat(every.inputs, 32, axis=0), np.repeat(np.asarray(every.targets), 32))
    law, readout = {"name": "gaussian", "threshold": 2**-7}, {"outputs": 1, "loss": "logistic"}
    return Task(_model(f"parity-{numbers}", {"timesteps": 1, "features": numbers}, law, 512, readout), train, every)


def _model(
    name: str, grid: dict[str, Any], law: dict[str, Any], count: int, readout: dict[str, Any], data: Data | None = None
) -> ModelSpec:
    """`data` gives the law its statistics, where it has some."""
    if data is not None:
        law = StoredTemplates(**law).calibrated(data.inputs).model_dump(mode="json")
    return parse_model(
        {
            "model": name,
            "input": {"timesteps": LONGER, **grid},
            "witnesses": {"law": law, "seed": 1, "count": count},
            "readout": {"relative_beta": 0.001, **readout},
        }
    )


def _digit_and_carry(base: int) -> dict[str, Any]:
    return {
        "heads": [{"name": "digit", "outputs": base}, {"name": "carry", "loss": "logistic"}]
        if base > 2
        else [{"name": "digit", "loss": "logistic"}, {"name": "carry", "loss": "logistic"}],
        "every_step": True,
    }


def _made(of: Callable[[int, int, int], Data]) -> tuple[Data, Data, Data]:
    """To train on, held out, and held out at the greater length."""
    return of(TRAIN, LENGTH, TRAIN_SEED), of(TEST, LENGTH, TEST_SEED), of(TEST, LONGER, LONGER_SEED)


def _mnist(folder: Path | None) -> tuple[Data, Data]:
    if folder is None:
        raise DataError("mnist: expected --data DIR, a folder with the four files (train-images-idx3-ubyte, ...)")
    train, test = ([_existing(folder, f"{part}-{kind}") for kind in KINDS] for part in ("train", "t10k"))
    return _pictures(*train), _pictures(*test)


KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")


def _pictures(images: Path, labels: Path) -> Data:
    return Data(scale_bytes(read_idx(images)), read_idx(labels).astype(np.int64))


def _patches(images: np.ndarray) -> np.ndarray:
    """[N, 28, 28] as 16 patches of 7 x 7, row by row of patches."""
    return images.reshape(-1, 4, 7, 4, 7).swapaxes(2, 3).reshape(-1, 16, 49)


def _existing(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder}: expected {name} or {name}.gz, found neither; the four MNIST files belong there")


TASKS: dict[str, Callable[..., Task]] = {
    "digits": _digits,
    "mnist-rows": _mnist_rows,
    "mnist-patches": _mnist_patches,
    "mnist-pixels": _mnist_pixels,
    "xor-N": _xor,
    "addition-N": _addition,
    "memory-addition-N": _memory_addition,
    "running-parity": _running_parity,
    "parity-N": _parity,
}

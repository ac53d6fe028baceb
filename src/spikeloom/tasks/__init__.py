"""The built-in tasks: a model, sequences to train on and sequences held out."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from snn.model import ModelSpec, load_model
from spikeloom.data import Data, DataError, read_idx, scale_bytes


class Task(NamedTuple):
    model: ModelSpec
    train: Data
    test: Data


def load_task(name: str, data: Path | None) -> Task:
    """A task by name; `data` is the folder of the tasks that need one."""
    if name not in TASKS:
        raise DataError(f"task: expected one of {', '.join(TASKS)}, got {name!r}")
    model = load_model(Path(__file__).with_name(f"{name}.yaml"))
    return Task(model, *TASKS[name](data))


def _digits(_: Path | None) -> tuple[Data, Data]:
    digits = load_digits()
    images, test_images, labels, test_labels = train_test_split(
        digits.images / 16, digits.target, test_size=360, random_state=0, stratify=digits.target
    )
    return Data(images, labels), Data(test_images, test_labels)


def _mnist_rows(folder: Path | None) -> tuple[Data, Data]:
    if folder is None:
        raise DataError(
            "mnist-rows: expected --data DIR, a folder with the four MNIST files (train-images-idx3-ubyte, ...)"
        )
    return _mnist(folder, "train"), _mnist(folder, "t10k")


def _mnist(folder: Path, part: str) -> Data:
    images, labels = (
        read_idx(_existing(folder, f"{part}-{kind}")) for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    return Data(scale_bytes(images), labels.astype(np.int64))


def _existing(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder}: expected {name} or {name}.gz, found neither; the four MNIST files belong there")


TASKS: dict[str, Callable[[Path | None], tuple[Data, Data]]] = {"digits": _digits, "mnist-rows": _mnist_rows}

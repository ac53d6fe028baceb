"""Files of sequences: what is read, and what a person is told of a file that cannot be."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from spikeloom.data import DataError, load, read_idx
from spikeloom.tasks import load_task
from tests.models import small_model

MODEL = small_model()


def write_idx(path: Path, array: np.ndarray) -> Path:
    header = struct.pack(">HBB", 0, 8, array.ndim) + b"".join(struct.pack(">I", n) for n in array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["images-idx3-ubyte", "images-idx3-ubyte.gz"])
def test_idx(tmp_path: Path, name: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8))
    labels = write_idx(tmp_path / "labels-idx1-ubyte", np.arange(5))
    data = load(write_idx(tmp_path / name, images), MODEL.input, labels)
    assert np.array_equal(data.inputs, images / 256)
    assert data.targets is not None
    assert data.targets.tolist() == [0, 1, 2, 3, 4]


def test_npz(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).random((5, 8, 8))
    np.savez(tmp_path / "a.npz", inputs=inputs, targets=np.arange(5), ids=np.arange(10, 15))
    data = load(tmp_path / "a.npz", MODEL.input)
    assert np.array_equal(data.inputs, inputs)
    assert data.ids is not None
    assert data.ids.tolist() == [10, 11, 12, 13, 14]


def test_csv_is_a_sequence_a_row(tmp_path: Path) -> None:
    inputs = np.round(np.random.default_rng(0).random((3, 64)), 3)
    lines = [",".join([f"x{i}" for i in range(64)] + ["target", "id"])]
    lines += [",".join(map(str, [*row, number, number + 7])) for number, row in enumerate(inputs)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    data = load(tmp_path / "a.csv", MODEL.input)
    assert np.array_equal(data.inputs, inputs.reshape(3, 8, 8))
    assert data.targets is not None
    assert data.targets.tolist() == [0, 1, 2]
    assert data.ids is not None
    assert data.ids.tolist() == [7, 8, 9]


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", inputs=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="without pickled objects"):
        load(tmp_path / "a.npz", MODEL.input)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "a,b\n1,2\n", r"8 \* 8 = 64 columns.*got 2"),
        ("a.csv", ",".join(f"x{i}" for i in range(64)) + "\n" + ",".join(["word"] * 64), "text in columns"),
        ("a.npz", "not a zip", "NPZ"),
        ("a.txt", "1", r"\.npz, \.csv"),
        ("train-idx", "\0\0\x08", "IDX file"),
        ("train-idx", "\0\0\x08\x01\0\0\0\x09abc", r"\[9\] of uint8, but 3 bytes follow"),
        ("train-ubyte.gz", "no gzip", "IDX"),
    ],
)
def test_a_refusal_says_what_was_expected(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_bytes(content.encode("latin1"))
    with pytest.raises(DataError, match=words):
        load(tmp_path / name, MODEL.input)


def test_a_missing_file_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found none"):
        load(tmp_path / "none.npz", MODEL.input)
    with pytest.raises(DataError, match="--data DIR"):
        load_task("mnist-rows", None)
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        load_task("mnist-rows", tmp_path)
    with pytest.raises(DataError, match="one of digits, mnist-rows"):
        load_task("minst", None)


def test_a_header_that_lies_about_its_size_costs_no_memory(tmp_path: Path) -> None:
    (tmp_path / "idx").write_bytes(b"\0\0\x08\x03" + b"\xff" * 12)
    with pytest.raises(DataError, match="but 0 bytes follow"):
        read_idx(tmp_path / "idx")


def test_digits_are_split_without_overlap() -> None:
    task = load_task("digits", None)
    assert (len(task.train.inputs), len(task.test.inputs)) == (1437, 360)
    assert task.model.input.timesteps == 8

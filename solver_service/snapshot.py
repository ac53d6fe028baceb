"""Snapshots: the state of the service at one position of its input, whole or not at all.

A snapshot is a folder `snapshot-<number>` with `state.json` and one NPZ of plain arrays a model. It is written beside,
flushed to disk and renamed, so a crash leaves the older one. `state.json` holds the checksum of every file and its own.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[np.generic]]
STATE = "state.json"
FORMAT = 2
KEPT = 2  # the newest and the one before, for a person to fall back on


class SnapshotError(Exception):
    """A snapshot that cannot be used; the text says which file, why and what to do."""


def save(folder: Path, state: dict[str, Any], models: dict[str, Arrays]) -> Path:
    """Write a new snapshot, then drop all but the newest KEPT. Returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    older = _numbers(folder)
    target = folder / f"snapshot-{(older[-1] if older else 0) + 1:012d}"
    temporary = folder / f".writing-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    checksums = {}
    for name, arrays in models.items():
        path = temporary / f"{name}.npz"
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)  # type: ignore[arg-type]  # numpy's stub: keyword clash
            file.flush()
            os.fsync(file.fileno())
        checksums[name] = _sha256(path)
    body = {"format": FORMAT, "state": state, "sha256": checksums}
    with (temporary / STATE).open("w") as text:
        json.dump({**body, "self": _self_check(body)}, text)
        text.flush()
        os.fsync(text.fileno())
    _sync_folder(temporary)
    temporary.rename(target)
    _sync_folder(folder)
    for number in older[: -(KEPT - 1)]:
        shutil.rmtree(folder / f"snapshot-{number:012d}", ignore_errors=True)
    return target


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Arrays]] | None:
    """The newest snapshot, or None where there is none. Raises SnapshotError where it is damaged."""
    numbers = _numbers(folder)
    if not numbers:
        return None
    path = folder / f"snapshot-{numbers[-1]:012d}"
    try:
        body = json.loads((path / STATE).read_text())
        stated = body.pop("self")
        if stated != _self_check(body):
            raise SnapshotError(f"{path / STATE}: checksum differs")
        if body["format"] != FORMAT:
            raise SnapshotError(f"{path / STATE}: expected format {FORMAT}, got {body['format']}")
        return body["state"], {name: _load_model(path / f"{name}.npz", sha) for name, sha in body["sha256"].items()}
    except (SnapshotError, OSError, ValueError, KeyError, AttributeError) as error:
        raise SnapshotError(
            f"snapshot refused: {error}. Remove {path} to go on from the snapshot before it, or all of {folder} to "
            "read the topic again from its beginning"
        ) from None


def _load_model(path: Path, sha256: str) -> Arrays:
    if _sha256(path) != sha256:
        raise SnapshotError(f"{path}: checksum differs")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("snapshot-")) for path in folder.glob("snapshot-*"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _self_check(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

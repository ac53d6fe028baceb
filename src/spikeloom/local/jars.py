"""The jars of Kafka and of Flink's Kafka connector: pinned by checksum, fetched once, verified at every use."""

import argparse
import hashlib
import logging
import os
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from platformdirs import user_cache_path

from spikeloom import PROJECT_ROOT
from spikeloom.errors import DownloadError

WANTED = PROJECT_ROOT / "kafka" / "jars.toml"
LOCK = PROJECT_ROOT / "kafka" / "jars.lock.toml"

DOWNLOADS_AT_ONCE = 8  # the jars are small, so the round trips bound the time
CONNECT_TIMEOUT_SECONDS = 30
LOCK_HEADER = "# Every jar of jars.toml, pinned and hashed. Made by: .venv/bin/python -m spikeloom.local.jars --lock\n"


class Jar(NamedTuple):
    use: str  # "kafka" or "flink"
    coordinate: str  # group:artifact:version
    sha256: str

    @property
    def file_name(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def class_path(use: str, lock: Path = LOCK, cache: Path | None = None) -> list[Path]:
    """The verified jars of one use, downloaded if they are not in the cache yet."""
    folder = (cache or cache_folder()) / "jars"
    jars = [jar for jar in read_lock(lock) if jar.use == use]
    missing = [jar for jar in jars if not _is_intact(jar, folder)]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            _fetch([jar for jar in missing if not _is_intact(jar, folder)], folder)
    return [folder / jar.file_name for jar in jars]


def cache_folder() -> Path:
    override = os.environ.get("SPIKELOOM_CACHE")
    return Path(override) if override else user_cache_path("spikeloom")


def read_lock(path: Path = LOCK) -> list[Jar]:
    return [Jar(**entry) for entry in tomllib.loads(path.read_text())["jar"]]


def wanted() -> dict[str, list[str]]:
    """Coordinates by use, as a person wrote them down."""
    return tomllib.loads(WANTED.read_text())


def write_lock(path: Path = LOCK) -> list[Jar]:
    """Resolve the wanted coordinates anew and pin what comes."""
    with tempfile.TemporaryDirectory() as folder:
        jars = [
            Jar(use, name, _sha256(_download(name, Path(folder))))
            for use, coordinates in wanted().items()
            for name in _resolve(coordinates, Path(folder))
        ]
    entries = "".join(
        f'\n[[jar]]\nuse = "{jar.use}"\ncoordinate = "{jar.coordinate}"\nsha256 = "{jar.sha256}"\n' for jar in jars
    )
    path.write_text(LOCK_HEADER + entries)
    return jars


def _resolve(coordinates: list[str], repository: Path) -> list[str]:
    # Each coordinate is resolved alone and the first one's versions win: resolved together, jgo lets the managed
    # versions of one project overrule the other's (Kafka 4.1 came with the clients of 3.8).
    from jgo.parse import Endpoint

    found: dict[str, str] = {}
    context = _maven(repository)
    for coordinate in coordinates:
        (parsed,) = Endpoint.parse(coordinate).coordinates
        inputs, transitive = context.resolver.resolve([context.create_dependency(replace(parsed, scope="compile"))])
        for dependency in [*inputs, *(d for d in transitive if d.scope in ("compile", "runtime"))]:
            found.setdefault(f"{dependency.groupId}:{dependency.artifactId}", dependency.version)
    return sorted(f"{name}:{version}" for name, version in found.items())


def _is_intact(jar: Jar, folder: Path) -> bool:
    path = folder / jar.file_name
    return path.exists() and _sha256(path) == jar.sha256


def _fetch(jars: list[Jar], folder: Path) -> None:
    # A download lands in a folder of its own and is moved when its checksum is right, so that whatever stops it,
    # the cache holds whole files only and the next call fetches just the rest.
    with tempfile.TemporaryDirectory(dir=folder) as temporary, ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:

        def fetch(jar: Jar) -> None:
            path = _download(jar.coordinate, Path(temporary))
            if (found := _sha256(path)) != jar.sha256:
                raise DownloadError(
                    f"{jar.file_name} as downloaded has SHA-256 {found}, but {jar.sha256} is pinned in "
                    "kafka/jars.lock.toml. It was not used. Try again; if it stays so, do not trust that mirror."
                )
            os.replace(path, folder / jar.file_name)

        list(pool.map(fetch, jars))


def _download(coordinate: str, repository: Path) -> Path:
    group, artifact, version = coordinate.split(":")
    try:
        return Path(_maven(repository).project(group, artifact).at_version(version).artifact().resolve())
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors; jgo raises RuntimeError
        raise DownloadError(
            f"Could not download {coordinate}: {error}. Check the network (or HTTPS_PROXY) and run the same "
            "command again: what has arrived is kept."
        ) from error


def _maven(repository: Path):  # type: ignore[no-untyped-def]  # jgo is imported only when something must be fetched
    from jgo.maven import MavenContext

    logging.getLogger("jgo").setLevel(logging.ERROR)
    return MavenContext(repo_cache=repository, local_repos=[], timeout=CONNECT_TIMEOUT_SECONDS)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fetch the pinned jars into the cache.")
    parser.add_argument("--lock", action="store_true", help="resolve kafka/jars.toml anew and rewrite the lock file")
    if parser.parse_args().lock:
        print(f"{len(write_lock())} jars pinned in {LOCK.name}")
    for use in wanted():
        print(use, *class_path(use), sep="\n  ")

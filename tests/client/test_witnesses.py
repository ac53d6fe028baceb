"""Looking at a model's witnesses and calibrating them, as typed."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from snn.model import load_model
from spikeloom.cli import app
from spikeloom.errors import SpikeloomError
from tests.models import small_model

INPUTS = np.random.default_rng(0).integers(0, 17, (30, 8, 8)) / 16


def written(folder: Path, law: dict[str, object]) -> Path:
    """A model without the statistics that its law may ask for."""
    document = small_model().model_dump(mode="json") | {"witnesses": {"law": law, "seed": 7, "count": 64}}
    (folder / "model.yaml").write_text(yaml.safe_dump(document))
    np.savez(folder / "data.npz", inputs=INPUTS)
    return folder / "model.yaml"


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, SpikeloomError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    "law", [{"name": "calibrated", "weight_bits": 6}, {"name": "stored_templates", "side_min": 2, "side_max": 4}]
)
def test_a_calibrated_model_is_a_model(tmp_path: Path, law: dict[str, object]) -> None:
    path, out = written(tmp_path, law), tmp_path / "calibrated.yaml"
    with pytest.raises(SpikeloomError, match="`spikeloom calibrate`"):
        call("witnesses", path)
    call("calibrate", path, tmp_path / "data.npz", out)
    model = load_model(out)
    again = yaml.safe_load(out.read_text())
    assert again["model"] == "small"
    assert model.network(range(8))[0].weights.shape[0] == 9
    told = call("witnesses", out, tmp_path / "data.npz", "--sequences", "20")
    assert "data.npz" in told
    assert "layer 1" in told
    assert "columns" in told


def test_what_cannot_be_calibrated_is_a_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, {"name": "hyperplanes"})
    with pytest.raises(SpikeloomError, match="law hyperplanes: takes no statistics"):
        call("calibrate", path, tmp_path / "data.npz", tmp_path / "out.yaml")
    with pytest.raises(SpikeloomError, match=r"missing\.yaml"):
        call("calibrate", tmp_path / "missing.yaml", tmp_path / "data.npz", tmp_path / "out.yaml")
    assert not (tmp_path / "out.yaml").exists()


def test_random_sequences_stand_in_for_data(tmp_path: Path) -> None:
    assert "random sequences" in call("witnesses", written(tmp_path, {"name": "gaussian"}))

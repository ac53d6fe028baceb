"""A model's witnesses, looked at and calibrated before anything is streamed."""

from pathlib import Path

import numpy as np
import yaml
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from snn.activity import Activity, report
from snn.encoding import to_codes
from snn.engine import to_inputs
from snn.laws import Law
from snn.model import InputSpec, ModelError, ModelSpec, load_model, parse_model
from spikeloom.data import load
from spikeloom.errors import SpikeloomError


def activity_table(path: Path, data: Path | None, sequences: int) -> Table:
    """Firing rate, silent and saturated share of each layer and of the columns, on up to `sequences` sequences spread
    over the file `data`, or on random ones. Raises SpikeloomError for what cannot be used."""
    try:
        model = load_model(path)
        found = report(
            to_inputs(_codes(model, data, sequences), model.input),
            model.network(range(model.witnesses.count)),
        )
    except ModelError as error:
        raise SpikeloomError(str(error)) from None
    source = "random sequences" if data is None else data.name
    table = Table(
        "", title=f"{model.model}: {model.witnesses.count:,} witnesses, law {model.witnesses.law.name}, {source}"
    )
    for heading in ("neurons", "firing rate", "silent", "saturated", "distinct"):
        table.add_column(heading, justify="right")
    for number, layer in enumerate(found.layers, start=1):
        table.add_row(f"layer {number}", *_cells(layer), "")
    table.add_row("columns (last timestep)", *_cells(found.columns), f"{found.distinct:,}")
    return table


def calibrated_model(path: Path, data: Path) -> str:
    """The model of a YAML file as YAML, its law with statistics of the sequences in `data`. Raises SpikeloomError for
    what cannot be used."""
    try:
        document = yaml.safe_load(path.read_text())
        grid = InputSpec.model_validate(document["input"])
        law = TypeAdapter(Law).validate_python(document["witnesses"]["law"])
        codes = to_codes(load(data, grid).inputs, grid, quantise=True)
        document["witnesses"]["law"] = law.calibrated(to_inputs(codes, grid).numpy()).model_dump(mode="json")
        parse_model(document, str(path))
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValidationError, ValueError) as error:
        raise SpikeloomError(f"{path}: expected a model whose law takes statistics: {error}") from None
    return yaml.safe_dump(document, sort_keys=False, width=120)


def _codes(model: ModelSpec, data: Path | None, sequences: int) -> np.ndarray:
    grid = model.input
    if data is None:
        low, high = grid.codes
        return np.random.default_rng(0).integers(low, high + 1, (sequences, grid.timesteps, grid.features))
    inputs = load(data, grid).inputs
    spread = np.unique(np.linspace(0, len(inputs) - 1, sequences).astype(np.int64))
    return to_codes(inputs[spread], grid, quantise=True)


def _cells(activity: Activity) -> tuple[str, ...]:
    return (f"{activity.neurons:,}", *(f"{share:.1%}" for share in activity[1:]))

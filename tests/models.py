"""Small models that tests of several rooms use."""

from snn.model import ModelSpec, parse_model


def small_model(**changes: object) -> ModelSpec:
    """8 timesteps of 8 features, two shards; `changes` replace top-level parts."""
    data: dict[str, object] = {
        "model": "small",
        "input": {"timesteps": 8, "features": 8, "bits": 4, "end_pulse": True},
        "witnesses": {
            "law": {"name": "local_integrators", "field_min": 2, "field_max": 5},
            "seed": 7,
            "count": 64,
            "shards": 2,
        },
        "readout": {"outputs": 10},
        "lanes": 4,
    }
    return parse_model(data | changes)

"""Every witness law, with parameters that fit 8 timesteps of 8 features and an end pulse (`tests.models`)."""

import numpy as np

from snn.laws import Calibrated, StoredTemplates

RNG = np.random.default_rng(0)
SEQUENCES = (RNG.random((40, 8, 9)) < np.linspace(0.2, 0.8, 9)) * RNG.integers(0, 17, (40, 8, 9)) / 16

LAWS: dict[str, dict[str, object]] = {
    "gaussian": {"name": "gaussian"},
    "deep": {"name": "gaussian", "widths": [3, 2], "recurrent": 0.5},
    "heterogeneous": {"name": "heterogeneous", "fields": [2, 5], "bias": 0.5},
    "calibrated": Calibrated(weight_bits=6).calibrated(SEQUENCES).model_dump(mode="json"),
    "hyperplanes": {"name": "hyperplanes"},
    "local_integrators": {"name": "local_integrators", "field_min": 2, "field_max": 5, "units": 3},
    "stored_taps": {"name": "stored_taps", "taps": 3},
    "stored_templates": StoredTemplates(side_min=2, side_max=4).calibrated(SEQUENCES).model_dump(mode="json"),
    "grey_templates": StoredTemplates(side_min=2, side_max=3, levels=(0.25, 0.625))
    .calibrated(SEQUENCES)
    .model_dump(mode="json"),
    "smooth_templates": StoredTemplates(side_min=2, side_max=4, shifts=0, pattern="smooth")
    .calibrated(SEQUENCES)
    .model_dump(mode="json"),
    "hubs": {"name": "hubs", "weight": 2, "top": 6},
    "counters": {"name": "counters"},
}

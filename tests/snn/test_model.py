"""Models: what is refused, in which words, and that witnesses are functions of (seed, id)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn.encoding import to_codes
from snn.engine import final_spikes
from snn.model import ModelError, load_model, parse_model
from tests.models import small_model

GAUSSIAN = {"law": {"name": "gaussian"}, "count": 64}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "Two Words"}, ["model", "Two Words"]),
        ({"input": {"timesteps": 0, "features": 8}}, ["input.timesteps", "greater than or equal to 1", "0"]),
        ({"input": {"timesteps": 8, "features": 8, "low": 0.3, "bits": 4}}, ["0.3", "2^-4"]),
        ({"witnesses": GAUSSIAN | {"count": 60}}, ["multiple of 8", "60"]),
        ({"witnesses": GAUSSIAN | {"law": {"name": "gauss"}}}, ["witnesses.law", "gaussian"]),
        ({"readout": {"outputs": 10, "loss": "logistic"}}, ["logistic", "10"]),
        ({"readout": {"outputs": 10, "los": "squared"}}, ["readout.los"]),
        ({"input": {"timesteps": 8, "features": 4, "bits": 4, "end_pulse": True}}, ["field_max <= input.features = 4"]),
    ],
)
def test_a_refusal_names_field_and_value(changes: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ModelError) as error:
        small_model(**changes)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_model_outside_the_exactness_bound_is_refused_with_the_bound() -> None:
    with pytest.raises(ModelError, match=r"2\^\(24 - 24\) = 1.*lower input.bits \(16\)"):
        small_model(input={"timesteps": 8, "features": 8, "bits": 16, "end_pulse": True}, witnesses=GAUSSIAN)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("model: [")
    for name in ("broken.yaml", "missing.yaml"):
        with pytest.raises(ModelError, match=name):
            load_model(tmp_path / name)


def test_the_digest_is_of_the_meaning_not_of_the_spelling() -> None:
    model = small_model()
    assert parse_model(model.model_dump()).digest == model.digest
    assert small_model(lanes=8).digest != model.digest


LAWS = ({"name": "gaussian"}, {"name": "local_integrators", "field_min": 2, "field_max": 5, "units": 3})


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law["name"])
@settings(max_examples=20, deadline=None)
@given(ids=st.lists(st.integers(0, 63), max_size=12, unique=True))
def test_a_witness_depends_on_seed_and_id_alone(law: dict[str, object], ids: list[int]) -> None:
    model = small_model(witnesses={"law": law, "seed": 3, "count": 64})
    codes = np.random.default_rng(0).integers(0, 17, (6, 8, 8))
    together = final_spikes(codes, model.input, model.network(range(64)))
    assert np.array_equal(final_spikes(codes, model.input, model.network(ids)), together[:, ids])


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law["name"])
def test_weights_lie_on_the_grid_and_within_the_stated_reach(law: dict[str, object]) -> None:
    model = small_model(witnesses={"law": law, "count": 4096})
    network = model.network(range(4096))
    bounds = model.witnesses.law.reach(model.input.timesteps, model.input.channels)
    for layer, bound in zip(network, bounds, strict=True):
        for part in (layer.weights, layer.bias):
            assert torch.equal(part * 256, (part * 256).round())
        fan_in = (layer.weights != 0).sum(dim=0 if layer.weights.dim() == 2 else 1).max().item()
        assert fan_in <= bound.fan_in
        assert layer.weights.abs().max() <= bound.max_weight
        assert layer.bias.abs().max() <= bound.max_bias
        assert (layer.threshold > 0).all()
        assert ((layer.leak >= 0) & (layer.leak <= 1)).all()


def test_another_seed_gives_other_witnesses() -> None:
    first, second = (small_model(witnesses=GAUSSIAN | {"seed": seed}).network(range(64)) for seed in (0, 1))
    assert not torch.equal(first[0].weights, second[0].weights)


def test_an_integrator_waits_for_the_end_of_the_sequence() -> None:
    from snn import lif
    from snn.engine import to_inputs

    model = small_model()
    codes = np.random.default_rng(1).integers(0, 17, (20, 8, 8))
    network = model.network(range(64))
    result = lif.roll_out(to_inputs(codes, 0, model.input), lif.initial_state(network, 20), network)
    assert result.active[1][:-1].sum() == 0
    assert 0 < result.active[1][-1] < 20 * 64


@pytest.mark.parametrize(
    ("value", "quantise", "words"),
    [
        (float("nan"), True, "finite"),
        (float("inf"), True, "finite"),
        (0.3, False, "multiples of 2^-4"),
        (1.5, False, r"numbers in \[0, 1\]"),
    ],
)
def test_inputs_off_the_grid_are_refused_with_their_place(value: float, quantise: bool, words: str) -> None:
    inputs = np.zeros((3, 8, 8))
    inputs[2, 1, 0] = value
    with pytest.raises(ModelError, match=rf"inputs\[2, 1, 0\] = .*{words.replace('^', chr(92) + '^')}"):
        to_codes(inputs, small_model().input, quantise)


def test_quantise_rounds_and_clips() -> None:
    inputs = np.zeros((1, 8, 8))
    inputs[0, 0, :3] = (0.3, 1.5, -2)
    assert to_codes(inputs, small_model().input, quantise=True)[0, 0, :3].tolist() == [5, 16, 0]


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ModelError, match=r"\[N, 8, 8\], got \[3, 8, 7\]"):
        to_codes(np.zeros((3, 8, 7)), small_model().input)

"""Models: what is refused, in which words, and that witnesses are functions of (seed, id)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from snn.encoding import to_codes
from snn.engine import final_spikes
from snn.model import ModelError, ModelSpec, load_model, parse_model
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
        ({"readout": {"heads": [{"name": "a", "outputs": 3}]}}, ["readout.heads", "at least 2"]),
        ({"readout": {"heads": [{"name": "a", "outputs": 3}] * 2}}, ["distinct names", "'a', 'a'"]),
        ({"readout": {"heads": [{"name": "a", "outputs": 3}, {"name": "b"}]}}, ["heads.1", "outputs >= 2, got 1"]),
        ({"readout": {"heads": [{"name": n, "outputs": 3} for n in "ab"], "outputs": 5}}, ["6 in all", "outputs: 5"]),
        ({"readout": {"outputs": 10, "loss": "heads"}}, ["needs `heads`"]),
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


DEEP = {"name": "gaussian", "widths": [3, 2], "recurrent": 0.5}
LAWS = ({"name": "gaussian"}, DEEP, {"name": "local_integrators", "field_min": 2, "field_max": 5, "units": 3})
LAW_NAMES = ["gaussian", "deep", "local_integrators"]


@pytest.mark.parametrize("law", LAWS, ids=LAW_NAMES)
@settings(max_examples=20, deadline=None)
@given(ids=st.lists(st.integers(0, 63), max_size=12, unique=True))
def test_a_witness_depends_on_seed_and_id_alone(law: dict[str, object], ids: list[int]) -> None:
    model = small_model(witnesses={"law": law, "seed": 3, "count": 64})
    codes = np.random.default_rng(0).integers(0, 17, (6, 8, 8))
    together = final_spikes(codes, model.input, model.network(range(64)))
    assert np.array_equal(final_spikes(codes, model.input, model.network(ids)), together[:, ids])


@pytest.mark.parametrize("law", LAWS, ids=LAW_NAMES)
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
        assert (layer.recurrent is not None) == (bound.feedback > 0)
        if layer.recurrent is not None:
            assert torch.equal(layer.recurrent * 256, (layer.recurrent * 256).round())
            assert layer.recurrent.shape[1] == bound.feedback
            assert layer.recurrent.abs().max() <= bound.max_feedback
        assert (layer.threshold > 0).all()
        assert ((layer.leak >= 0) & (layer.leak <= 1)).all()


def test_hidden_layers_and_recurrence_are_new_and_change_no_model_from_before() -> None:
    """The digest and a weight of a model as they were before the law had either."""
    model = small_model(witnesses=GAUSSIAN)
    assert model.digest == 15381794507539107746
    (layer,) = model.network(range(64))
    assert layer.recurrent is None
    assert layer.weights[3, 7] == 49 / 256
    deep = small_model(witnesses=GAUSSIAN | {"law": DEEP})
    assert parse_model(json.loads(deep.spec_json)) == deep
    assert [tuple(layer.weights.shape) for layer in deep.network(range(5))] == [(9, 15), (5, 3, 2), (5, 2, 1)]
    with pytest.raises(ModelError, match="widths"):
        small_model(witnesses=GAUSSIAN | {"law": DEEP | {"widths": [1] * 10}})


@settings(max_examples=50, deadline=None)
@given(
    features=st.integers(1, 60),
    width=st.integers(1, 8),
    bits=st.integers(0, 10),
    weight_bits=st.integers(0, 8),
    recurrent=st.sampled_from([0.0, 0.5, 40.0]),
    seed=st.integers(0, 2**32),
)
def test_just_inside_the_bound_a_current_is_exact_in_any_order(
    features: int, width: int, bits: int, weight_bits: int, recurrent: float, seed: int
) -> None:
    step, of_weights = 2.0 ** -(bits + weight_bits), 2.0**-weight_bits
    most_feedback = (4 * recurrent / width**0.5 + of_weights) if recurrent else 0.0
    most_weight = (2.0**24 * step - width * most_feedback) / features  # input up to 1
    assume(most_weight > 2 * of_weights)
    scale = (most_weight - of_weights) * features**0.5 / 4

    def model(scale: float) -> ModelSpec:
        law = {"name": "gaussian", "scale": scale, "weight_bits": weight_bits, "recurrent": recurrent}
        return small_model(
            input={"timesteps": 2, "features": features, "bits": bits},
            witnesses={"law": law | {"widths": [width]}, "count": 8},
        )

    with pytest.raises(ModelError, match="layer 1 leaves the exactness bound"):
        model(scale * 1.001)
    try:
        (reach, _) = model(scale * 0.999).witnesses.law.reach(2, features)
    except ModelError as error:
        if "layer 2 leaves the exactness bound" not in str(error):
            raise
        reject()
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], features + reach.feedback) if rng.random() < 0.5 else 1.0
    largest = np.repeat([reach.max_weight, reach.max_feedback], [features, reach.feedback])
    heard = np.concatenate([np.round(rng.uniform(0.9, 1, features) * 2**bits) / 2**bits, np.ones(reach.feedback)])
    terms = signs * np.floor(largest / of_weights) * of_weights * heard
    exact = terms.sum()
    for _ in range(3):
        in_order = np.add.accumulate(rng.permutation(terms).astype(np.float32), dtype=np.float32)[-1]
        assert in_order == exact


def test_another_seed_gives_other_witnesses() -> None:
    first, second = (small_model(witnesses=GAUSSIAN | {"seed": seed}).network(range(64)) for seed in (0, 1))
    assert not torch.equal(first[0].weights, second[0].weights)


def test_an_integrator_waits_for_the_end_of_the_sequence() -> None:
    from snn import lif
    from snn.engine import to_inputs

    model = small_model()
    codes = np.random.default_rng(1).integers(0, 17, (20, 8, 8))
    network = model.network(range(64))
    result = lif.roll_out(to_inputs(codes, np.ones(20, bool), model.input), lif.initial_state(network, 20), network)
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

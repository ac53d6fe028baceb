"""What structured laws claim of their neurons, held against plain arithmetic on the inputs."""

import base64

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn import fused, lif
from snn.activity import distinct, report
from snn.engine import to_inputs
from snn.laws import Calibrated, Counters, Heterogeneous, Hubs, Hyperplanes, StoredTaps, StoredTemplates, store
from snn.model import ModelError
from snn.network import Layer, Network
from tests.models import small_model
from tests.snn.cases import one_neuron
from tests.snn.laws import LAWS, SEQUENCES


def spikes(network: Network, inputs: np.ndarray) -> np.ndarray:
    """[N, T, n] of the last layer."""
    x = torch.tensor(inputs, dtype=torch.float32)
    return fused.roll_out(x, lif.initial_state(network, len(x)), network, every_step=True).spikes.numpy()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 5), st.integers(1, 12),
    st.sampled_from([(0.5,), (0.25, 0.75), (-0.5, 0.0, 0.5)]), st.integers(0, 2**32),
)  # fmt: skip
def test_a_stored_sequence_is_judged_at_its_end_alone(
    timesteps: int, features: int, count: int, levels: tuple[float, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    inputs = rng.integers(-4, 5, (9, timesteps, features)) / 4  # a level, where a relay just fires, is common
    z = np.stack([inputs >= level for level in levels], axis=-1).reshape(9, -1)
    trunk = store.trunk(timesteps, features, levels)
    held = features * len(levels)
    expected = np.zeros((9, timesteps, timesteps * held + 1), bool)
    for k in range(timesteps):
        at = slice(k * held, (k + 1) * held)
        expected[:, k, at] = z[:, at]
    expected[:, -1, -1] = True
    assert np.array_equal(spikes(trunk, inputs), expected)
    v = rng.integers(-4, 5, (count, timesteps * held)) / 2
    b = rng.integers(-12, 13, count) / 2
    fired = spikes((*trunk, store.integrators(v, b)), inputs)
    assert not fired[:, :-1].any()
    assert np.array_equal(fired[:, -1], z @ v.T >= b)


def test_more_than_can_be_stored_is_refused() -> None:
    with pytest.raises(ModelError, match=r"timesteps \* features <= 4096, got 600 \* 7 = 4200"):
        small_model(input={"timesteps": 600, "features": 7}, witnesses={"law": {"name": "stored_taps"}, "count": 8})


def test_a_long_sequence_of_single_pixels_lies_within_the_exactness_bound() -> None:
    model = small_model(
        input={"timesteps": 784, "features": 1, "bits": 8},
        witnesses={"law": {"name": "stored_taps"}, "count": 8},
    )
    inputs = np.random.default_rng(0).integers(0, 257, (2, 784, 1)) / 256
    network = model.network(range(8))
    fired = spikes(network, inputs)
    v, pulse = network[2].weights[:-1].numpy(), network[2].weights[-1].numpy()
    reached = (inputs[:, :, 0] >= 0.5) @ v >= network[2].threshold.numpy() - pulse
    assert np.array_equal(fired[:, -1], reached)


def test_two_taps_find_the_first_and_the_last_bit_of_any_sequence() -> None:
    for timesteps in (5, 8):
        every = (np.arange(2**timesteps)[:, None] >> np.arange(timesteps)) & 1
        columns = spikes(StoredTaps().sample(1, range(2000), timesteps, 1), every[:, :, None])[:, -1].astype(float)
        target = every[:, 0] ^ every[:, -1]
        answer = columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
        assert np.array_equal(answer > 0.5, target == 1)
        assert 0 < columns.mean() < 1


@pytest.mark.parametrize("name", ["stored_templates", "smooth_templates", "grey_templates"])
def test_templates_fire_where_the_best_shift_fits_and_on_the_asked_share_of_the_examples(name: str) -> None:
    law = StoredTemplates.model_validate(LAWS[name])
    rows, width = 8, 9
    network = law.sample(3, range(200), rows, width)
    copies = (2 * law.shifts + 1) ** 2
    v = network[2].weights[:-1].numpy().T.reshape(200, copies, rows, width, len(law.levels))
    centre = v[:, copies // 2]
    area = (centre[..., 0] != 0).sum(axis=(1, 2))
    assert set(np.unique(v)) == {-1, 0, 1}
    assert (area >= law.side_min**2).all()
    assert (area <= law.side_max**2).all()
    assert ((centre != 0) == (centre[..., :1] != 0)).all()  # the same rectangle at each level
    z = np.stack([level <= SEQUENCES for level in law.levels], axis=-1)
    best = np.full((len(z), 200), -np.inf)
    for down in range(-law.shifts, law.shifts + 1):  # the template is moved, what leaves the picture is lost
        for right in range(-law.shifts, law.shifts + 1):
            moved = np.zeros_like(centre)
            row, column = np.mgrid[0:rows, 0:width]
            inside = (row - down >= 0) & (row - down < rows) & (column - right >= 0) & (column - right < width)
            moved[:, row[inside], column[inside]] = centre[:, (row - down)[inside], (column - right)[inside]]
            best = np.maximum(best, np.einsum("nrca,prca->np", z, moved))
    height, pulse = network[2].threshold.numpy()[::copies], network[2].weights[-1].numpy()[::copies]
    fired = spikes(network, SEQUENCES)
    assert not fired[:, :-1].any()
    assert np.array_equal(fired[:, -1], best >= height - pulse)
    rate = fired[:, -1].mean(axis=0)  # at least what was asked for, and more only where examples tie
    assert (rate >= law.rate[0]).all()
    one_more = (best > (height - pulse) + 0.5).mean(axis=0)
    assert (one_more <= law.rate[1]).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"examples": None}, "expected examples; `spikeloom calibrate`"),
        ({"examples": "*"}, "base64"),
        (
            {"examples": base64.b64encode(bytes(10)).decode()},
            "examples of 9 bytes each, for 8 [*] 9 bits, got 10 bytes",
        ),
        ({"examples": ""}, "got 0 bytes"),
        ({"width": 7}, "got width 7"),
        ({"side_max": 9}, "at least side_max = 9 rows"),
        ({"side_min": 5}, "side_min <= side_max"),
        ({"rate": [0.5, 0.1]}, "rate"),
        ({"levels": [0.3]}, r"rising multiples of 2\^-6, got \[0.3\]"),
        ({"levels": [0.5, 0.25]}, "rising"),
        ({"levels": [0.25, 0.5, 0.75]}, r"of 27 bytes each, for 8 [*] 9 [*] 3 levels bits, got 360 bytes"),
    ],
)
def test_templates_that_cannot_be_drawn_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        small_model(witnesses={"law": LAWS["stored_templates"] | change, "count": 8})


def test_statistics_are_asked_for_and_taken() -> None:
    with pytest.raises(ModelError, match="law calibrated: expected mean; `spikeloom calibrate`"):
        small_model(witnesses={"law": {"name": "calibrated"}, "count": 8})
    with pytest.raises(ModelError, match="expected mean of 9 inputs, got 1"):
        small_model(witnesses={"law": {"name": "calibrated", "mean": [0], "spread": [1]}, "count": 8})
    with pytest.raises(ValueError, match="law counters: takes no statistics"):
        Counters().calibrated(SEQUENCES)
    shifted = SEQUENCES * [1, 2, 4, 1, 1, 1, 1, 1, 1] + 3
    law = Calibrated().calibrated(shifted)
    assert np.allclose(law.mean or (), shifted.mean(axis=(0, 1)), atol=2**-12)
    (layer,) = law.sample(0, range(500), 8, 9)
    drive = shifted.reshape(-1, 9) @ layer.weights.numpy() + layer.bias.numpy()
    assert abs(drive.mean(axis=0)).max() < 0.05
    assert 0.8 < drive.std(axis=0).mean() < 1.2


def test_heterogeneous_neurons_keep_to_their_fields_and_ranges() -> None:
    law = Heterogeneous(fields=(2, 4), bias=0.5, decay=(0.01, 0.5), threshold=(0.03, 3))
    (layer,) = law.sample(0, range(3000), 8, 9)
    used = (layer.weights != 0).numpy()
    spans = 9 - used.argmax(axis=0) - used[::-1].argmax(axis=0)
    assert spans.max() == 4
    assert (used.sum(axis=0)[spans > 0] >= spans[spans > 0] - 1).all()  # a weight inside may round to zero
    decay, threshold = 1 - layer.leak, layer.threshold
    assert 0.0099 < decay.min() < 0.011
    assert 0.49 < decay.max() < 0.501
    assert 0.0299 < threshold.min() < 0.032
    assert 2.9 < threshold.max() < 3.001
    assert 0.05 < decay.median() < 0.1  # sqrt(.01 * .5) = .071
    with pytest.raises(ModelError, match="fields of at most 9 inputs, got 10"):
        small_model(witnesses={"law": {"name": "heterogeneous", "fields": [2, 10]}, "count": 8})
    with pytest.raises(ModelError, match="decay: expected the smaller number first"):
        small_model(witnesses={"law": {"name": "heterogeneous", "decay": [0.5, 0.1]}, "count": 8})


def test_hyperplanes_have_no_memory() -> None:
    (layer,) = Hyperplanes().sample(0, range(300), 8, 3)
    inputs = np.random.default_rng(0).integers(0, 257, (20, 8, 3)) / 256
    expected = inputs @ layer.weights.numpy().astype(float) + layer.bias.numpy() >= 0
    assert np.array_equal(spikes((layer,), inputs), expected)
    assert 0.3 < expected.mean() < 0.7


@pytest.mark.parametrize("base", [2, 3, 5])
def test_hubs_hold_the_carry_of_an_addition(base: int) -> None:
    digits = np.random.default_rng(base).integers(0, base, (30, 20, 2))
    network = Hubs(weight=base - 1, top=2 * base).sample(0, range(400), 20, 2)
    fired = spikes(network, digits / (base - 1) if base != 3 else digits / 2)
    level = -network[0].bias.numpy().reshape(400, 2)
    carriers = (level[:, 0] > base - 1) & (level[:, 0] <= base)
    assert carriers.any()
    carry = np.zeros(30, int)
    for t in range(20):
        total = digits[:, t].sum(axis=1) + carry
        assert np.array_equal(fired[:, t, carriers], total[:, None] >= level[carriers, 1])
        carry = total // base


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(2, 9), st.integers(0, 2**32))
def test_counters_count_modulo_k(features: int, most: int, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2, (8, 50, features))
    network = Counters(most=most).sample(seed, range(60), 50, features)
    chosen = network[0].weights.numpy().reshape(features, 60, 2)[:, :, 0].argmax(axis=0)
    modulus, level = network[0].threshold.numpy()[1::2], network[1].threshold.numpy()
    assert ((modulus >= 2) & (modulus <= most) & (level >= 1) & (level < modulus)).all()
    assert np.array_equal(spikes(network, bits), np.cumsum(bits, axis=1)[:, :, chosen] % modulus >= level)


def test_the_report_of_a_case_worked_by_hand() -> None:
    """Neurons of leak 0 and threshold 1: bias -1 alone is silent, bias 1 fires always (u = 1, then 1 - 1 = 0), and two
    with a weight of 1 and bias -1/2 fire where the input is 1, or 2 after a spike."""
    one = torch.ones(4)
    layer = Layer(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([-1.0, 1, -0.5, -0.5]), 0 * one, one)
    inputs = torch.tensor([[[0.0], [1], [0]], [[1], [0], [2]]])
    found = report(inputs, (layer,))
    assert found.layers[0] == (4, pytest.approx((0 + 6 + 3 + 3) / 24), 0.25, 0.25)
    assert found.columns == (4, pytest.approx((0 + 2 + 1 + 1) / 8), 0.25, 0.25)
    assert found.distinct == 1
    assert distinct(np.array([[0, 1, 1, 0, 1], [0, 0, 0, 1, 1]], bool)) == 4


def test_the_report_tells_layers_apart() -> None:
    model = small_model(witnesses={"law": LAWS["stored_templates"], "count": 64})
    codes = np.random.default_rng(0).integers(0, 17, (20, 8, 8))
    inputs = to_inputs(codes, model.input)
    network = model.network(range(64))
    found = report(inputs, network)
    expected = lif.roll_out(inputs, lif.initial_state(network, 20), network)
    assert [layer.neurons for layer in found.layers] == [9 + 8, 8 * 9 + 1, 64 * 9, 64]
    for layer, active in zip(found.layers, expected.active, strict=True):
        assert layer.rate == pytest.approx(active.sum().item() / (20 * 8 * layer.neurons))
    assert found.columns.rate == pytest.approx(expected.spikes.float().mean().item())
    assert report(inputs[:, :, :1], one_neuron(0, 1)).layers[0].neurons == 1


def test_templates_see_in_single_bits_what_they_see_in_rows() -> None:
    inputs = (SEQUENCES[:, :, :8] * 16 % 17) / 16
    rows = StoredTemplates(side_min=2, side_max=4).calibrated(inputs)
    bits = StoredTemplates(side_min=2, side_max=4, width=8).calibrated(inputs.reshape(-1, 64, 1))
    of_rows = spikes(rows.sample(5, range(60), 8, 8), inputs)[:, -1]
    of_bits = spikes(bits.sample(5, range(60), 64, 1), inputs.reshape(-1, 64, 1))[:, -1]
    assert np.array_equal(of_rows, of_bits)
    assert 0 < of_rows.mean() < 0.5

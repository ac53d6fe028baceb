"""The objective, its gradients and its curvature, against finite differences, an explicit Hessian and plain sums."""

import numpy as np
import pytest
import torch
from torch import Tensor

from snn.model import ModelError, parse_model
from snn.training import monitors
from snn.training.objective import LOSSES, Head, Objective, of_model, targets_of
from snn.training.surrogate import Surrogate
from solver_service.losses import LOSSES as CONVEX
from tests.models import small_model
from tests.snn.cases import random_network

TARGETS = {
    "squared": lambda rng, shape: rng.normal(size=shape),
    "logistic": lambda rng, shape: rng.integers(0, 2, shape),
    "multinomial": lambda rng, shape: np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])],
}


def objective(loss: str = "multinomial", weight_decay: float = 0.0) -> Objective:
    network = random_network(0, 3, [2, 1], 4, recurrent=True)
    return Objective(network, 2, (Head(loss, slice(0, 2)),), Surrogate("arctangent", 2.0), weight_decay)


def data(loss: str, every_step: bool = False) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(1)
    shape = (12, 5, 2) if every_step else (12, 2)
    return torch.tensor(rng.random((12, 5, 3))).float(), torch.tensor(TARGETS[loss](rng, shape)).float()


def somewhere(chosen: Objective) -> Tensor:
    theta = chosen.initial()
    return theta + torch.tensor(np.random.default_rng(2).normal(size=len(theta)) / 4).float()


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_losses_are_those_of_the_convex_readout(loss: str) -> None:
    rng = np.random.default_rng(3)
    scores, targets = rng.normal(size=(20, 4)), TARGETS[loss](rng, (20, 4))
    if loss == "logistic":
        scores, targets = scores[:, :1], targets[:, :1]
    expected = CONVEX[loss].value(scores, targets.astype(float))
    got = LOSSES[loss](torch.tensor(scores), torch.tensor(targets.astype(float)))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("every_step", [False, True])
def test_a_loss_is_the_mean_over_rows_the_sum_over_heads_and_a_penalty(every_step: bool) -> None:
    one = objective("squared")
    theta, (inputs, targets) = somewhere(one), data("squared", every_step)
    residuals = one.scores(theta, inputs, every_step) - targets
    expected = 0.5 * residuals.square().sum(-1).mean()
    torch.testing.assert_close(one.loss(theta, inputs, targets), expected)
    two = one._replace(heads=(Head("squared", slice(0, 1)), Head("squared", slice(1, 2))), weight_decay=0.5)
    penalty = 0.25 * theta[:-2].square().sum()  # without the two intercepts
    torch.testing.assert_close(two.loss(theta, inputs, targets), expected + penalty)


def test_theta_holds_the_network_and_the_readout() -> None:
    chosen = objective()
    w, c = torch.randn(4, 2), torch.randn(2)
    theta = chosen.initial(w, c)
    for own, kept in zip(chosen.network(theta), chosen.template, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own, kept, strict=True))
    assert torch.equal(chosen.readout(theta)[0], w)
    assert torch.equal(chosen.readout(theta)[1], c)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_the_readouts_gradient_is_a_finite_difference(loss: str) -> None:
    """Where no spike depends on the parameter the loss is smooth, and its gradient no surrogate."""
    chosen, h = objective(loss, weight_decay=0.1), 1e-2
    theta, (inputs, targets) = somewhere(chosen), data(loss)
    _, gradient = chosen.gradient(theta, inputs, targets)
    readout = range(len(theta) - 4 * 2 - 2, len(theta))
    for at in readout:
        step = torch.zeros_like(theta)
        step[at] = h
        difference = chosen.loss(theta + step, inputs, targets) - chosen.loss(theta - step, inputs, targets)
        assert float(gradient[at]) == pytest.approx(float(difference) / (2 * h), abs=2e-3)


def test_a_regularised_gradient_is_that_of_the_loss_and_half_its_curvature() -> None:
    chosen, gamma = objective(), 0.3
    theta, (inputs, targets) = somewhere(chosen), data("multinomial")
    hessian = torch.autograd.functional.hessian(lambda at: chosen.loss(at, inputs, targets), theta)
    _, plain = chosen.gradient(theta, inputs, targets)
    _, regularised = chosen.gradient(theta, inputs, targets, gamma)
    torch.testing.assert_close(regularised, plain + gamma / 2 * hessian @ plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("every_step", [False, True])
def test_the_curvature_is_that_of_an_explicit_hessian(every_step: bool) -> None:
    chosen = objective()
    theta, (inputs, targets) = somewhere(chosen), data("multinomial", every_step)

    def loss(at: Tensor) -> Tensor:
        return chosen.loss(at, inputs, targets)

    hessian = torch.autograd.functional.hessian(loss, theta)
    torch.testing.assert_close(hessian, hessian.T, rtol=1e-3, atol=1e-5)
    vector = torch.tensor(np.random.default_rng(4).normal(size=len(theta))).float()
    product = monitors.hessian_vector_product(loss, theta, vector)
    torch.testing.assert_close(product, hessian @ vector, rtol=1e-3, atol=1e-4)
    largest = float(torch.linalg.eigvalsh(hessian.double())[-1])
    assert monitors.sharpness(loss, theta, vector, 300).value == pytest.approx(largest, rel=1e-3)


def test_sharpness_is_the_largest_eigenvalue_even_where_a_negative_one_is_larger_in_magnitude() -> None:
    matrix = torch.diag(torch.tensor([-5.0, 1.0, 3.0]))
    found = monitors.sharpness(lambda at: at @ matrix @ at / 2, torch.ones(3), torch.tensor([1.0, 2.0, 3.0]), 200)
    assert found.value == pytest.approx(3, rel=1e-4)
    assert found.vector.abs().tolist() == pytest.approx([0, 0, 1], abs=1e-2)


def test_the_objective_of_a_model_starts_at_its_law() -> None:
    model = small_model(training={"surrogate": "sigmoid", "slope": 4, "weight_decay": 0.01})
    chosen = of_model(model)
    for own, drawn in zip(chosen.network(chosen.initial()), model.network(range(64)), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own[:4], drawn[:4], strict=True))
    assert chosen.heads == (Head("squared", slice(0, 10)),)
    with pytest.raises(ValueError, match="expected training, got none"):
        of_model(small_model())


def test_heads_and_timesteps_of_a_model() -> None:
    heads = [{"name": "digit", "outputs": 3}, {"name": "carry", "loss": "logistic"}]
    model = small_model(training={}, readout={"heads": heads, "every_step": True})
    chosen = of_model(model)
    assert chosen.heads == (Head("multinomial", slice(0, 3)), Head("logistic", slice(3, 4)))
    numbers = np.array([[[2, 1], [0, 0]], [[1, -1], [1, 1]]], np.int32)
    expected = [[[0, 0, 1, 1], [1, 0, 0, 0]], [[np.nan] * 4, [0, 1, 0, 1]]]
    np.testing.assert_array_equal(targets_of(numbers, model.readout).numpy(), expected)


def test_a_target_at_the_last_timestep_alone_is_that_of_the_sequence() -> None:
    """So that sequences that end early can be padded."""
    chosen = objective()
    theta, (inputs, targets) = somewhere(chosen), data("multinomial")
    stretched = torch.full((12, 8, 2), torch.nan)
    stretched[:, 4] = targets
    longer = torch.cat([inputs, torch.ones(12, 3, 3)], dim=1)
    torch.testing.assert_close(chosen.gradient(theta, longer, stretched), chosen.gradient(theta, inputs, targets))


def test_rows_without_a_target_do_not_count() -> None:
    chosen = objective("squared")
    theta, (inputs, targets) = somewhere(chosen), data("squared", every_step=True)
    targets[3:] = torch.nan
    torch.testing.assert_close(chosen.loss(theta, inputs, targets), chosen.loss(theta, inputs[:3], targets[:3]))
    assert chosen.gradient(theta, inputs, targets)[1].isfinite().all()


def test_values_are_one_squared_head() -> None:
    model = small_model(training={}, readout={"target": "values", "outputs": 2})
    assert of_model(model).heads == (Head("squared", slice(0, 2)),)
    numbers = np.array([[[1.5, 2]], [[np.nan, np.nan]]], np.float32)
    np.testing.assert_array_equal(targets_of(numbers, model.readout).numpy(), numbers[:, 0])


def test_a_model_without_training_keeps_its_digest() -> None:
    assert "training" not in small_model().spec_json
    assert small_model(training={}).digest != small_model().digest
    with pytest.raises(ModelError, match="expected at most 4 workers, got 5"):
        parse_model(small_model(training={"workers": 4}).model_dump() | {"training": {"workers": 5}})

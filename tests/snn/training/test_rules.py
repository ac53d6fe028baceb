"""Step rules against torch's optimisers and against their formulas."""

import numpy as np
import pytest
import torch
from torch import Tensor

from snn.training import monitors
from snn.training.local import deal
from snn.training.rules import Moments, at_rest, step
from snn.training.spec import TrainingSpec


def gradients(count: int, size: int = 5) -> list[Tensor]:
    return [torch.tensor(row).float() for row in np.random.default_rng(0).normal(size=(count, size))]


@pytest.mark.parametrize(
    ("spec", "optimiser"),
    [
        ({"rule": "sgd", "momentum": 0.9}, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        ({"rule": "sgd", "momentum": 0.0}, lambda p: torch.optim.SGD(p, 0.1)),
        ({"rule": "adam"}, lambda p: torch.optim.Adam(p, 0.1)),
    ],
)
def test_a_rule_is_that_of_torch(spec: dict, optimiser: object) -> None:
    training = TrainingSpec(learning_rate=0.1, decay="none", **spec)
    theirs = torch.ones(5, requires_grad=True)
    ours, moments, peer = theirs.detach().clone(), at_rest(theirs.detach()), optimiser([theirs])  # type: ignore[operator]
    for done, gradient in enumerate(gradients(20)):
        update, moments = step(training, gradient, moments, done)
        ours = ours + update
        theirs.grad = gradient.clone()
        peer.step()
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


def length(gradient: Tensor, done: int = 0, **spec: object) -> float:
    training = TrainingSpec.model_validate({"rule": "sgd", "momentum": 0, "learning_rate": 0.5, "decay": "none"} | spec)
    return float(step(training, gradient, at_rest(gradient), done)[0].norm())


def test_a_fixed_length_is_fixed() -> None:
    for gradient in gradients(5):
        assert length(1000 * gradient, rule="fixed_length") == pytest.approx(0.5)
    assert length(torch.zeros(5), rule="fixed_length") == 0


def test_linear_decay_falls_to_zero() -> None:
    gradient = torch.tensor([3.0, 4.0])
    spec = {"decay": "linear", "rounds": 5, "local_steps": 2}
    assert [length(gradient, done, **spec) for done in (0, 5, 10, 11)] == pytest.approx([2.5, 1.25, 0, 0])


def test_soft_clipping_bounds_a_step() -> None:
    gradient = torch.tensor([3.0, 4.0])
    assert length(gradient, soft_clipping=(1, 0)) == pytest.approx(2.5)
    assert length(gradient, soft_clipping=(2, 0.5)) == pytest.approx(0.5 * 5 / (2 + 0.5 * 5))
    assert length(1e6 * gradient, soft_clipping=(2, 0.5)) == pytest.approx(1, rel=1e-3)  # at most eta / L1


def test_rules_leave_what_they_are_given() -> None:
    gradient = torch.ones(3)
    moments = Moments(torch.ones(3), torch.ones(3), 4)
    for rule in ("sgd", "adam", "fixed_length"):
        step(TrainingSpec(rule=rule), gradient, moments, 0)  # type: ignore[arg-type]
    assert torch.equal(moments.first, torch.ones(3))
    assert torch.equal(moments.second, torch.ones(3))
    assert torch.equal(gradient, torch.ones(3))


def test_implicit_regulariser() -> None:
    assert monitors.implicit_regulariser(gradient_norm=3, learning_rate=0.1) == pytest.approx(0.225)


def test_a_deal_takes_each_row_once_before_any_again() -> None:
    order = deal(10, 5, 4, 1, 2)
    assert order.shape == (5, 4)
    assert sorted(order.ravel()[:10]) == sorted(order.ravel()[10:]) == list(range(10))
    assert np.array_equal(order, deal(10, 5, 4, 1, 2))
    assert not np.array_equal(order, deal(10, 5, 4, 1, 3))

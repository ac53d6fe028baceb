"""What one wants to see of a descent on L with learning rate gamma.

    sharpness             the largest eigenvalue of the Hessian H; above 2 / gamma plain gradient descent is unstable,
                          and it hovers there: the edge of stability (Cohen et al. 2021)
    implicit regulariser  (gamma / 4) ||grad L||^2, which finite steps add to L (Barrett & Dherin 2021)

H belongs to the surrogate calculus: each derivative of a spike is the surrogate's. It is symmetric all the same, since
it comes of local derivatives as any Hessian does. It is never formed: H v is the gradient of <grad L, v>.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Loss = Callable[[Tensor], Tensor]


class Sharpness(NamedTuple):
    """The eigenvalue and its vector [d], to start from the next time."""

    value: float
    vector: Tensor


def hessian_vector_product(loss: Loss, theta: Tensor, vector: Tensor) -> Tensor:
    """H v [d]."""
    theta = theta.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(theta), theta, create_graph=True)
    (product,) = torch.autograd.grad(gradient @ vector, theta)
    return product


def sharpness(loss: Loss, theta: Tensor, start: Tensor, iterations: int) -> Sharpness:
    """The largest eigenvalue of H by `iterations` steps of the power method from `start` [d], which is not 0.

    The method finds the eigenvalue of largest magnitude; where that is negative, as many steps on H minus it find the
    largest.
    """
    found = _power(lambda v: hessian_vector_product(loss, theta, v), start, iterations)
    if found.value >= 0:
        return found
    lowest = found.value
    shifted = _power(lambda v: hessian_vector_product(loss, theta, v) - lowest * v, start, iterations)
    return Sharpness(shifted.value + lowest, shifted.vector)


def implicit_regulariser(gradient_norm: float, learning_rate: float) -> float:
    return learning_rate / 4 * gradient_norm**2


def _power(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> Sharpness:
    vector, value = start / start.norm(), 0.0
    for _ in range(iterations):
        image = product(vector)
        value, norm = float(vector @ image), float(image.norm())
        if norm == 0:
            break
        vector = image / norm
    return Sharpness(value, vector)

"""Solvers with D and large factors on a device of torch: the same optimum. The CPU is one where there is no GPU."""

import numpy as np
import pytest
import torch

from solver_service import ReadoutClassifier, linear_algebra
from solver_service.linear_algebra_gpu import GpuCholesky
from solver_service.penalties import PENALTIES
from solver_service.settings import SolverSettings
from solver_service.solvers import solve
from tests.solver.conftest import Draw, moments_of, samples_of

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))
DEVICES = pytest.mark.parametrize("device", ["cpu", CUDA])


@pytest.fixture
def small_counts_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_algebra, "GPU_FROM", 2)


@DEVICES
@pytest.mark.parametrize("penalty", [name for name in PENALTIES if name != "none"])
@pytest.mark.parametrize("loss", ["squared", "logistic", "multinomial", "moments"])
@pytest.mark.usefixtures("small_counts_as_large")
def test_the_same_optimum(draw: Draw, device: str, loss: str, penalty: str) -> None:
    data = draw("squared" if loss == "moments" else loss, 1)
    fit = moments_of(*data) if loss == "moments" else samples_of(loss, *data)
    there = solve(fit, penalty, 0.02, tolerance=1e-9, device=device)
    assert there.relative_gap <= 1e-9
    assert there.primal == pytest.approx(solve(fit, penalty, 0.02, tolerance=1e-9).primal, rel=2e-9)


@DEVICES
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_factors(device: str, precision: type) -> None:
    rng = np.random.default_rng(0)
    half = rng.standard_normal((40, 60)).astype(precision)
    a, right = half @ half.T, rng.standard_normal((40, 3)).astype(precision)
    factor, tolerance = GpuCholesky(a, device), 1e-3 if precision is np.float32 else 1e-10
    np.testing.assert_allclose(factor.solve(right), np.linalg.solve(a, right), atol=tolerance)
    np.testing.assert_allclose(factor.solve(right[:, 0]), np.linalg.solve(a, right[:, 0]), atol=tolerance)
    np.testing.assert_allclose(factor.inverse(), np.linalg.inv(a), atol=tolerance)
    np.testing.assert_allclose(np.tril(factor.lower), np.linalg.cholesky(a), atol=tolerance)
    with pytest.raises(np.linalg.LinAlgError):
        GpuCholesky(-a, device)


@DEVICES
@pytest.mark.usefixtures("small_counts_as_large")
def test_an_estimator_and_its_path(draw: Draw, device: str) -> None:
    spikes, targets = draw("multinomial", 5)
    here, there = (
        ReadoutClassifier(relative_beta="best", tolerance=1e-9, device=where).fit(spikes, targets.argmax(axis=1))
        for where in (None, device)
    )
    assert there.relative_beta_ == here.relative_beta_
    assert there.primal_ == pytest.approx(here.primal_, rel=2e-9)


def test_the_service_says_what_it_expects() -> None:
    with pytest.raises(ValueError, match=r"cpu.*cuda"):
        SolverSettings.model_validate({"device": "tpu"})

"""Cholesky factors on a GPU, in torch, for matrices that keep a CPU busy for seconds."""

from functools import cached_property

import numpy as np
import torch

from solver_service.linear_algebra import Check, Cholesky
from solver_service.losses import Floats


class GpuCholesky(Cholesky):
    """As `Cholesky`, with A and its factor on a device; right sides and solutions are on the host."""

    def __init__(self, a: Floats, device: str) -> None:
        self._lower, failed = torch.linalg.cholesky_ex(torch.from_numpy(a).to(device))
        if int(failed):
            raise np.linalg.LinAlgError("the matrix is not positive definite")

    @cached_property
    def lower(self) -> Floats:  # type: ignore[override]
        return np.asarray(self._lower.cpu().numpy())

    def solve(self, right: Floats) -> Floats:
        columns = torch.from_numpy(np.ascontiguousarray(right.reshape(len(right), -1))).to(self._lower)
        return np.asarray(torch.cholesky_solve(columns, self._lower).cpu().numpy().reshape(right.shape))

    def inverse(self, check: Check = lambda: None) -> Floats:
        return np.asarray(torch.cholesky_inverse(self._lower).cpu().numpy())

"""From spike columns to a certified readout: dictionary, convex problem, solvers, certificate, publisher.

As a library, for anybody's binary design matrix: ReadoutClassifier and ReadoutRegressor.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solver_service.estimator import ReadoutClassifier, ReadoutRegressor

__all__ = ["ReadoutClassifier", "ReadoutRegressor"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from solver_service import estimator  # when asked for: the service has no use for scikit-learn's 100 MB

        return getattr(estimator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

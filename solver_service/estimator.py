"""The convex readout as scikit-learn estimators: anybody's binary design matrix, solved with a certificate.

min over (W, b):  sum_i s_i loss(D_i W + b, y_i) + beta penalty(W),   s_i = sample_weight_i / their sum

ReadoutRegressor    squared loss (a half of the squared distance), one target or several
ReadoutClassifier   logistic loss for two classes, multinomial for more

from solver_service import ReadoutClassifier
readout = ReadoutClassifier(relative_beta=0.01).fit(D, y)
readout.relative_gap_        # (primal - dual) / max(1, primal) of exactly these coefficients
"""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from snn.bits import BitMatrix
from solver_service.fit import Samples
from solver_service.losses import LOSSES, Array
from solver_service.path import Choice, Path, warm_path
from solver_service.penalties import PenaltyName
from solver_service.solvers import Point, solve

BLOCK = 4096  # rows packed at a time


class _Readout(BaseEstimator):  # type: ignore[misc]
    def __init__(
        self,
        *,
        penalty: PenaltyName = "group",
        relative_beta: float | Choice = 0.01,
        tolerance: float = 1e-6,
        max_seconds: float | None = None,
        binarize: float | None = None,
        validation_fraction: float = 0.1,
        random_state: int | None = 0,
        device: str | None = None,
    ) -> None:
        """penalty: l1 (every coefficient), group (the coefficients of a column), ridge or none.
        relative_beta: beta / beta_max in (0, 1], or the rule by which held-out rows choose it: "best" or "sparsest".
        tolerance: the relative gap to reach. max_seconds: after which `fit` returns what it has, with its gap.
        binarize: a column is 1 where X is above it; None if X is zeros and ones already.
        validation_fraction: of the rows, drawn by `random_state`, held out to choose beta; not used for a number.
        device: a device of torch, "cuda", for wide or long X; None for this CPU.
        """
        self.penalty = penalty
        self.relative_beta = relative_beta
        self.tolerance = tolerance
        self.max_seconds = max_seconds
        self.binarize = binarize
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device

    def _solve(self, loss: str, spikes: BitMatrix, targets: Array, weights: Array | None) -> tuple[Array, Array]:
        """Coefficients [P, C] and intercept [C]; sets all that a fit leaves behind but these."""
        samples = Samples(LOSSES[loss], spikes.on(self.device), targets, weights)
        seconds = np.inf if self.max_seconds is None else self.max_seconds
        relative_beta, start = self.relative_beta, None
        if isinstance(relative_beta, str):
            self.path_ = self._path(samples, seconds)
            at = self.path_.chosen(relative_beta)
            relative_beta = float(self.path_.relative_betas[at])
            start = Point(self.path_.solutions[at].coefficients, self.path_.solutions[at].intercept)
        solution = solve(samples, self.penalty, relative_beta, self.tolerance, start, seconds, device=self.device)
        self.beta_, self.relative_beta_ = solution.beta, relative_beta
        self.primal_, self.dual_ = solution.primal, solution.dual
        self.relative_gap_, self.support_ = solution.relative_gap, solution.support
        return solution.coefficients, solution.intercept

    def _path(self, samples: Samples, seconds: float) -> Path:
        held = round(self.validation_fraction * samples.rows)
        if not 0 < held < samples.rows:
            raise ValueError(
                f"validation_fraction: expected a share that holds out at least one of {samples.rows} rows and not "
                f"all, got {self.validation_fraction}"
            )
        order = np.random.default_rng(self.random_state).permutation(samples.rows)
        rest, held_out = (samples.take(np.sort(part)) for part in (order[held:], order[:held]))
        return warm_path(rest, held_out, self.penalty, seconds=seconds / 2, device=self.device)

    def _bits(self, X: Any) -> BitMatrix:
        if self.binarize is None and not _is_binary(X):
            raise ValueError(
                "X: expected zeros and ones, got another value; set binarize to the threshold that makes them"
            )
        above = 0.0 if self.binarize is None else self.binarize
        tops = range(0, len(X), BLOCK)
        packed = [np.packbits(X[top : top + BLOCK] > above, axis=1, bitorder="little") for top in tops]
        return BitMatrix.from_rows(np.concatenate(packed), X.shape[1])

    def _scores(self, X: npt.ArrayLike) -> Array:
        """D W + b [N, C]."""
        check_is_fitted(self)
        spikes = self._bits(validate_data(self, X, reset=False))
        w = np.atleast_2d(self.coef_).T
        return np.asarray(spikes.times(np.ascontiguousarray(w)) + np.atleast_1d(self.intercept_))


class ReadoutRegressor(RegressorMixin, _Readout):  # type: ignore[misc]
    """Squared loss. coef_ [P] or [C, P] and intercept_ are those of scikit-learn's linear models; beta_, primal_,
    dual_, relative_gap_ and support_ [S] say what was solved and how well, path_ how beta was chosen."""

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """X [N, P], y [N] or [N, C], sample_weight [N]. Raises ValueError for what cannot be used."""
        checked, targets = validate_data(self, X, y, multi_output=True, y_numeric=True)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, checked)
        w, b = self._solve("squared", self._bits(checked), targets.reshape(len(targets), -1), weights)
        self.coef_: Array = w[:, 0] if targets.ndim == 1 else w.T
        self.intercept_: Array | float = float(b[0]) if targets.ndim == 1 else b
        return self

    def predict(self, X: npt.ArrayLike) -> Array:
        """[N] or [N, C]."""
        scores = self._scores(X)
        return scores[:, 0] if np.ndim(self.coef_) == 1 else scores

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output, tags.target_tags.multi_output = True, True
        tags.regressor_tags.poor_score = True  # on scikit-learn's test data, which has real-valued inputs
        return tags


class ReadoutClassifier(ClassifierMixin, _Readout):  # type: ignore[misc]
    """Logistic loss for two classes, multinomial for more. classes_ [C], coef_ [C or 1, P] and intercept_ [C or 1] are
    those of scikit-learn's LogisticRegression; beta_, primal_, dual_, relative_gap_, support_ and path_ as above."""

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """X [N, P], y [N] labels of any kind, sample_weight [N]. Raises ValueError for what cannot be used."""
        checked, labels = validate_data(self, X, y)
        check_classification_targets(labels)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, checked)
        encoder = LabelEncoder()
        numbers = encoder.fit_transform(labels)
        self.classes_ = encoder.classes_
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least two classes, got one class, {self.classes_[0]!r}")
        binary = len(self.classes_) == 2
        targets = numbers[:, None].astype(np.float64) if binary else np.eye(len(self.classes_))[numbers]
        w, self.intercept_ = self._solve("logistic" if binary else "multinomial", self._bits(checked), targets, weights)
        self.coef_ = w.T
        return self

    def decision_function(self, X: npt.ArrayLike) -> Array:
        """Scores [N] for two classes, [N, C] for more."""
        scores = self._scores(X)
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: npt.ArrayLike) -> Array:
        """[N, C]."""
        scores = self._scores(X)
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1) if len(self.classes_) == 2 else scores
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Labels [N]."""
        scores = self.decision_function(X)
        return np.asarray(self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)])


def _is_binary(X: npt.NDArray[Any]) -> bool:
    blocks = (X[top : top + BLOCK] for top in range(0, len(X), BLOCK))
    return all(bool(((block == 0) | (block == 1)).all()) for block in blocks)


__all__ = ["ReadoutClassifier", "ReadoutRegressor"]

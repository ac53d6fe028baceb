"""The estimators as users of scikit-learn meet them."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import Lasso
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from solver_service import ReadoutClassifier, ReadoutRegressor

Estimator = ReadoutClassifier | ReadoutRegressor


@parametrize_with_checks(
    [
        ReadoutRegressor(binarize=0.0, tolerance=1e-10),
        ReadoutClassifier(binarize=0.0, tolerance=1e-10),
        ReadoutClassifier(binarize=0.0, tolerance=1e-10, penalty="l1", relative_beta=0.1),
        ReadoutClassifier(binarize=0.0, tolerance=1e-10, penalty="ridge"),
    ]
)
def test_scikit_learn_checks(estimator: Estimator, check: Any) -> None:
    check(estimator)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Thresholded pixels [1797, 192] and labels."""
    pixels, labels = load_digits(return_X_y=True)
    return np.concatenate([pixels > level for level in (2, 7, 12)], axis=1), labels


def test_digits_are_read_and_certified() -> None:
    spikes, labels = digits()
    readout = ReadoutClassifier(relative_beta=0.01).fit(spikes[:1400], labels[:1400])
    assert readout.relative_gap_ <= 1e-6
    assert readout.primal_ - readout.dual_ <= 1e-6 * max(1.0, readout.primal_)
    assert readout.score(spikes[1400:], labels[1400:]) > 0.85
    assert readout.coef_.shape == (10, 192)
    assert np.flatnonzero(readout.coef_.any(axis=0)).tolist() == readout.support_.tolist()
    assert_allclose(readout.predict_proba(spikes[1400:]).sum(axis=1), 1)


def test_the_lasso_of_scikit_learn() -> None:
    spikes, labels = digits()
    ours = ReadoutRegressor(penalty="l1", relative_beta=0.05, tolerance=1e-9).fit(spikes, labels)
    theirs = Lasso(alpha=ours.beta_, tol=1e-12, max_iter=100_000).fit(spikes.astype(float), labels)
    residual = labels - theirs.predict(spikes.astype(float))
    primal = residual @ residual / 2 / len(labels) + ours.beta_ * np.abs(theirs.coef_).sum()
    assert ours.primal_ == pytest.approx(primal, rel=1e-8)
    assert_allclose(ours.predict(spikes), theirs.predict(spikes.astype(float)), atol=1e-2)


@pytest.mark.parametrize("estimator", [ReadoutRegressor(tolerance=1e-9), ReadoutClassifier(tolerance=1e-9)])
def test_a_weight_of_two_is_the_row_twice(estimator: Estimator) -> None:
    spikes, labels = digits()
    spikes, labels = spikes[:300], labels[:300] % 3
    twice = np.arange(300) % 4 == 0
    weighted = clone(estimator).fit(spikes, labels, sample_weight=1.0 + twice)
    repeated = clone(estimator).fit(np.concatenate([spikes, spikes[twice]]), np.concatenate([labels, labels[twice]]))
    assert weighted.beta_ == pytest.approx(repeated.beta_, rel=1e-9)
    assert weighted.primal_ == pytest.approx(repeated.primal_, rel=1e-8)


def test_several_targets_and_their_shapes() -> None:
    spikes, labels = digits()
    both = ReadoutRegressor().fit(spikes[:500], np.stack([labels, labels**2], axis=1)[:500])
    assert both.coef_.shape == (2, 192)
    assert both.predict(spikes[:7]).shape == (7, 2)


def test_real_numbers_are_refused_unless_a_threshold_is_named() -> None:
    pixels, labels = load_digits(return_X_y=True)
    with pytest.raises(ValueError, match=r"expected zeros and ones.*binarize"):
        ReadoutClassifier().fit(pixels, labels)
    scores = cross_val_score(ReadoutClassifier(binarize=7.5, tolerance=1e-3), pixels[:600], labels[:600], cv=3)
    assert scores.mean() > 0.8


@pytest.mark.parametrize("rule", ["best", "sparsest"])
def test_beta_is_chosen_on_held_out_rows(rule: Any) -> None:
    spikes, labels = digits()
    spikes, labels = spikes[:600], labels[:600] % 2
    readout = ReadoutClassifier(relative_beta=rule).fit(spikes, labels)
    path = readout.path_
    assert readout.relative_beta_ == path.relative_betas[path.chosen(rule)]
    assert readout.relative_gap_ <= 1e-6
    assert path.relative_betas[path.chosen("sparsest")] >= path.relative_betas[path.chosen("best")]
    with pytest.raises(ValueError, match="validation_fraction"):
        ReadoutClassifier(relative_beta=rule, validation_fraction=0).fit(spikes, labels)


def test_a_deadline_is_kept_and_the_gap_is_said() -> None:
    spikes, labels = digits()
    readout = ReadoutClassifier(max_seconds=0.0).fit(spikes, labels)
    assert readout.relative_gap_ > 1e-6

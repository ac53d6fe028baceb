"""Streams whose rule changes, and those who learn on them."""

from pathlib import Path

import numpy as np
import pytest

from bench import drift
from tests.client.test_data import write_idx


@pytest.mark.parametrize("name", ["certified readout", "River softmax", "SG, refitted"])
def test_every_sequence_is_answered_before_it_is_learnt_from(name: str) -> None:
    stream = drift.taps(drift.PORTION, 0)
    stream = stream._replace(classes=np.ones_like(stream.classes))
    right = drift.test_then_train(drift.LEARNERS[name](stream, 0), stream)
    assert right.tolist() == drift.PORTION * [False] + (len(right) - drift.PORTION) * [True]


def test_ours_is_right_again_soon_after_the_rule_has_changed() -> None:
    phase = 12 * drift.PORTION
    stream = drift.taps(phase, 0)
    right = drift.test_then_train(drift.LEARNERS["certified readout"](stream, 0), stream)
    for begin in range(0, len(right), phase):
        assert right[begin + phase // 2 : begin + phase].mean() > 0.95


def test_names_change_with_the_phase_at_once_or_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 300 + drift.EXAMPLES), ("t10k", 1)):
        write_idx(folder / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(folder / f"{part}-labels-idx1-ubyte", rng.integers(0, 10, count))
    monkeypatch.setenv("SPIKELOOM_SHARED", str(tmp_path))
    at_once, slowly = (drift.names(100, 0, slowly) for slowly in (False, True))
    assert np.array_equal(at_once.inputs, slowly.inputs)
    same = at_once.classes == slowly.classes
    assert same[200:].all()  # nothing comes after the last phase
    assert 0.2 < same[:200].mean() < 0.8

"""Lanes and shards are shared out evenly, whatever the parallelism."""

import numpy as np
import pytest

from operators.keys import MAX_PARALLELISM, _key_group, flink_keys


def test_the_hash_is_flinks() -> None:
    """MathUtils.murmurHash(key) % 1024 as a Java program with flink-dist 2.2.1 printed it."""
    keys = np.array([0, 1, 2, 3, 77777, 123456789, -5])
    assert _key_group(keys).tolist() == [478, 982, 895, 369, 452, 337, 848]


@pytest.mark.parametrize("slots", [1, 3, 4, 16, 96, 1000, 1024])
@pytest.mark.parametrize("parallelism", [1, 2, 3, 4, 8, 16])
def test_tasks_differ_by_one_slot_at_most(slots: int, parallelism: int) -> None:
    keys = flink_keys(slots)
    assert len(set(keys)) == slots
    tasks = _key_group(np.array(keys)) * parallelism // MAX_PARALLELISM
    shares = np.bincount(tasks, minlength=parallelism)
    assert shares.max() - shares.min() <= 1


def test_more_slots_than_key_groups_still_have_a_key_each() -> None:
    assert len(set(flink_keys(5000))) == 5000

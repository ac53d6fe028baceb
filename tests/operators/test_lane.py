"""A lane puts slices in order, takes every timestep once and survives being stored between any two records."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.lane import REMEMBER_MS, Lane
from wire.codec import Slice, Targets

T, M = 6, 2


def cut(ids: list[int], start: int, codes: np.ndarray, classes: list[int] | None = None) -> Slice:
    targets = Targets() if classes is None else Targets(np.array(classes, np.int32))
    return Slice(0, np.array(ids, np.uint64), start, codes, targets, sent_us=5)


def sequence_codes(sequence: int) -> np.ndarray:
    return np.arange(T * M, dtype=np.int32).reshape(T, M) + 1000 * sequence


@st.composite
def deliveries(draw: st.DrawFn) -> list[tuple[list[int], int, int]]:
    """(ids, start, end) of records that together hold every timestep at least once, in any order."""
    records = []
    for _ in range(draw(st.integers(1, 3))):
        group = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True))
        cuts = sorted(draw(st.sets(st.integers(1, T - 1))) | {0, T})
        records += [(group, start, end) for start, end in itertools.pairwise(cuts)]
    extra = draw(
        st.lists(st.tuples(st.integers(0, len(records) - 1), st.integers(0, T - 1), st.integers(1, T)), max_size=4)
    )
    records += [(records[which][0], start, min(T, start + steps)) for which, start, steps in extra]
    return draw(st.permutations(records))


@settings(max_examples=200, deadline=None)
@given(deliveries())
def test_every_timestep_is_ready_once_and_in_order(records: list[tuple[list[int], int, int]]) -> None:
    stored, taken, duplicates, offered = None, {}, 0, 0
    for ids, start, end in records:
        lane = Lane(stored, lanes=1, now_ms=1)
        codes = np.stack([sequence_codes(sequence)[start:end] for sequence in ids])
        ready, twice = lane.accept(cut(ids, start, codes), now_ms=1)
        duplicates, offered = duplicates + twice, offered + codes.shape[0] * codes.shape[1]
        for group in ready:
            for sequence, rows in zip(group.ids, group.codes, strict=True):
                so_far = taken.setdefault(sequence, [])
                assert len(so_far) == group.start
                so_far.extend(rows.tolist())
            if group.start + group.codes.shape[1] == T:
                lane.finish(group.ids)
        stored = lane.to_bytes()
    assert taken == {sequence: sequence_codes(sequence).tolist() for ids, _, _ in records for sequence in ids}
    assert lane.live == 0
    assert offered - duplicates == T * len(taken)


def test_a_finished_sequence_is_not_taken_again() -> None:
    lane = Lane(None, lanes=1, now_ms=1)
    whole = cut([3], 0, sequence_codes(3)[None])
    (ready,), _ = lane.accept(whole, 1)
    lane.finish(ready.ids)
    again = Lane(lane.to_bytes(), lanes=1, now_ms=2)
    assert again.accept(whole, 2) == ([], T)
    again.expire(0, now_ms=REMEMBER_MS + 2)  # the memory rotates once: still known
    assert again.accept(whole, 3) == ([], T)


def test_an_abandoned_sequence_expires_and_may_come_back_whole() -> None:
    lane = Lane(None, lanes=1, now_ms=1)
    lane.accept(cut([3, 4], 0, np.stack([sequence_codes(3)[:2], sequence_codes(4)[:2]])), now_ms=100)
    lane.accept(cut([4], 2, sequence_codes(4)[None, 2:3]), now_ms=500)
    lane = Lane(lane.to_bytes(), lanes=1, now_ms=501)
    assert lane.expire(older_than_ms=300, now_ms=600) == [(3, 2)]
    assert lane.live == 1
    (ready,), duplicates = lane.accept(cut([3], 0, sequence_codes(3)[None]), now_ms=700)
    assert (ready.start, ready.codes.shape[1], duplicates) == (0, T, 0)


def test_a_target_may_come_with_any_slice_and_the_first_counts() -> None:
    lane = Lane(None, lanes=1, now_ms=1)
    codes = sequence_codes(0)[None]
    lane.accept(cut([3], 0, codes[:, :2]), 1)
    lane.accept(cut([3], 2, codes[:, 2:4], classes=[7]), 1)
    lane.accept(cut([3], 4, codes[:, 4:5], classes=[8]), 1)
    assert Lane(lane.to_bytes(), 1, 1).targets([3], outputs=10).classes.tolist() == [7]


def test_what_is_carried_comes_back() -> None:
    lane = Lane(None, lanes=1, now_ms=1)
    lane.accept(cut([3, 4], 0, np.stack([sequence_codes(3)[:2], sequence_codes(4)[:2]])), 1)
    lane.keep([3], np.array([[1.5, -2]], np.float32))
    again = Lane(lane.to_bytes(), 1, 1)
    carried = again.carry([3, 4], np.float32, lambda: np.zeros(2, np.float32))
    assert carried.tolist() == [[1.5, -2], [0, 0]]

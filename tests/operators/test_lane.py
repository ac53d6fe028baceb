"""A lane puts slices in order, takes every timestep once, and is made again from what it stored, at any moment."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.lane import REMEMBER_MS, Cohort, Expired, Lane
from snn.model import ModelSpec
from tests.models import small_model
from tests.operators.in_memory import DictStore
from wire.codec import Slice, encode_slice
from wire.targets import Targets

T, M = 6, 2
NEURONS = 3  # 12 bytes of membranes against 2 bytes of codes a timestep: snapshots come after all six


def model_of(timesteps: int = T) -> ModelSpec:
    return small_model(
        input={"timesteps": timesteps, "features": M, "bits": 4},
        witnesses={"law": {"name": "gaussian"}, "count": 8},
        lanes=1,
    )


MODEL = model_of()


def cut(ids: list[int], start: int, codes: np.ndarray, classes: list[int] | None = None, model=MODEL):
    targets = Targets() if classes is None else Targets.final(np.array(classes, np.int32))
    piece = Slice(0, np.array(ids, np.uint64), start, codes, targets, sent_us=5)
    return piece, encode_slice(model, piece)


def sequence_codes(sequence: int, timesteps: int = T) -> np.ndarray:
    return np.random.default_rng(sequence).integers(0, 17, (timesteps, M)).astype(np.uint8)


def step(lane: Lane, cohort: Cohort, seen: dict[int, list]) -> None:
    """Membranes that remember every timestep and its order: u = 3 u + code sum, and the number of steps."""
    u = np.zeros((len(cohort), NEURONS), np.float32) if cohort.membranes is None else cohort.membranes.copy()
    for t in range(cohort.next - cohort.stepped):
        u[:, 0] = u[:, 0] * 3 % 1000 + cohort.codes[:, t].sum(axis=1)
        u[:, 1] += 1
    for sequence, row in zip(cohort.ids.tolist(), u, strict=True):
        seen[sequence] = row.tolist()
    lane.stepped(cohort, u)


def undivided(sequence: int, timesteps: int = T) -> list[float]:
    u = 0
    for row in sequence_codes(sequence, timesteps).tolist():
        u = u * 3 % 1000 + sum(row)
    return [u, timesteps, 0]


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[tuple[list[int], int, int]], int]:
    """(ids, start, end) of records that together hold every timestep at least once, in any order; and T."""
    timesteps = draw(st.sampled_from([T, 20]))
    records = []
    for _ in range(draw(st.integers(1, 4))):
        group = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
        cuts = sorted(draw(st.sets(st.integers(1, timesteps - 1), max_size=6)) | {0, timesteps})
        records += [(group, start, end) for start, end in itertools.pairwise(cuts)]
    for which, start, steps in draw(
        st.lists(st.tuples(st.integers(0, len(records) - 1), st.integers(0, T - 1), st.integers(1, T)), max_size=4)
    ):
        records.append((records[which][0], start, min(timesteps, start + steps)))
    return draw(st.permutations(records)), timesteps


@settings(max_examples=300, deadline=None)
@given(deliveries(), st.randoms(use_true_random=False))
def test_every_timestep_is_stepped_once_and_in_order(
    case: tuple[list[tuple[list[int], int, int]], int], chance: random.Random
) -> None:
    """Whatever the order, the cuts, the repetitions, the batches and the crashes."""
    records, timesteps = case
    model = model_of(timesteps)
    store, seen, done = DictStore(), {}, []
    lane, duplicates, offered = Lane(model, store, 1), 0, 0
    for ids, start, end in records:
        codes = np.stack([sequence_codes(sequence, timesteps)[start:end] for sequence in ids])
        piece, record = cut(ids, start, codes, model=model)
        duplicates += lane.offer(piece, record, now_ms=1)
        offered += len(ids) * (end - start)
        if chance.random() < 0.5:
            for cohort in lane.pending():
                step(lane, cohort, seen)
            done += [sequence for cohort in lane.complete() for sequence in cohort.ids.tolist()]
            lane.finish(lane.complete(), now_ms=1)
        lane.save(1)
        if chance.random() < 0.3:  # a crash: memory is lost, and with it what was seen
            seen = {sequence: seen[sequence] for sequence in done}
            lane = Lane(model, store, 1)
    for cohort in lane.pending():
        step(lane, cohort, seen)
    done += [sequence for cohort in lane.complete() for sequence in cohort.ids.tolist()]
    lane.finish(lane.complete(), now_ms=1)
    lane.save(1)
    everyone = {sequence for ids, _, _ in records for sequence in ids}
    assert sorted(done) == sorted(everyone), "each sequence is finished once"
    assert seen == {sequence: undivided(sequence, timesteps) for sequence in everyone}
    assert offered - duplicates == timesteps * len(everyone)
    assert lane.live == 0
    assert store.kinds() == "f", "of finished sequences only their ids are kept"


def test_a_finished_sequence_is_not_taken_again() -> None:
    store = DictStore()
    lane = Lane(MODEL, store, 1)
    whole = cut([3], 0, sequence_codes(3)[None])
    assert lane.offer(*whole, 1) == 0
    lane.finish(lane.complete(), 1)
    lane.save(1)
    assert store.kinds() == "f"
    lane = Lane(MODEL, store, 2)
    assert lane.offer(*whole, 2) == T
    other = cut([4], 0, sequence_codes(4)[None])
    lane.offer(*other, 3)
    lane.finish(lane.complete(), REMEMBER_MS + 3)  # the next period: still known
    lane.save(REMEMBER_MS + 3)
    lane = Lane(MODEL, store, REMEMBER_MS + 3)
    assert lane.offer(*whole, REMEMBER_MS + 3) == T
    lane.offer(*cut([5], 0, sequence_codes(5)[None]), 2 * REMEMBER_MS + 3)
    lane.finish(lane.complete(), 2 * REMEMBER_MS + 3)
    lane.save(1)
    lane = Lane(MODEL, store, 2 * REMEMBER_MS + 3)
    assert lane.offer(*whole, 2 * REMEMBER_MS + 3) == 0, "after two periods it is forgotten"
    assert lane.offer(*other, 2 * REMEMBER_MS + 3) == T


def test_whole_sequences_pass_unless_something_is_known_of_them() -> None:
    lane = Lane(MODEL, store := DictStore(), 0)
    codes = np.stack([sequence_codes(1), sequence_codes(2)])
    passed = lane.pass_on(cut([1, 2], 0, codes, [0, 1])[0], 0)
    assert passed is not None
    assert (passed.ids.tolist(), passed.next, passed.sent_us) == ([1, 2], T, 5)
    assert np.array_equal(passed.codes, codes)
    lane.save(0)
    assert (lane.live, store.kinds()) == (0, "f")
    for known in (lane, Lane(MODEL, store, 0)):  # and after a restart
        assert known.pass_on(cut([2, 3], 0, codes)[0], 0) is None
        assert known.offer(*cut([2], 0, codes[1:]), 0) == T
    lane.offer(*cut([4], 0, codes[:1, :2]), 0)
    assert lane.pass_on(cut([4], 0, codes[:1])[0], 0) is None  # under way
    assert lane.pass_on(cut([5], 0, codes[:1, :5])[0], 0) is None  # not whole
    assert lane.pass_on(cut([5], 0, codes[:1])[0], 0) is not None


def test_finished_ids_may_be_stored_now_and_then_unless_records_would_bring_them_back() -> None:
    store = DictStore()
    lane = Lane(MODEL, store, 0, finished_every_ms=1000)
    lane.offer(*cut([3], 0, sequence_codes(3)[None]), 1)
    lane.finish(lane.complete(), 1)
    lane.save(1)
    assert not store
    lane.save(1000)
    assert store.kinds() == "f"
    both = np.stack([sequence_codes(4)[:2], sequence_codes(5)[:2]])
    lane.offer(*cut([4, 5], 0, both), 1001)
    lane.offer(*cut([4], 2, sequence_codes(4)[None, 2:]), 1001)
    lane.finish(lane.complete(), 1001)
    lane.save(1001)
    assert Lane(MODEL, store, 1002).live == 1, "only 5 is under way"


def test_a_counting_client_costs_one_span_and_random_ids_their_own() -> None:
    store = DictStore()
    lane = Lane(MODEL, store, 1)
    for first in range(0, 1000, 100):
        lane.offer(*cut(list(range(first, first + 100)), 0, np.zeros((100, T, M), np.uint8)), 1)
        lane.finish(lane.complete(), 1)
        lane.save(1)
    assert [len(value) for value in store.values()] == [16]
    scattered = [10**6 * n for n in range(1, 6)]
    lane.offer(*cut(scattered, 0, np.zeros((5, T, M), np.uint8)), 1)
    lane.finish(lane.complete(), 1)
    lane.save(1)
    assert len(store) == 6


def test_an_abandoned_sequence_expires_and_may_come_back_whole() -> None:
    store = DictStore()
    lane = Lane(MODEL, store, 1)
    lane.offer(*cut([3, 4], 0, np.stack([sequence_codes(3)[:2], sequence_codes(4)[:2]])), now_ms=100)
    lane.offer(*cut([4], 2, sequence_codes(4)[None, 2:3]), now_ms=500)
    lane.save(1)
    assert lane.expire(older_than_ms=300) == [Expired(3, 2)]
    lane.save(1)
    lane = Lane(MODEL, store, 600)  # the record that 3 and 4 came in must not bring 3 back
    assert lane.live == 1
    assert lane.offer(*cut([3], 0, sequence_codes(3)[None]), now_ms=700) == 0
    (cohort,) = lane.complete()
    assert cohort.ids.tolist() == [3]
    lane.offer(*cut([4], 3, sequence_codes(4)[None, 3:]), now_ms=700)
    seen: dict[int, list] = {}
    for cohort in lane.pending():
        step(lane, cohort, seen)
    assert seen == {3: undivided(3), 4: undivided(4)}


def test_long_sequences_are_stored_as_membranes() -> None:
    """2 bytes of codes a timestep: after 7 of them the records (14) outgrow the membranes (12)."""
    model, store, seen = model_of(20), DictStore(), {}
    lane = Lane(model, store, 1)
    kinds = []
    for t in range(19):
        lane.offer(*cut([1, 2], t, np.stack([sequence_codes(s, 20)[t : t + 1] for s in (1, 2)]), model=model), 1)
        for cohort in lane.pending():
            step(lane, cohort, seen)
        lane.save(1)
        kinds.append(store.kinds())
    assert kinds[5:8] == ["rrrrrr", "s", "rs"]
    assert kinds[13:15] == ["s", "rs"]
    lane = Lane(model, store, 1)
    lane.offer(*cut([1, 2], 19, np.stack([sequence_codes(s, 20)[19:] for s in (1, 2)]), model=model), 1)
    for cohort in lane.pending():
        step(lane, cohort, seen)
    assert seen == {1: undivided(1, 20), 2: undivided(2, 20)}


def test_a_target_may_come_with_any_slice_and_the_first_counts() -> None:
    store = DictStore()
    lane = Lane(MODEL, store, 1)
    codes = sequence_codes(0)[None]
    lane.offer(*cut([3], 0, codes[:, :2]), 1)
    lane.offer(*cut([3], 0, codes[:, :2], classes=[7]), 1)  # nothing new but the target
    lane.offer(*cut([3], 4, codes[:, 4:5], classes=[8]), 1)
    lane.save(1)
    lane = Lane(MODEL, store, 1)
    lane.offer(*cut([3], 2, codes[:, 2:]), 1)
    (cohort,) = lane.complete()
    assert cohort.targets.numbers.tolist() == [[[7]]]


@pytest.mark.parametrize("together", [True, False])
def test_a_block_is_handled_as_one(together: bool) -> None:
    """A cohort lasts as long as its sequences come together, and splits when they do not."""
    lane = Lane(MODEL, DictStore(), 1)
    codes = np.stack([sequence_codes(s) for s in range(4)])
    lane.offer(*cut([0, 1, 2, 3], 0, codes[:, :2]), 1)
    if together:
        lane.offer(*cut([0, 1, 2, 3], 2, codes[:, 2:]), 1)
    else:
        lane.offer(*cut([3, 1], 2, codes[[3, 1], 2:]), 1)
        lane.offer(*cut([0, 2], 2, codes[[0, 2], 2:]), 1)
    assert sorted(map(len, lane.complete())) == ([4] if together else [2, 2])
    seen: dict[int, list] = {}
    for cohort in lane.pending():
        step(lane, cohort, seen)
    assert seen == {s: undivided(s) for s in range(4)}

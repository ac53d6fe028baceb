"""Rows and columns of the dictionary: invariance to chunking, order, shards and repetition; windows; fingerprints."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn import fingerprint
from snn.model import ReadoutSpec
from snn.readout import Rows
from solver_service import columns as columns_module
from solver_service import snapshot
from solver_service.columns import Columns
from solver_service.dictionary import Dictionary, Piece, Shape
from solver_service.losses import LOSSES

SPEC = ReadoutSpec(outputs=3)  # squared: rows are kept as sums alone
KEPT = ReadoutSpec(outputs=3, loss="multinomial")
WITNESSES, SHARDS = 32, 2


def _data(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ids [n] (not in order), spikes [n, WITNESSES] with repeated columns, classes [n]."""
    rng = np.random.default_rng(seed)
    spikes = rng.integers(0, 2, (n, 12), np.uint8)[:, rng.integers(0, 12, WITNESSES)]
    spikes[:, 5], spikes[:, 6] = 0, 1
    return rng.permutation(2 * n).astype(np.uint64)[:n], spikes, rng.integers(0, 3, n).astype(np.int32)


def _pieces(
    seed: int, chunk: int, order: np.ndarray, ids: np.ndarray, spikes: np.ndarray, classes: np.ndarray
) -> list[Piece]:
    """The data as pieces of `chunk` samples; shards interleave at random, each keeping its own order."""
    rng, width = np.random.default_rng(seed), WITNESSES // SHARDS
    queues = []
    for shard in range(SHARDS):
        bits = np.packbits(spikes[:, shard * width : (shard + 1) * width], axis=1, bitorder="little")
        parts = [order[at : at + chunk] for at in range(0, len(order), chunk)]
        queues.append([Piece(shard, ids[part], bits[part][:, None], classes[part][:, None, None]) for part in parts])
    pieces = []
    while any(queues):
        shard = int(rng.choice([k for k, queue in enumerate(queues) if queue]))
        pieces.append(queues[shard].pop(0))
    return pieces


def _by_id(dictionary: Dictionary) -> dict[int, tuple[bytes, tuple[float, ...]]]:
    dictionary.take_changes()
    rows = dictionary.all_rows()
    return {int(i): (b.tobytes(), tuple(t)) for i, b, t in zip(rows.ids, rows.bits, rows.targets.tolist(), strict=True)}


@pytest.mark.parametrize("spec", [SPEC, KEPT], ids=["sums", "rows"])
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 50), st.integers(1, 50), st.booleans())
@settings(deadline=None, max_examples=50)
def test_same_dictionary_whatever_chunks_order_and_repetition(
    spec: ReadoutSpec, seed: int, n: int, chunk: int, solve_every: int, repeat: bool
) -> None:
    ids, spikes, classes = data = _data(seed, n)
    order = np.random.default_rng(seed).permutation(n)
    pieces = _pieces(seed, chunk, order, *data)
    if repeat:
        pieces += pieces[::-1]
    dictionary, columns = Dictionary(Shape(WITNESSES, SHARDS, 1), spec), Columns(WITNESSES, 3)
    dropped = 0
    for at, piece in enumerate(pieces):
        dropped += dictionary.add(piece)
        if at % solve_every == 0:
            columns.update(*dictionary.take_changes())
    columns.update(*dictionary.take_changes())
    assert dropped == (SHARDS * n if repeat else 0)
    expected = {
        int(i): (np.packbits(s, bitorder="little").tobytes(), tuple(np.eye(3)[c].tolist()))
        for i, s, c in zip(ids, spikes, classes, strict=True)
    }
    assert _by_id(dictionary) == ({} if spec is SPEC else expected)
    assert dictionary.rows == dictionary.seen == n
    assert sorted(ids.tolist()) == _ids(dictionary)
    _assert_columns(columns, ids, spikes, classes)


def _ids(dictionary: Dictionary) -> list[int]:
    return [i for first, last in dictionary.trained_on().spans() for i in range(first, last + 1)]


def _assert_columns(columns: Columns, ids: np.ndarray, spikes: np.ndarray, classes: np.ndarray) -> None:
    d, y = spikes.astype(np.int64), np.eye(3, dtype=np.int64)[classes]
    assert columns.rows == len(ids)
    assert (columns.counts == d.sum(axis=0)).all()
    assert (columns.cross == d.T @ y).all()
    assert (columns.total == y.sum(axis=0)).all()
    first = np.sort(np.unique(d, axis=1, return_index=True)[1])
    assert (columns.distinct == first).all()
    assert (columns.gram == d[:, first].T @ d[:, first]).all()
    kept = [j for j in first if 0 < d[:, j].sum() < len(ids)]
    assert (columns.candidates == kept).all()
    for j in range(WITNESSES):
        words = fingerprint.words(ids[spikes[:, j] == 1]).astype(object)
        total = sum((int(w[k]) << 32 * k for w in words for k in range(4)), 0) % 2**128
        assert (int(columns.fingerprints[j, 0]) << 64) + int(columns.fingerprints[j, 1]) == total


@given(
    st.integers(0, 10**6),
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(1, 30),
    st.integers(1, 20),
    st.sampled_from([1, 7, columns_module.COUNTED]),
)
@settings(deadline=None, max_examples=50)
def test_window_equals_recomputation(
    seed: int, n: int, chunk: int, window: int, solve_every: int, counted: int
) -> None:
    """The newest rows by shard 0, whatever the interleaving; subtracted columns equal those of these rows alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns_module, "COUNTED", counted)
        _window_equals_recomputation(seed, n, chunk, window, solve_every)


def _window_equals_recomputation(seed: int, n: int, chunk: int, window: int, solve_every: int) -> None:
    ids, spikes, _ = data = _data(seed, n)
    order = np.random.default_rng(seed + 1).permutation(n)
    dictionary = Dictionary(Shape(WITNESSES, SHARDS, 1), SPEC.model_copy(update={"window": window}))
    columns = Columns(WITNESSES, 3)
    pieces = _pieces(seed, chunk, order, *data)
    for at, piece in enumerate([*pieces, *pieces[:3]]):  # late repetitions of rows that left are dropped
        dictionary.add(piece)
        if at % solve_every == 0:
            columns.update(*dictionary.take_changes())
    columns.update(*dictionary.take_changes())
    newest = order[-window:]
    assert set(_by_id(dictionary)) == set(ids[newest].tolist()) == set(_ids(dictionary))
    assert dictionary.seen == n
    d = spikes[newest].astype(np.int64)
    assert columns.rows == len(newest) == dictionary.rows
    assert (columns.counts == d.sum(axis=0)).all()
    assert (columns.gram == d[:, columns.distinct].T @ d[:, columns.distinct]).all()
    assert (columns.distinct == np.sort(np.unique(d, axis=1, return_index=True)[1])).all()


def _rank(sample: int) -> int:
    """splitmix64's finaliser of the id and a key, in Python's numbers."""
    x = sample ^ 0xA24BAED4963EE407
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return (x ^ x >> 31) >> 2


@given(
    st.integers(0, 10**6),
    st.integers(1, 80),
    st.integers(1, 20),
    st.integers(1, 10**4),
    st.integers(1, 20),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_a_full_dictionary_keeps_the_rows_whose_ids_hash_lowest(
    seed: int, n: int, chunk: int, budget: int, solve_every: int, restart: bool
) -> None:
    """Whatever order, repetition and restarts; subtracted columns equal those of these rows alone."""
    ids, spikes, classes = data = _data(seed, n)
    shape = (Shape(WITNESSES, SHARDS, 1), KEPT, budget)
    dictionary, columns = Dictionary(*shape), Columns(WITNESSES, 3)
    pieces = _pieces(seed, chunk, np.random.default_rng(seed).permutation(n), *data)
    for at, piece in enumerate([*pieces, *pieces[:3]]):
        dictionary.add(piece)
        if at % solve_every == 0:
            columns.update(*dictionary.take_changes())
            if restart and at % 2:
                dictionary, columns = Dictionary.from_arrays(dictionary.arrays(), *shape), Columns(WITNESSES, 3)
    columns.update(*dictionary.take_changes())
    kept = np.array(sorted(range(n), key=lambda i: _rank(int(ids[i])))[: dictionary.keep])
    assert set(_by_id(dictionary)) == set(ids[kept].tolist())
    assert (dictionary.rows, dictionary.seen) == (len(kept), n)
    assert sorted(ids.tolist()) == _ids(dictionary)
    _assert_columns(columns, ids[kept], spikes[kept], classes[kept])


@pytest.mark.parametrize("readout", [{}, {"window": 2000}], ids=["sample", "window"])
def test_rows_stay_within_the_budget(readout: dict) -> None:
    """And use most of it; the sample has as much of the stream's first half as of its second."""
    budget, n, block = 500_000, 20_000, 100
    spec = KEPT.model_copy(update=readout)
    dictionary, columns = Dictionary(Shape(WITNESSES, 1, 1), spec, budget), Columns(WITNESSES, 3)
    rng, largest = np.random.default_rng(0), 0
    for top in range(0, n, block):
        bits = rng.integers(0, 256, (block, WITNESSES // 8), np.uint8)
        dictionary.add(
            Piece(0, np.arange(top, top + block, dtype=np.uint64), bits[:, None], np.zeros((block, 1, 1), np.int32))
        )
        largest = max(largest, dictionary.bytes)
        columns.update(*dictionary.take_changes())
        assert dictionary.rows == min(top + block, dictionary.keep)
    assert 0.5 * budget < largest < budget + block * 200
    ids = dictionary.all_rows().ids
    if "window" in readout:
        assert (ids >= n - 2000).all()
    else:
        assert abs((ids < n // 2).mean() - 0.5) < 0.03
        assert dictionary.keep < n // 4


@given(st.integers(0, 10**6), st.integers(10, 80), st.integers(500, 5000), st.integers(500, 5000))
@settings(deadline=None, max_examples=25)
def test_a_sample_stays_uniform_when_the_budget_changes(seed: int, n: int, before: int, after: int) -> None:
    """Ids that hashed too high for the old budget are gone, so later ones like them must not stay either."""
    data = _data(seed, n)
    pieces = _pieces(seed, 5, np.arange(n), *data)
    first = Dictionary(Shape(WITNESSES, SHARDS, 1), KEPT, before)
    for piece in pieces[: len(pieces) // 2]:
        first.add(piece)
    second = Dictionary.from_arrays(first.arrays(), Shape(WITNESSES, SHARDS, 1), KEPT, after)
    gone = sorted(_rank(i) for i in _ids(first))[first.keep :]
    for piece in pieces:
        second.add(piece)
    allowed = [i for i in data[0].tolist() if not gone or _rank(i) < gone[0]]
    assert sorted(_by_id(second)) == sorted(sorted(allowed, key=_rank)[: second.keep])


def test_pieces_wait_for_their_shards() -> None:
    ids, spikes, classes = _data(0, 4)
    first, second = sorted(_pieces(0, 4, np.arange(4), ids, spikes, classes), key=lambda piece: piece.shard)
    dictionary = Dictionary(Shape(WITNESSES, SHARDS, 1), SPEC)
    dictionary.add(second)
    assert (dictionary.rows, dictionary.pending, dictionary.fresh) == (0, 4, 0)
    dictionary.add(first)
    assert (dictionary.rows, dictionary.pending, dictionary.fresh) == (4, 0, 4)


@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(0, 3))
@settings(deadline=None, max_examples=25)
def test_state_goes_through_arrays(seed: int, n: int, missing: int) -> None:
    """Stopped at any piece and taken up again, the dictionary ends the same, also with rows that wait."""
    data = _data(seed, n)
    pieces = _pieces(seed, 5, np.arange(n), *data)
    spec = SPEC.model_copy(update={"window": 20})
    whole, half = Dictionary(Shape(WITNESSES, SHARDS, 1), spec), Dictionary(Shape(WITNESSES, SHARDS, 1), spec)
    pieces = pieces[: len(pieces) - missing]
    stop = len(pieces) // 2
    for piece in pieces[:stop]:
        half.add(piece)
    half = Dictionary.from_arrays(half.arrays(), Shape(WITNESSES, SHARDS, 1), spec)
    for piece in pieces:
        whole.add(piece)
    for piece in pieces[max(0, stop - 2) :]:  # two pieces again: read, but not in the snapshot's offsets
        half.add(piece)
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(array, half.arrays()[name])


@given(st.integers(0, 10**6), st.integers(1, 300))
@settings(deadline=None, max_examples=30)
def test_fingerprints_find_exactly_the_equal_columns(seed: int, n: int) -> None:
    ids, spikes, classes = _data(seed, n)
    columns, dictionary = Columns(WITNESSES, 3), Dictionary(Shape(WITNESSES, 1, 1), SPEC)
    dictionary.add(Piece(0, ids, np.packbits(spikes[:, None], axis=2, bitorder="little"), classes[:, None, None]))
    columns.update(*dictionary.take_changes())
    _, inverse = np.unique(spikes, axis=1, return_inverse=True)
    classes_of = fingerprint.distinct(columns.fingerprints)[1]
    assert ((inverse[:, None] == inverse) == (classes_of[:, None] == classes_of)).all()


def test_fingerprints_add_and_subtract_with_carry() -> None:
    top = np.full((1, 2), 2**64 - 1, np.uint64)
    one = np.array([[0, 1]], np.uint64)
    assert (fingerprint.add(top, one) == 0).all()
    assert (fingerprint.subtract(np.zeros((1, 2), np.uint64), one) == top).all()
    assert (
        fingerprint.from_limbs(np.array([[2**33, 2**32 - 1, 2**32 - 1, 2**32 - 1]], np.uint64)) == [[0, 2**32]]
    ).all()


def test_samples_hold_the_candidates() -> None:
    ids, spikes, classes = _data(2, 30)
    dictionary, columns = Dictionary(Shape(WITNESSES, 1, 1), KEPT), Columns(WITNESSES, 3)
    dictionary.add(Piece(0, ids, np.packbits(spikes[:, None], axis=2, bitorder="little"), classes[:, None, None]))
    columns.update(*dictionary.take_changes())
    samples = columns.samples(dictionary.all_rows(), LOSSES["multinomial"])
    assert samples.columns == len(columns.candidates) == columns.moments().columns
    assert (samples.spikes.dense().sum(axis=0) == columns.counts[columns.candidates]).all()


def test_snapshot_round_trip_and_refusal(tmp_path) -> None:
    ids, spikes, classes = _data(3, 20)
    dictionary = Dictionary(Shape(WITNESSES, 1, 1), SPEC)
    dictionary.add(Piece(0, ids, np.packbits(spikes[:, None], axis=2, bitorder="little"), classes[:, None, None]))
    assert snapshot.load(tmp_path / "none") is None
    for offset in (1, 2, 3):
        path = snapshot.save(tmp_path, {"offsets": {"0": offset}}, {"m.x": dictionary.arrays()})
    assert len(list(tmp_path.iterdir())) == 2
    state, models = snapshot.load(tmp_path) or pytest.fail("expected a snapshot")
    assert state == {"offsets": {"0": 3}}
    for name, array in dictionary.arrays().items():
        np.testing.assert_array_equal(array, models["m.x"][name])
    for name in ("m.x.npz", "state.json"):
        good = (path / name).read_bytes()
        for bad in (good[:-7], good[:99] + bytes([good[99] ^ 1]) + good[100:], b""):
            (path / name).write_bytes(bad)
            with pytest.raises(
                snapshot.SnapshotError, match=r"snapshot refused: .*Remove .* to go on from the snapshot"
            ):
                snapshot.load(tmp_path)
        (path / name).write_bytes(good)
    assert snapshot.load(tmp_path)


def test_sums_widen_before_they_overflow() -> None:
    """Near 2^31 rows the inner products go on in 64 bits; they are the same, and so are those of a restart."""
    ids, spikes, classes = _data(4, 30)
    columns, many = Columns(WITNESSES, 3), 2**31 - 40
    rows = Rows(ids, np.packbits(spikes, axis=1, bitorder="little"), np.eye(3)[classes])
    none = rows.part(slice(0))
    columns.update(rows, none)
    columns.rows, columns.gram[0, 0] = many, many
    for turn in range(2):
        other = Rows(ids + np.uint64(100 * (turn + 1)), rows.bits, rows.targets)
        columns.update(other, none)
        columns = Columns.from_arrays(columns.arrays())
        assert columns.gram.dtype == (np.int32, np.int64)[turn]
    assert columns.rows == many + 60
    assert columns.gram[0, 0] == many + 2 * int(spikes[:, 0].sum())
    assert (
        columns.gram[1:, 1:] == 3 * (spikes.T.astype(int) @ spikes)[np.ix_(columns.distinct, columns.distinct)][1:, 1:]
    ).all()

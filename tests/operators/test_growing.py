"""A dictionary that grows on the stream: the lanes' sums are those of one offline pass, the loop takes the witnesses
that `solver_service.growing` takes, whatever crashes; a readout names witnesses that the law makes again."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.growing import GrowingRollOutOperator
from operators.keys import flink_keys
from operators.predict import PredictOperator
from operators.tags import BRAIN_WAVES, DEAD_LETTERS, PRICES
from snn import engine
from snn.bits import BitMatrix
from snn.model import ModelError
from snn.readout import encode_targets
from snn.sums import add, of_rows
from solver_service import growing
from solver_service.growing_trainer import GrowingTrainer
from solver_service.held_out import is_held_out
from solver_service.losses import LOSSES
from tests.models import small_model
from tests.operators.in_memory import Around
from wire import messages_pb2 as pb
from wire import prices as wire_prices
from wire.codec import Slice, decode, encode_readout, encode_slice
from wire.prices import Candidates, Chosen, decode_chosen, decode_prices, encode_candidates, encode_chosen, on_grid
from wire.reasons import WireError
from wire.targets import Targets

T, LANES, WINDOW, CLASSES = 6, 3, 600, 3


def model_of(**changes: object):
    return small_model(
        **{
            "input": {"timesteps": T, "features": 3, "bits": 4},
            "witnesses": {"law": {"name": "gaussian", "scale": 2.0}, "count": 48},
            "readout": {"outputs": CLASSES, "window": WINDOW, "relative_beta": 0.02, "tolerance": 1e-10},
            "growing": {"start": 8, "candidates": 6},
            "lanes": LANES,
            **changes,
        }
    )


MODEL = model_of()


def data(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 17, (count, T, 3))
    return codes, (codes[:, :, 0].sum(axis=1) // 3 % CLASSES).astype(np.int32)


def spikes_of(codes: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return engine.final_spikes(codes, MODEL.input, engine.on_device(MODEL, ids.tolist()))


class Task(Around):
    """The operator of all lanes; what was broadcast is read again from its topic."""

    def __init__(self) -> None:
        self.told: list[bytes] = []
        super().__init__(lambda: GrowingRollOutOperator(MODEL.spec_json, 3600))

    def crash(self) -> None:
        super().crash()
        self._read()

    def push(self, ids: np.ndarray, codes: np.ndarray, classes: np.ndarray) -> None:
        for lane, self.key in enumerate(flink_keys(LANES)):
            rows = np.flatnonzero(ids % LANES == lane)
            piece = Slice(lane, ids[rows].astype(np.uint64), 0, codes[rows], Targets.final(classes[rows]), 7)
            self.process(encode_slice(MODEL, piece))

    def tell(self, record: bytes) -> None:
        self.told.append(record)
        self._read()

    def _read(self) -> None:
        for record in self.told[self.read :]:
            self.offer(record)
        self.read = len(self.told)

    def prices(self) -> list[wire_prices.Prices]:
        assert set(self.beside) <= {PRICES.tag_id, BRAIN_WAVES.tag_id}
        return [decode_prices(record, MODEL) for record in self.side(PRICES)]


def pushed(count: int) -> tuple[Task, np.ndarray, np.ndarray, np.ndarray]:
    """A task that keeps so many sequences with ids, codes and classes."""
    codes, classes = data(count)
    ids, task = np.arange(count), Task()
    for rows in np.array_split(ids, 5):
        task.push(rows, codes[rows], classes[rows])
        task.pass_time()
    task.checkpoint()
    return task, ids, codes, classes


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 9), max_size=3))
def test_the_lanes_add_up_to_one_offline_pass(seed: int, crashes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    task, ids, codes, _ = pushed(90)
    asked = np.sort(rng.choice(ids, 60, replace=False))
    residuals, fresh = on_grid(rng.standard_normal((60, CLASSES))), rng.random(60) < 0.3
    candidates = rng.choice(10**6, 2 * wire_prices.PART + 9, replace=False)
    task.tell(encode_candidates(MODEL, Candidates(1, candidates[:5], asked.astype(np.uint64), residuals, fresh)))
    request = Candidates(2, candidates, asked.astype(np.uint64), residuals, fresh)
    task.tell(encode_candidates(MODEL, request))
    for tick in range(10):
        if tick in crashes:
            task.crash()
        task.pass_time()
    newest = {(prices.lane, prices.first): prices for prices in task.prices() if prices.round == 2}
    assert len(newest) == LANES * 3
    spikes = spikes_of(codes[asked], candidates)
    for first in range(0, len(candidates), wire_prices.PART):
        parts = [newest[lane, first] for lane in range(LANES)]
        for name, rows in (("trained", ~fresh), ("fresh", fresh)):
            offline = of_rows(
                BitMatrix.from_dense(spikes[rows, first : first + wire_prices.PART]),
                asked[rows].astype(np.uint64),
                residuals[rows].astype(np.float64),
            )
            together = reduce(add, [getattr(part, name) for part in parts])
            for part in ("weight", "counts", "cross", "total", "fingerprints", "everything"):
                assert np.array_equal(getattr(together, part), getattr(offline, part)), part
    task.tell(encode_candidates(MODEL, request._replace(round=3, residuals=None)))
    for _ in range(5):
        task.pass_time()
    for prices in task.prices():
        if prices.round == 3:
            at = np.searchsorted(asked, prices.samples)
            dense = np.unpackbits(prices.bits, axis=1, count=prices.candidates, bitorder="little")
            assert np.array_equal(dense, spikes[at, prices.first : prices.first + prices.candidates])


def test_a_lane_without_a_sample_says_so() -> None:
    task, *_ = pushed(30)
    far = np.arange(10**6, 10**6 + LANES, dtype=np.uint64)
    residuals = np.ones((LANES, CLASSES), np.float32)
    task.tell(encode_candidates(MODEL, Candidates(1, np.arange(9), far, residuals, np.zeros(LANES, np.bool_))))
    task.pass_time()
    got = task.prices()
    assert {prices.lane for prices in got} == set(range(LANES))
    assert all(prices.trained.weight == 0 for prices in got)
    assert not any(prices.trained.cross.any() for prices in got)


class Loop:
    """Solver and roll-out around topics in memory."""

    def __init__(self, count: int) -> None:
        self.task, self.ids, self.codes, self.classes = pushed(count)
        self.trainer = GrowingTrainer(MODEL)
        self.witnesses: list[bytes] = []
        self.readouts: list[pb.Readout] = []
        self._columns = self._prices = 0

    def run(self, crash: np.random.Generator | None = None) -> list[Chosen]:
        """The versions that come, until nothing happens any more."""
        quiet = 0
        while quiet < 8:
            self.task.pass_time()
            if crash is not None and crash.random() < 0.3:
                self.task.crash()
            else:
                self.task.checkpoint()
            moved = self._deliver()
            if self.trainer.answered:
                self.trainer.grow()
            elif self.trainer.fresh:
                readout = self.trainer.solve(len(self.readouts) + 1, 60)
                assert readout is not None
                self.readouts.append(readout)
            if crash is not None and crash.random() < 0.1:
                self.restart()
                moved = True
            for topic, record in self.trainer.take_outgoing():
                moved = True
                self.task.tell(record)
                if topic == "witnesses":
                    self.witnesses.append(record)
                    self.trainer.offer_witnesses(record)
            quiet = 0 if moved else quiet + 1
        return [decode_chosen(record, MODEL) for record in self.witnesses]

    def _deliver(self) -> bool:
        columns, prices = self.task.sent[self._columns :], self.task.side(PRICES)[self._prices :]
        for record in columns:
            self.trainer.ingest(record)
        for record in prices:
            self.trainer.ingest_prices(record)
        self._columns += len(columns)
        self._prices += len(prices)
        return bool(columns or prices)

    def restart(self) -> None:
        """The solver's process dies behind a snapshot; what it was to send is lost."""
        self.trainer = GrowingTrainer(MODEL, self.trainer.freeze())
        for record in self.witnesses:
            self.trainer.offer_witnesses(record)


@pytest.fixture
def small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "LEAST_ADDED", 10)
    monkeypatch.setattr(growing, "TOLERANCE", 1e-10)


@pytest.mark.usefixtures("small_rounds")
def test_the_stream_takes_the_witnesses_that_arrays_take() -> None:
    loop = Loop(WINDOW)
    versions = loop.run()
    fresh = is_held_out(loop.ids.astype(np.uint64))
    y = encode_targets(loop.classes[:, None], MODEL.readout)

    def rows(which: np.ndarray) -> growing.Rows:
        return growing.Rows(lambda ids: BitMatrix.from_dense(spikes_of(loop.codes[which], ids)), y[which])

    rules = loop.trainer.rules._replace(relative_beta=0.02)
    offline = list(growing.grow(rows(~fresh), rows(fresh), LOSSES["squared"], rules))
    assert len(versions) > 2
    assert [chosen.ids.tolist() for chosen in versions] == [sorted(grown.witnesses.tolist()) for grown in offline[1:]]
    assert [chosen.tried for chosen in versions] == [grown.tried for grown in offline[1:]]
    prices = [chosen.best_price for chosen in versions]
    assert prices == pytest.approx([grown.best for grown in offline[: len(prices)]], rel=1e-4)
    of_version = {readout.witnesses_version: readout for readout in loop.readouts}
    for version, grown in enumerate(offline):
        assert of_version[version].primal == pytest.approx(grown.solution.primal, rel=1e-6)


@pytest.mark.usefixtures("small_rounds")
@pytest.mark.parametrize("seed", range(4))
def test_crashes_change_nothing(seed: int) -> None:
    calm, shaken = Loop(WINDOW).run(), Loop(WINDOW).run(np.random.default_rng(seed))
    assert len(calm) > 2
    assert [chosen.ids.tolist() for chosen in shaken] == [chosen.ids.tolist() for chosen in calm]
    assert [chosen.tried for chosen in shaken] == [chosen.tried for chosen in calm]


@pytest.mark.usefixtures("small_rounds")
def test_a_readout_names_witnesses_that_the_law_makes_again() -> None:
    loop = Loop(WINDOW)
    loop.run()
    last = loop.readouts[-1]
    assert last.solved
    assert last.primal < loop.readouts[0].primal
    assert last.tried > MODEL.witnesses.count
    assert max(last.support) >= MODEL.witnesses.count
    assert not last.network
    trained = ~is_held_out(loop.ids.astype(np.uint64))
    spikes = spikes_of(loop.codes[trained], np.array(last.support))
    w = np.frombuffer(last.coefficients).reshape(-1, CLASSES)
    y = encode_targets(loop.classes[trained, None], MODEL.readout)
    loss = 0.5 * np.square(spikes @ w + np.frombuffer(last.intercept) - y).sum(axis=1).mean()
    assert loss + last.beta * np.linalg.norm(w, axis=1).sum() == pytest.approx(last.primal, rel=1e-9)

    answers, letters = answered(last, loop.codes[:9])
    scores = spikes_of(loop.codes[:9], np.array(last.support)) @ w + np.frombuffer(last.intercept)
    assert b"".join(answer.scores for answer in answers) == scores.tobytes(), "scores are the same bits"
    assert not letters
    last.tried = max(last.support)
    answers, letters = answered(last, loop.codes[:9])
    assert not answers
    assert [letter.reason for letter in letters] == ["corrupt_readout"]


def answered(readout: pb.Readout, codes: np.ndarray) -> tuple[list[pb.Prediction], list[pb.DeadLetter]]:
    """What the prediction operator says to a readout and sequences of lane 0."""
    task = Around(lambda: PredictOperator(MODEL.spec_json, 3600), flink_keys(LANES)[0])
    task.offer(encode_readout(readout))
    ids = LANES * np.arange(len(codes), dtype=np.uint64)
    piece = Slice(0, ids, 0, codes, Targets.none(len(codes), MODEL), 7)
    task.process(encode_slice(MODEL, piece))
    letters = task.side(DEAD_LETTERS)
    return [decode(pb.Prediction, one) for one in task.sent], [decode(pb.DeadLetter, one) for one in letters]


@pytest.mark.usefixtures("small_rounds")
def test_after_a_stop_it_asks_again_when_a_window_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(WINDOW)
    monkeypatch.setattr(loop.trainer, "rules", loop.trainer.rules._replace(slack=1e9))
    assert loop.run() == []
    asked = len(loop.task.told)
    assert asked == 2, "prices and a shortlist"
    assert [readout.best_price > 0 for readout in loop.readouts] == [False, True], "the stop is told at once"
    codes, classes = data(2 * WINDOW, seed=1)
    for begin, rounds in ((0, 1), (WINDOW, 2)):
        ids = np.arange(WINDOW + begin, 2 * WINDOW + begin)
        loop.task.push(ids, codes[begin : begin + WINDOW], classes[begin : begin + WINDOW])
        assert loop.run() == []
        assert loop.readouts[-1].best_price > 0
        assert len(loop.task.told) <= rounds * 2 + asked
    assert len(loop.task.told) > asked


@pytest.mark.usefixtures("small_rounds")
def test_few_rows_price_nothing_and_few_fresh_ones_stop_nothing() -> None:
    few, more = Loop(WINDOW // 2 - 20), Loop(WINDOW // 2 + 60)
    assert few.run() == few.task.told == []
    versions = more.run()
    assert len(versions[-1].ids) > 30, "up to what there may be, but for those that were not used"
    assert np.isnan([chosen.best_price for chosen in versions]).all()


def test_records_that_do_not_fit_are_refused() -> None:
    chosen = Chosen(1, np.arange(4), np.zeros(4, np.int64), 9, 0.1)
    assert decode_chosen(encode_chosen(MODEL, chosen), MODEL).ids.tolist() == [0, 1, 2, 3]
    for broken in (
        chosen._replace(ids=np.array([0, 2, 1, 3])),
        chosen._replace(tried=3),
        chosen._replace(ids=np.arange(49), idle=np.zeros(49, np.int64), tried=99),
        chosen._replace(idle=np.zeros(3, np.int64)),
    ):
        with pytest.raises(WireError):
            decode_chosen(encode_chosen(MODEL, broken), MODEL)
    task, *_ = pushed(30)
    for record in (
        pb.Candidates(schema=1, model="small", digest=MODEL.digest, round=1).SerializeToString(),
        encode_chosen(MODEL, chosen._replace(tried=3)),
    ):
        task.tell(record)
    assert len(task.side(DEAD_LETTERS)) == 2
    assert not task.broadcast


@pytest.mark.parametrize(
    "changes",
    [
        {"growing": {"start": 99}},
        {"training": {"workers": 1}},
        {"readout": {"outputs": 3}},
        {"readout": {"outputs": 3, "window": 2**21}},
        {"readout": {"outputs": 3, "window": 9, "penalty": "ridge"}},
        {"readout": {"outputs": 3, "window": 9, "every_step": True}},
        {"readout": {"outputs": 3, "window": 9, "class_weight": "balanced"}},
    ],
    ids=str,
)
def test_models_that_cannot_grow_are_refused(changes: dict) -> None:
    with pytest.raises(ModelError, match="grow"):
        model_of(**changes)
    assert "growing" not in small_model().spec_json

"""Rounds without Flink: the average is that of plain arithmetic, a round is that of its steps, and whatever is
repeated, late or lost, the history of weights is one."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from operators import state_pb2 as pb
from operators.rounds import BACKLOG, Average, Plan, Worker
from snn.engine import to_inputs
from snn.model import ModelSpec
from snn.training.local import deal, take_steps
from snn.training.objective import targets_of
from snn.training.rules import at_rest
from tests.models import small_model
from tests.operators.in_memory import DictStore
from wire.codec import Slice, decode_slice, encode_slice
from wire.targets import Targets

TRAINING = {
    "rounds": 6,
    "local_steps": 2,
    "batch": 4,
    "workers": 2,
    "learning_rate": 0.05,
    "seed": 3,
    "publish_every": 2,
}
GAUSSIAN = {"law": {"name": "gaussian"}, "count": 64}
LANES = 4
ROUND = 8  # sequences of a worker


def model(**changes: object) -> ModelSpec:
    return small_model(readout={"outputs": 3, "loss": "multinomial"}, training={**TRAINING, **changes})


def codes_of(ids: np.ndarray) -> np.ndarray:
    return np.stack([np.random.default_rng(i).integers(0, 17, (8, 8)) for i in ids.tolist()]).astype(np.int32)


def records(
    spec: ModelSpec, first: int, last: int, lanes: tuple[int, ...] = (0, 1, 2, 3), known: bool = True
) -> Iterator:
    """Blocks of up to three sequences, their class that of their id, lane after lane."""
    for lane in lanes:
        ids = np.arange(first, last, dtype=np.uint64)
        ids = ids[ids % LANES == lane]
        for part in np.split(ids, range(3, len(ids), 3)) if len(ids) else []:
            classes = (part % 3).astype(np.int32) if known else np.full(len(part), -1, np.int32)
            yield encode_slice(spec, Slice(lane, part, 0, codes_of(part), Targets.final(classes), 0))


def push(worker: Worker, spec: ModelSpec, found: Iterator) -> int:
    left_out = 0
    for record in found:
        piece = decode_slice(record, spec)
        assert piece is not None
        if piece.lane in worker.lanes:
            left_out += worker.offer(piece, record, 0)[1]
    return left_out


class Run:
    """Two workers and the average, with the topic between them as a list."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec, self.plan = spec, Plan(spec)
        self.stores = [DictStore(), DictStore(), DictStore()]
        self.topic: list[bytes] = []
        self.heard = [0, 0, 0]
        self.restart()

    def restart(self) -> None:
        self.workers = [Worker(self.plan, number, self.stores[number], 0, 0) for number in (0, 1)]
        self.average = Average(self.plan, self.stores[2])

    def push(self, first: int, last: int) -> None:
        for worker in self.workers:
            push(worker, self.spec, records(self.spec, first, last))

    def go(self, lost: tuple[int, ...] = ()) -> None:
        """Until nothing moves any more; workers that are `lost` do nothing."""
        moved = True
        while moved:
            moved = False
            for number, worker in enumerate(self.workers):
                if number in lost:
                    continue
                for record in self.topic[self.heard[number] :]:
                    worker.hear(record)
                self.heard[number] = len(self.topic)
                for done in worker.train(0):
                    self.average.offer(done)
                    moved = True
            for record in self.topic[self.heard[2] :]:
                self.average.hear(record)
            self.heard[2] = len(self.topic)
            record = self.average.close(impatient=bool(lost))
            if record is not None:
                self.topic.append(record)
                moved = True

    def versions(self) -> list[bytes]:
        """Parameters of every version, the first record of each."""
        first: dict[int, bytes] = {}
        for record in self.topic:
            weights = self.plan.decode(record)
            first.setdefault(weights.version, weights.parameters.tobytes())
        return [first[version] for version in sorted(first)]


def test_a_round_is_the_mean_of_the_workers_steps() -> None:
    spec = model(outer_momentum=0.5)
    run = Run(spec)
    run.push(0, 32)
    run.go()
    plan, theta, velocity = run.plan, run.plan.initial, np.zeros(run.plan.size, np.float32)
    moments = [at_rest(torch.from_numpy(theta))] * 2
    for version in (0, 1):
        changes = []
        for number in (0, 1):
            # Each of its two lanes gives four of the round's eight sequences, in their order.
            lanes = [np.arange(lane, 32, LANES)[4 * version : 4 * version + 4] for lane in (number, number + 2)]
            ids = np.concatenate(lanes).astype(np.uint64)
            inputs = to_inputs(codes_of(ids), spec.input)
            targets = targets_of((ids % 3).astype(np.int32)[:, None, None], spec.readout)
            order = deal(ROUND, 2, 4, 3, number, version)
            at = torch.from_numpy(theta.copy())
            steps = take_steps(plan.objective, plan.training, at, moments[number], inputs, targets, order, 2 * version)
            moments[number] = steps.moments
            changes.append((steps.theta - at).numpy())
        delta = (changes[0].astype(np.float64) + changes[1]) / 2
        velocity = 0.5 * velocity + delta
        theta = (theta + delta + 0.5 * velocity).astype(np.float32)
        got = plan.decode(run.topic[version])
        np.testing.assert_allclose(got.parameters, theta, rtol=1e-6, atol=1e-7)
        assert (got.version, got.workers, got.samples) == (version + 1, (0, 1), 2 * ROUND * (version + 1))
        theta = got.parameters
    assert len(run.topic) == 2  # 32 sequences are two rounds of two workers
    assert not np.array_equal(theta, run.plan.initial)


def test_the_order_of_arrival_between_lanes_changes_no_bit() -> None:
    spec = model()
    one, other = Run(spec), Run(spec)
    one.push(0, 64)
    one.go()
    for first, last in ((0, 40), (40, 64)):
        for worker in reversed(other.workers):
            push(worker, spec, records(spec, first, last, lanes=(3, 1, 2, 0)))
        other.go()
    assert one.versions() == other.versions()
    assert len(one.versions()) == 4


@pytest.mark.parametrize("saved_at", [0, 1, 2, 3])
def test_a_crash_changes_no_bit(saved_at: int) -> None:
    """All operators go back to what they had at the checkpoint; the topic has gone on since then."""
    spec = model(outer_momentum=0.9)
    undisturbed, run = Run(spec), Run(spec)
    for target in (undisturbed, run):
        target.push(0, 16 * saved_at)
        target.go()
    saved = [DictStore(store) for store in run.stores], list(run.heard)
    for target in (undisturbed, run):
        target.push(16 * saved_at, 80)
        target.go()
    run.stores, run.heard = [DictStore(store) for store in saved[0]], saved[1]
    run.restart()
    run.push(16 * saved_at, 96)  # Kafka gives again what came after the checkpoint
    run.go()
    undisturbed.push(80, 96)
    undisturbed.go()
    assert len(undisturbed.versions()) == 6
    assert run.versions() == undisturbed.versions()


def test_a_lost_worker_does_not_stall_a_round_and_goes_on_with_the_newest_weights() -> None:
    run = Run(model())
    run.push(0, 96)
    run.go(lost=(1,))
    assert [run.plan.decode(record).workers for record in run.topic] == [(0,)] * 6
    run.topic, run.heard[1] = run.topic[:3], 0
    run.average = Average(run.plan, DictStore())
    for record in run.topic:
        run.average.hear(record)
    stale = list(run.workers[1].train(0))  # what it could have handed in before it heard of newer weights
    assert [pb.Round.FromString(done).version for done in stale] == [0]
    late = run.average.offer(stale[0])
    assert late is not None
    assert late.worker == 1
    for record in run.topic:
        run.workers[1].hear(record)
    again = Worker(run.plan, 1, DictStore(run.stores[1]), 0, 0)  # after a crash, too
    for worker in (run.workers[1], again):
        done = [pb.Round.FromString(done).version for done in worker.train(0)]
        assert done == [3], "rounds that were closed without it are passed over"


def test_weights_of_a_known_version_are_passed_over() -> None:
    spec = model()
    run = Run(spec)
    run.push(0, 32)
    run.go()
    held = run.average.weights
    again = run.topic[-1]
    assert not run.average.hear(again)
    assert run.average.weights is held
    run.workers[0].hear(again)
    push(run.workers[0], spec, records(spec, 32, 64))
    assert len(list(run.workers[0].train(0))) == 1


def test_diverged_rounds_count_for_nothing() -> None:
    spec = model()
    average = Average(Plan(spec), DictStore())
    change = np.full(Plan(spec).size, np.nan, np.float32).tobytes()
    late = average.offer(pb.Round(worker=1, version=0, change=change).SerializeToString())
    assert late is not None
    assert not average.waiting


def test_a_lane_without_sequences_is_passed_over_by_the_impatient() -> None:
    spec = model()
    worker = Worker(Plan(spec), 0, DictStore(), 0, 0)
    push(worker, spec, records(spec, 0, 64, lanes=(0,)))
    assert not list(worker.train(0))
    assert worker.waits_for_a_lane
    assert len(list(worker.train(0, impatient=True))) == 1


def test_what_cannot_be_trained_on_leaves_state() -> None:
    spec = model()
    store = DictStore()
    worker = Worker(Plan(spec), 0, store, 0, 0)
    assert push(worker, spec, records(spec, 0, 32, known=False)) == 0
    assert not [key for key in store if "/r" in key]
    most = BACKLOG * ROUND
    left_out = push(worker, spec, records(spec, 32, 32 + 4 * most))
    assert left_out == 2 * most - most
    assert sum(lane.live for lane in worker.lanes.values()) == most


def test_whole_sequences_that_wait_are_not_abandoned() -> None:
    spec = model()
    worker = Worker(Plan(spec), 0, DictStore(), 0, 0)
    push(worker, spec, records(spec, 0, 4))
    worker.touch(now_ms=1000)
    assert [gone for lane in worker.lanes.values() for gone in lane.expire(older_than_ms=500)] == []


def test_a_new_job_goes_on_from_the_newest_weights() -> None:
    spec = model()
    run = Run(spec)
    run.push(0, 48)
    run.go()
    fresh = Worker(run.plan, 0, DictStore(), 0, history=3)
    push(fresh, spec, records(spec, 48, 96))
    assert not list(fresh.train(0))
    for record in run.topic:
        fresh.hear(record)
    assert pb.Round.FromString(next(fresh.train(0))).version == 3


def test_sequences_that_end_early_are_trained_on_as_they_are() -> None:
    """A round of short sequences is that of a model of as many timesteps; in a mixed one each has its own end."""
    spec, shorter = (
        model(),
        small_model(
            input={"timesteps": 5, "features": 8, "bits": 4, "end_pulse": True},
            witnesses=GAUSSIAN,
            readout={"outputs": 3, "loss": "multinomial"},
            training=TRAINING,
        ),
    )
    spec = spec.model_copy(update={"witnesses": shorter.witnesses})
    changes = []
    for one in (spec, shorter):
        worker = Worker(Plan(one), 0, DictStore(), 0, 0)
        for lane in (0, 2):
            ids = np.arange(lane, 32, LANES, dtype=np.uint64)
            piece = Slice(lane, ids, 0, codes_of(ids)[:, :5], Targets.final((ids % 3).astype(np.int32)), 0, ends=True)
            worker.offer(piece, encode_slice(one, piece), 0)
        changes.append(pb.Round.FromString(next(worker.train(0))).change)
    assert changes[0] == changes[1]

    worker = Worker(Plan(spec), 0, DictStore(), 0, 0)
    for lane, steps in ((0, 5), (2, 8)):
        ids = np.arange(lane, 16, LANES, dtype=np.uint64)
        numbers = Targets.final((ids % 3).astype(np.int32))
        piece = Slice(lane, ids, 0, codes_of(ids)[:, :steps], numbers, 0, ends=steps < 8)
        worker.offer(piece, encode_slice(spec, piece), 0)
    inputs, targets = worker._batch([cohort for lane in worker.lanes.values() for cohort in lane.complete()])
    assert inputs.shape == (8, 8, 9)
    assert inputs[:, :, -1].nonzero().tolist() == [[row, 4 if row < 4 else 7] for row in range(8)]  # end pulses
    assert (~targets.isnan().any(-1)).nonzero().tolist() == [[row, 4 if row < 4 else 7] for row in range(8)]


def test_training_ends() -> None:
    spec = model(rounds=2)
    run = Run(spec)
    run.push(0, 96)
    run.go()
    assert len(run.topic) == 2
    assert all(worker.done for worker in run.workers)
    assert push(run.workers[0], spec, records(spec, 96, 112)) > 0
    assert sum(lane.live for lane in run.workers[0].lanes.values()) == 0

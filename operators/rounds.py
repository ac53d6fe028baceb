"""Rounds of a distributed surrogate-gradient training: what a worker knows, and what averages the workers.

    worker k, round v     theta_k = theta_v, then `local_steps` steps of its rule on its next sequences;
                          it hands in the change theta_k - theta_v
    average, round v      delta = mean of the changes,  velocity = mu velocity + delta,
                          theta_(v+1) = theta_v + delta + mu velocity           (mu = 0: theta_v + delta)

local SGD with Nesterov's outer momentum (Lin et al. 2020; Douillard et al. 2023, with an outer rate of 1).

**The topic is the truth.** The average publishes theta_(v+1) on `weights`, and everyone, the average too, goes on to
version v+1 by reading it there. One partition has one order, and the first record of a version counts. So whatever
crashes and is repeated, there is one history of weights, without a transaction that would cost a checkpoint a round.

**The same again.** A worker's steps are a function of the weights and of its sequences in an order of their own: each
lane gives its share of a round, in the lane's order, and a shuffle is drawn by seed, worker and version. So the bits
are the same in every run in which no worker was late and no lane passed over, through crashes too: a worker that comes
back takes the rounds again that the history says it took part in, and no others.

State is kept in a `Store` and never behind: records of sequences in their lanes, weights that wait, the rule's moments.
"""

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np

from operators import state_pb2 as pb
from operators import worker
from operators.lane import Cohort, Lane, Store
from snn.model import ModelSpec
from wire.codec import Slice
from wire.weights import Floats, Weights, decode_weights, encode_weights

BACKLOG = 16  # rounds of whole sequences that may wait in a worker; a stream that is faster leaves the newest out
SHARPNESS_STEPS = 8  # of the power method, which starts from the last vector
NEXT, MOMENTS = "n", "m"  # keys of a store, beside "l<lane>/...", "w<version>" and "r<worker>"


class Prefixed:
    """The part of a store whose keys begin with `prefix`."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    def put(self, key: str, value: bytes) -> None:
        self._store.put(self._prefix + key, value)

    def remove(self, key: str) -> None:
        self._store.remove(self._prefix + key)

    def items(self) -> Iterator[tuple[str, bytes]]:
        for key, value in list(self._store.items()):
            if key.startswith(self._prefix):
                yield key.removeprefix(self._prefix), value


class Plan:
    """What worker and average have in common: the model's objective and where it starts."""

    def __init__(self, model: ModelSpec) -> None:
        objectives = worker.load("snn.training.objective")
        assert model.training is not None  # whoever submits the job sees to it
        self.model, self.training, self.objective = model, model.training, objectives.of_model(model)
        self.initial: Floats = self.objective.initial().numpy()

    @property
    def size(self) -> int:
        return len(self.initial)

    def decode(self, record: bytes) -> Weights:
        return decode_weights(record, self.model, self.size)


class Worker:
    """One worker: the lanes whose number is its own modulo the number of workers."""

    def __init__(self, plan: Plan, number: int, store: Store, now_ms: int, history: int) -> None:
        """As `store` has it; a worker of which nothing is stored starts at version `history`."""
        self._plan, self._number, self._store = plan, number, store
        training = plan.training
        self._round = training.local_steps * training.batch
        stored = {key: value for key, value in store.items() if key[0] != "l"}
        self._next = int(stored.get(NEXT, str(history)))
        self._pending: dict[int, Weights] = {0: Weights(0, plan.initial, None)} if self._next == 0 else {}
        for key in sorted((key for key in stored if key[0] == "w"), key=_version):
            self._pending[_version(key)] = plan.decode(stored[key])
        self._pass_over()
        self._moments = _moments(stored.get(MOMENTS), plan)
        self._lanes = {
            lane: Lane(plan.model, Prefixed(store, f"l{lane}/"), now_ms)
            for lane in range(number, plan.model.lanes, training.workers)
        }
        self._ready = {lane: _sequences(held.complete()) for lane, held in self._lanes.items()}
        self._looked_at: dict[int, Cohort] = {}  # of each lane the newest whole one of which the targets are known
        self._vector: Any = None  # of the newest sharpness

    @property
    def lanes(self) -> Mapping[int, Lane]:
        return self._lanes

    @property
    def done(self) -> bool:
        """Whether all rounds were trained."""
        return self._next >= self._plan.training.rounds

    @property
    def waits_for_a_lane(self) -> bool:
        """Whether there is a round to train and enough for it, but not in every lane."""
        return bool(self._pending) and not self.done and sum(self._ready.values()) >= self._round

    def offer(self, piece: Slice, record: bytes, now_ms: int) -> tuple[int, int]:
        """Take what is new in a record of `sequences`; how many timesteps were duplicates, and how many whole sequences
        were left out because too many wait. Those without a target go at once."""
        lane = self._lanes[piece.lane]
        duplicates = lane.offer(piece, record, now_ms)
        left_out = 0
        for cohort in takewhile(lambda one: one is not self._looked_at.get(piece.lane), reversed(lane.complete())):
            unknown = np.flatnonzero(~cohort.targets.known(len(cohort)))
            if len(unknown):
                lane.claim(cohort, unknown, now_ms)
        whole = lane.complete()
        self._ready[piece.lane] = _sequences(whole)
        if whole:
            self._looked_at[piece.lane] = whole[-1]
        most = 0 if self.done else BACKLOG * self._round // len(self._lanes)
        for cohort in reversed(whole):
            if self._ready[piece.lane] <= most:
                break
            excess = min(len(cohort), self._ready[piece.lane] - most)
            lane.claim(cohort, np.arange(len(cohort) - excess, len(cohort)), now_ms)
            self._ready[piece.lane] -= excess
            left_out += excess
        lane.save(now_ms)
        return duplicates, left_out

    def touch(self, now_ms: int) -> None:
        """Whole sequences are not abandoned, however long they wait for their round."""
        for lane in self._lanes.values():
            for cohort in lane.complete():
                cohort.touched_ms = now_ms

    def hear(self, record: bytes) -> None:
        """Weights of the next version; those of a version that is known are passed over."""
        weights = self._plan.decode(record)
        newest = max(self._pending, default=self._next - 1)
        if weights.version <= newest:
            return
        self._pending[weights.version] = weights
        self._store.put(f"w{weights.version:x}", record)
        self._pass_over()

    def train(self, now_ms: int, impatient: bool = False) -> Iterator[bytes]:
        """Take the steps of every round for which there are weights and sequences. Each lane gives its share; with
        `impatient`, others stand in for a lane that has less."""
        while self._pending and not self.done:
            shares = self._shares(impatient)
            if shares is None:
                return
            version = min(self._pending)
            yield self._steps(self._pending[version], self._take(shares, now_ms))
            self._forget(version)
            self._next = version + 1
            self._store.put(NEXT, str(self._next).encode())

    def _pass_over(self) -> None:
        """Forget versions whose round was closed without this worker: it goes on with a newer one."""
        newest = max(self._pending, default=0)
        for version in [known for known in self._pending if known < newest]:
            follows = self._pending.get(version + 1)
            if follows is None or self._number not in follows.workers:
                self._forget(version)

    def _forget(self, version: int) -> None:
        del self._pending[version]
        if version:
            self._store.remove(f"w{version:x}")

    def _shares(self, impatient: bool) -> dict[int, int] | None:
        """How many sequences each lane gives to a round; None where there are too few."""
        count = len(self._lanes)
        fair = [(at + 1) * self._round // count - at * self._round // count for at in range(count)]
        shares = {lane: min(share, self._ready[lane]) for lane, share in zip(self._lanes, fair, strict=True)}
        short = self._round - sum(shares.values())
        if short == 0:
            return shares
        if not impatient or sum(self._ready.values()) < self._round:
            return None
        for lane in shares:
            more = min(short, self._ready[lane] - shares[lane])
            shares[lane] += more
            short -= more
        return shares

    def _take(self, shares: Mapping[int, int], now_ms: int) -> list[Cohort]:
        taken = []
        for number, share in shares.items():
            lane = self._lanes[number]
            self._ready[number] -= share
            for cohort in lane.complete():
                if share == 0:
                    break
                part = lane.claim(cohort, np.arange(min(share, len(cohort))), now_ms)
                taken.append(part)
                share -= len(part)
            lane.save(now_ms)
        return taken

    def _steps(self, weights: Weights, cohorts: list[Cohort]) -> bytes:
        """A round on these sequences, as state_pb2.Round."""
        torch, local = worker.load("torch"), worker.load("snn.training.local")
        plan, training = self._plan, self._plan.training
        inputs, targets = self._batch(cohorts)
        order = local.deal(
            self._round, training.local_steps, training.batch, training.seed, self._number, weights.version
        )
        theta, done = torch.from_numpy(weights.parameters.copy()), weights.version * training.local_steps
        steps = local.take_steps(plan.objective, training, theta, self._moments, inputs, targets, order, done)
        change = (steps.theta - theta).numpy()
        if np.isfinite(change).all():
            self._moments = steps.moments
            self._store.put(MOMENTS, _moments_bytes(steps.moments))
        sharpness = np.nan
        if self._number == 0 and weights.version % training.publish_every == 0:
            first = torch.from_numpy(order[0])
            sharpness = self._sharpness(theta, inputs[first], targets[first])
        return pb.Round(
            worker=self._number,
            version=weights.version,
            change=change.tobytes(),
            samples=self._round,
            loss=steps.loss,
            gradient_norm=steps.gradient_norm,
            sharpness=sharpness,
        ).SerializeToString()

    def _batch(self, cohorts: list[Cohort]) -> tuple[Any, Any]:
        """Inputs [N, T, m] and targets [N, C] or [N, T, C]: where some sequences end early, all have their target at
        their last timestep, and none behind it."""
        torch, engine = worker.load("torch"), worker.load("snn.engine")
        model, timesteps = self._plan.model, max(cohort.length for cohort in cohorts)
        numbers = np.concatenate([cohort.targets.numbers for cohort in cohorts])  # of sequences with a target
        targets = worker.load("snn.training.objective").targets_of(numbers, model.readout)
        inputs = torch.zeros(len(numbers), timesteps, model.input.channels)
        lengths = np.repeat([cohort.length for cohort in cohorts], [len(cohort) for cohort in cohorts])
        begin = 0
        for cohort in cohorts:
            inputs[begin : begin + len(cohort), : cohort.length] = engine.to_inputs(cohort.codes, model.input)
            begin += len(cohort)
        if model.readout.every_step:
            targets = targets[:, :timesteps]
        elif (lengths < timesteps).any():
            stretched = torch.full((len(targets), timesteps, targets.shape[1]), torch.nan)
            stretched[np.arange(len(targets)), lengths - 1] = targets
            targets = stretched
        return inputs, targets

    def _sharpness(self, theta: Any, inputs: Any, targets: Any) -> float:
        torch, monitors = worker.load("torch"), worker.load("snn.training.monitors")
        if self._vector is None:
            drawn = np.random.default_rng(self._plan.training.seed).standard_normal(self._plan.size)
            self._vector = torch.from_numpy(drawn.astype(np.float32))
        found = monitors.sharpness(
            lambda at: self._plan.objective.loss(at, inputs, targets), theta, self._vector, SHARPNESS_STEPS
        )
        self._vector = found.vector
        return float(found.value)


class Late(NamedTuple):
    """A round that came when it was closed, or whose numbers are not finite: it counts for nothing."""

    worker: int


class Average:
    """The round that is open, and the changes that have come for it."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan, self._store = plan, store
        stored = dict(store.items())
        self._weights = Weights(0, plan.initial, np.zeros_like(plan.initial))
        if NEXT in stored:
            self._weights = plan.decode(stored[NEXT])
        self._rounds: dict[int, dict[int, pb.Round]] = {}  # by version and worker
        for key in stored.keys() - {NEXT}:
            self._keep(pb.Round.FromString(stored[key]))
        self._published = 0

    @property
    def weights(self) -> Weights:
        """The newest version that was read."""
        return self._weights

    @property
    def waiting(self) -> bool:
        """Whether some workers have handed in the open round, and it was not closed yet."""
        return bool(self._open) and self._published <= self._weights.version

    def offer(self, record: bytes) -> Late | None:
        """A worker's round."""
        done = pb.Round.FromString(record)
        finite = np.isfinite(np.frombuffer(done.change, np.float32)).all()
        if done.version < self._weights.version or not finite:
            return Late(done.worker)
        self._keep(done)
        self._store.put(_round_key(done), record)
        return None

    def hear(self, record: bytes) -> bool:
        """Weights as the topic has them; whether they are of a new version, the first of it."""
        weights = self._plan.decode(record)
        if weights.version <= self._weights.version:
            return False
        self._weights = weights
        self._store.put(NEXT, record)
        for version in [past for past in self._rounds if past < weights.version]:
            for done in self._rounds.pop(version).values():
                self._store.remove(_round_key(done))
        return True

    def close(self, impatient: bool = False) -> bytes | None:
        """The record of the next version, once every worker has handed in the open round; with `impatient`, once any
        has."""
        rounds, training = self._open, self._plan.training
        if not self.waiting or (len(rounds) < training.workers and not impatient):
            return None
        held, parts = self._weights, [rounds[number] for number in sorted(rounds)]
        changes = [np.frombuffer(part.change, np.float32) for part in parts]
        delta = np.mean(changes, axis=0, dtype=np.float64).astype(np.float32)
        parameters, velocity = held.parameters + delta, None
        if training.outer_momentum:
            before = np.zeros_like(delta) if held.velocity is None else held.velocity
            velocity = np.float32(training.outer_momentum) * before + delta
            parameters = parameters + np.float32(training.outer_momentum) * velocity
        self._published = held.version + 1
        return encode_weights(
            self._plan.model,
            Weights(
                held.version + 1,
                parameters,
                velocity,
                tuple(part.worker for part in parts),
                held.samples + sum(part.samples for part in parts),
                float(np.mean([part.loss for part in parts])),
                float(np.mean([part.gradient_norm for part in parts])),
                parts[0].sharpness,
            ),
        )

    @property
    def _open(self) -> dict[int, pb.Round]:
        return self._rounds.get(self._weights.version, {})

    def _keep(self, done: pb.Round) -> None:
        self._rounds.setdefault(done.version, {})[done.worker] = done


def _sequences(cohorts: list[Cohort]) -> int:
    return sum(len(cohort) for cohort in cohorts)


def _version(key: str) -> int:
    """Of weights that wait, "w<version>"."""
    return int(key[1:], 16)


def _round_key(done: pb.Round) -> str:
    return f"r{done.version:x}/{done.worker:x}"


def _moments(stored: bytes | None, plan: Plan) -> Any:
    torch, rules = worker.load("torch"), worker.load("snn.training.rules")
    if stored is None:
        return rules.at_rest(torch.from_numpy(plan.initial))
    held = pb.Moments.FromString(stored)
    first, second = (torch.from_numpy(np.frombuffer(part, np.float32).copy()) for part in (held.first, held.second))
    return rules.Moments(first, second, held.steps)


def _moments_bytes(moments: Any) -> bytes:
    first, second = (part.numpy().tobytes() for part in (moments.first, moments.second))
    return pb.Moments(first=first, second=second, steps=moments.steps).SerializeToString()

"""Test-then-train accuracy on streams whose rule changes: each sequence is answered first and learnt from afterwards.

- names: MNIST in 14 rows of 14 pixels; every PHASE sequences the ten digits take each other's names
- names, slowly: the same, each change stretched over a whole phase
- taps: ten bits, the class is the XOR of two of them; every PHASE sequences of two others

Ours has a window of the newest WINDOW sequences, drops the older of them when fresh ones are answered much worse
(`on_drift: forget`), and solves the readout anew, certified, after every PORTION, through the solver service's own
trainer. Its witnesses are stored templates, for which the law saw EXAMPLES pictures without their digits that are not
on the stream, and stored taps. The peers:

- River's adaptive random forest (ten trees, each watching for drift), Hoeffding adaptive tree and softmax regression on
  standardised inputs, which learn from each sequence as it comes. They see the T * m inputs of a sequence at once.
- SG: witnesses and readout trained by surrogate gradients (`bench.variants`), SG_STEPS more steps after every PORTION
  sequences, on the newest SG_WINDOW of them. It starts from local integrators, and from the stored taps.

Settings of ours and of SG (laws, penalties, beta, window, steps) were chosen on shorter streams of another seed.

Curves: (sequences, accuracy over the last CURVE of them, mean over seeds). Speed is in seconds of CPU time.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from river import base, compose, forest, linear_model, preprocessing, tree

from bench import harness
from bench.harness import Report, shared_folder
from bench.variants import Rows, Trained, sg
from snn import engine
from snn.laws import StoredTemplates
from snn.model import ModelSpec, parse_model
from snn.network import Network
from snn.readout import Readout, predicted_classes
from snn.training.spec import TrainingSpec
from solver_service.trainer import Trainer
from spikeloom.tasks import load_task
from wire.codec import Columns, encode_columns, pack
from wire.targets import Targets

PHASE, PHASES = 4000, 3
PORTION, WINDOW = 25, 2000
CURVE = 200
SEEDS = (0, 1, 2)
QUICK_PHASE, QUICK_SEEDS = 500, (0,)
TAPS = ((0, 9), (2, 7), (4, 5), (1, 8))  # of each phase
SG_STEPS, SG_WINDOW, SG_WITNESSES = 10, 300, 256  # steps after each portion
EXAMPLES = 512

Floats = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int32]


class Stream(NamedTuple):
    """inputs [N, T, m] on the model's grid, classes [N]."""

    inputs: Floats
    classes: Classes
    model: ModelSpec
    trained: ModelSpec  # what SG starts from


class Learner(Protocol):
    def answer(self, inputs: Floats) -> Classes:
        """[n] the classes of inputs [n, T, m]."""

    def learn(self, inputs: Floats, classes: Classes) -> None: ...


def run(report: Report) -> None:
    phase, seeds = (QUICK_PHASE, QUICK_SEEDS) if report.quick else (PHASE, SEEDS)
    for name, made in STREAMS.items():
        if not report.wants(name):
            continue
        right: dict[str, list[npt.NDArray[np.bool_]]] = {learner: [] for learner in LEARNERS}
        seconds = dict.fromkeys(LEARNERS, 0.0)
        for seed in seeds:
            stream = made(phase, seed)
            for learner, start in LEARNERS.items():
                begun = time.process_time()
                right[learner].append(test_then_train(start(stream, seed), stream))
                seconds[learner] += time.process_time() - begun
                report.say(f"{name}, seed {seed}: {learner} {right[learner][-1].mean():.4f}")
        add(report, f"{name}, {PHASES} x {phase:,}", right, seconds, len(seeds))


def add(
    report: Report, case: str, right: dict[str, list[npt.NDArray[np.bool_]]], seconds: dict[str, float], seeds: int
) -> None:
    means = {learner: np.mean(runs, axis=0) for learner, runs in right.items()}
    ours, *peers = LEARNERS
    spread = float(np.std([run.mean() for run in right[ours]]))
    count = len(means[ours])
    report.add(case, "accuracy", "share", float(means[ours].mean()), runs=seeds, curve=curve(means[ours]))
    report.add(case, "spread over seeds", "share", spread, runs=seeds)
    for peer in peers:
        mine, its = (float(means[learner].mean()) for learner in (ours, peer))
        shown = curve(means[peer])
        report.add(case, "accuracy", "share", mine, runs=seeds, peer=peer, peer_value=its, better="more", curve=shown)
        rates = (count * seeds / seconds[learner] for learner in (ours, peer))
        report.add(
            case, "speed", "sequences/s", next(rates), runs=seeds, peer=peer, peer_value=next(rates), better="more"
        )


def curve(right: npt.NDArray[np.floating]) -> list[tuple[float, float]]:
    ends = range(CURVE, len(right) + 1, CURVE)
    return [(float(end), round(float(right[end - CURVE : end].mean()), 4)) for end in ends]


def test_then_train(learner: Learner, stream: Stream) -> npt.NDArray[np.bool_]:
    """[N] whether the answer to each sequence was right."""
    right = []
    for begin in range(0, len(stream.inputs), PORTION):
        inputs, classes = stream.inputs[begin : begin + PORTION], stream.classes[begin : begin + PORTION]
        right.append(learner.answer(inputs) == classes)
        learner.learn(inputs, classes)
    return np.concatenate(right)


class Certified:
    """The readout that the solver service would publish after each portion."""

    def __init__(self, model: ModelSpec) -> None:
        self._model, self._trainer = model, Trainer(model)
        self._network: Network = engine.on_device(model, range(model.witnesses.count))
        self._readout: Readout | None = None
        self._seen = self._version = 0

    def answer(self, inputs: Floats) -> Classes:
        if self._readout is None:
            return np.zeros(len(inputs), np.int32)
        spikes = self._spikes(inputs)[:, self._readout.support]
        return predicted_classes(self._readout.scores(spikes), self._model.readout)[:, 0]

    def learn(self, inputs: Floats, classes: Classes) -> None:
        ids = np.arange(self._seen, self._seen + len(inputs), dtype=np.uint64)
        self._seen, self._version = self._seen + len(inputs), self._version + 1
        columns = Columns.final(0, 0, ids, pack(self._spikes(inputs)), Targets.final(classes))
        self._trainer.ingest(encode_columns(self._model, columns))
        message = self._trainer.solve(self._version, 60)
        assert message is not None
        if not message.solved:
            raise harness.BenchError(f"expected a solved readout, got a gap of {message.relative_gap}")
        intercept = np.frombuffer(message.intercept)
        coefficients = np.frombuffer(message.coefficients).reshape(len(message.support), len(intercept))
        self._readout = Readout(list(message.support), coefficients, intercept)

    def _spikes(self, inputs: Floats) -> npt.NDArray[np.bool_]:
        codes = np.rint(inputs * 2**self._model.input.bits).astype(np.int32)
        return engine.final_spikes(codes, self._model.input, self._network)


class River:
    """A model of River, which learns from each sequence of a portion in turn."""

    def __init__(self, model: base.Classifier) -> None:
        self._model = model

    def answer(self, inputs: Floats) -> Classes:
        return np.array([self._model.predict_one(row) or 0 for row in self._rows(inputs)], np.int32)

    def learn(self, inputs: Floats, classes: Classes) -> None:
        for row, answer in zip(self._rows(inputs), classes.tolist(), strict=True):
            self._model.learn_one(row, answer)

    def _rows(self, inputs: Floats) -> Iterator[dict[int, float]]:
        return (dict(enumerate(row)) for row in inputs.reshape(len(inputs), -1).tolist())


class Refitted:
    """Surrogate gradients, a few steps on the newest sequences after each portion."""

    def __init__(self, model: ModelSpec, seed: int) -> None:
        self._model, self._outputs = model, model.readout.all_heads[0].classes
        self._trained: Network | Trained = model.network(range(SG_WITNESSES))
        self._inputs: Floats = np.zeros((0, model.input.timesteps, model.input.channels))
        self._classes: Classes = np.zeros(0, np.int32)
        self._seed = seed

    def answer(self, inputs: Floats) -> Classes:
        if not isinstance(self._trained, Trained):
            return np.zeros(len(inputs), np.int32)
        rows = self._rows(self._read(inputs), np.zeros(len(inputs), np.int32))
        scores = self._trained.scores(rows)
        return np.asarray(scores.argmax(dim=1).numpy(), np.int32)

    def learn(self, inputs: Floats, classes: Classes) -> None:
        self._inputs = np.concatenate([self._inputs, self._read(inputs)])[-SG_WINDOW:]
        self._classes = np.concatenate([self._classes, classes])[-SG_WINDOW:]
        self._seed += 1000
        training = TrainingSpec(rounds=SG_STEPS, local_steps=1, learning_rate=0.005, decay="none", seed=self._seed)
        self._trained = sg(self._trained, self._rows(self._inputs, self._classes), training)

    def _read(self, inputs: Floats) -> Floats:
        codes = np.rint(inputs * 2**self._model.input.bits).astype(np.int32)
        return engine.to_inputs(codes, self._model.input).numpy()

    def _rows(self, inputs: Floats, classes: Classes) -> Rows:
        return Rows.of(inputs, classes, self._outputs)


LEARNERS: dict[str, Callable[[Stream, int], Learner]] = {
    "certified readout": lambda stream, _: Certified(stream.model),
    "River ARF": lambda _, seed: River(forest.ARFClassifier(n_models=10, seed=seed)),
    "River Hoeffding adaptive tree": lambda _, seed: River(tree.HoeffdingAdaptiveTreeClassifier(seed=seed)),
    "River softmax": lambda *_: River(
        compose.Pipeline(preprocessing.StandardScaler(), linear_model.SoftmaxRegression())
    ),
    "SG, refitted": lambda stream, seed: Refitted(stream.trained, seed),
}


def names(phase: int, seed: int, slowly: bool = False) -> Stream:
    data = load_task("mnist-rows", shared_folder("mnist")).train
    rng = np.random.default_rng(seed)
    count = phase * PHASES
    chosen = rng.permutation(len(data.inputs))[: count + EXAMPLES]
    pooled = data.inputs[chosen].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))
    digits = np.asarray(data.targets)[chosen[:count]]
    names = np.array([rng.permutation(10) for _ in range(PHASES)])
    at = np.arange(count)
    in_phase = at // phase
    if slowly:  # the next phase's names become more frequent all along
        in_phase = np.minimum(in_phase + (rng.random(count) < at % phase / phase), PHASES - 1)
    law = StoredTemplates(side_min=3, side_max=6).calibrated(pooled[count:])
    model = _model(14, 14, law.model_dump(), 10, penalty="ridge", relative_beta=0.1)
    trained = _model(14, 14, {"name": "local_integrators", "field_min": 2, "field_max": 5}, 10, end_pulse=True)
    inputs = np.round(pooled[:count] * 256) / 256
    return Stream(inputs, names[in_phase, digits].astype(np.int32), model, trained)


def taps(phase: int, seed: int) -> Stream:
    bits = np.random.default_rng(seed).integers(0, 2, (phase * PHASES, 10, 1))
    pair = np.array(TAPS)[np.arange(len(bits)) // phase]
    rows = np.arange(len(bits))
    classes = bits[rows, pair[:, 0], 0] ^ bits[rows, pair[:, 1], 0]
    model = _model(10, 1, {"name": "stored_taps"}, 2, relative_beta=0.02)
    return Stream(bits.astype(np.float64), classes.astype(np.int32), model, model)


def _model(
    timesteps: int, features: int, law: dict[str, Any], outputs: int, end_pulse: bool = False, **readout: Any
) -> ModelSpec:
    return parse_model(
        {
            "model": "drift",
            "input": {"timesteps": timesteps, "features": features, "end_pulse": end_pulse},
            "witnesses": {"law": law, "seed": 1, "count": 1024},
            "readout": {"outputs": outputs, "loss": "squared", "window": WINDOW, "on_drift": "forget", **readout},
            "lanes": 1,
        }
    )


STREAMS: dict[str, Callable[[int, int], Stream]] = {
    "names": names,
    "names, slowly": lambda phase, seed: names(phase, seed, slowly=True),
    "taps": taps,
}


if __name__ == "__main__":
    harness.main("drift", run, cores=1, by_case=True)

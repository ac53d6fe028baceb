"""A model that learns and answers at every step: its columns and answers are those of one offline pass, however its
sequences were cut, whenever another readout came and whatever crashed."""

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.keys import flink_keys
from operators.predict import PredictOperator
from operators.roll_out import RollOutOperator
from operators.tags import BRAIN_WAVES
from snn import engine
from snn.model import ModelSpec
from snn.readout import Readout, predicted_classes
from solver_service.trainer import Trainer
from tests.models import small_model
from tests.operators.in_memory import Around
from wire import messages_pb2 as pb
from wire.codec import Columns, Slice, decode, decode_columns, encode_columns, encode_readout, encode_slice, pack
from wire.targets import Targets

T, P = 6, 32
HEADS = [{"name": "digit", "outputs": 3}, {"name": "carry", "loss": "logistic", "outputs": 1}]
MODEL = small_model(
    input={"timesteps": T, "features": 2, "bits": 4},
    witnesses={"law": {"name": "gaussian", "scale": 2.0}, "count": P, "shards": 2},
    readout={"heads": HEADS, "every_step": True, "relative_beta": 0.05},
    lanes=1,
)


def data(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ids [n], codes [n, T, 2], classes [n, T, 2] of which some are missing; sequences end at `length_of` their ids."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(99)[:n].astype(np.uint64)
    classes = np.stack([rng.integers(0, 3, (n, T)), rng.integers(0, 2, (n, T))], axis=2).astype(np.int32)
    classes[rng.random((n, T)) < 0.2] = -1
    for at, sequence in enumerate(ids.tolist()):
        classes[at, length_of(sequence) :] = -1
    return ids, rng.integers(0, 17, (n, T, 2)), classes


def length_of(sequence: int) -> int:
    return T if sequence % 3 == 0 else 1 + sequence % T


def cuts(seed: int, ids: np.ndarray, codes: np.ndarray, classes: np.ndarray) -> list[bytes]:
    """Records of all timesteps: groups of sequences, slices of time, in any order."""
    rng, made = np.random.default_rng(seed), []
    lengths = np.array([length_of(sequence) for sequence in ids.tolist()])
    groups = [
        rows[lengths[rows] == length]
        for rows in np.array_split(rng.permutation(len(ids)), rng.integers(1, 4))
        for length in np.unique(lengths[rows])
    ]
    for rows in groups:
        length = lengths[rows[0]]
        for steps in np.split(np.arange(length), np.flatnonzero(rng.random(length - 1) < 0.5) + 1):
            here, over = np.ix_(rows, steps), bool(steps[-1] == length - 1)
            piece = Slice(0, ids[rows], int(steps[0]), codes[here], Targets(classes[here]), 7, over)
            made.append(encode_slice(MODEL, piece))
    return [made[at] for at in rng.permutation(len(made))]


def spikes_of(codes: np.ndarray, ids: list[int]) -> np.ndarray:
    """[n, T, P], offline."""
    network = engine.on_device(MODEL, ids)
    membranes = np.repeat(engine.resting(network)[None], len(codes), axis=0)
    return engine.advance(codes, 0, membranes, network, MODEL.input, every_step=True).spikes


def readout(version: int) -> tuple[bytes, Readout]:
    rng = np.random.default_rng(version)
    support = np.sort(rng.permutation(P)[: 3 + version]).tolist()
    coefficients, intercept = rng.integers(-64, 64, (len(support), 4)) / 16, rng.integers(-9, 9, 4) / 16
    message = pb.Readout(model=MODEL.model, digest=MODEL.digest, version=version, outputs=4, support=support)
    message.coefficients, message.intercept = coefficients.astype("<f8").tobytes(), intercept.astype("<f8").tobytes()
    return encode_readout(message), Readout(support, coefficients, intercept)


@given(st.integers(0, 10**6), st.integers(1, 6), st.booleans())
@settings(deadline=None, max_examples=40)
def test_columns_are_those_of_one_pass(seed: int, n: int, crash: bool) -> None:
    ids, codes, classes = data(seed, n)
    spikes = spikes_of(codes, list(range(P)))
    for at, sequence in enumerate(ids.tolist()):
        spikes[at, length_of(sequence) :] = False
    for shard, key in enumerate(flink_keys(2)):
        task = Around(lambda: RollOutOperator(MODEL.spec_json, 3600), key)
        for at, record in enumerate(cuts(seed, ids, codes, classes)):
            task.process(record)
            if crash and at % 2:
                task.restart()
        task.pass_time()
        got = [decode_columns(sent, MODEL) for sent in task.sent]
        assert set(task.beside) <= {BRAIN_WAVES.tag_id}
        rows = {int(i): at for at, i in enumerate(ids)}
        seen = [int(i) for columns in got for i in columns.ids]
        assert sorted(seen) == sorted(int(i) for i, c in zip(ids, classes, strict=True) if (c >= 0).any())
        for columns in got:
            at = [rows[int(i)] for i in columns.ids]
            expected = spikes[at][:, :, 16 * shard : 16 * shard + 16]
            assert np.array_equal(np.unpackbits(columns.bits, axis=2, bitorder="little"), expected)
            assert np.array_equal(columns.targets.numbers, classes[at])


@given(st.integers(0, 10**6), st.integers(1, 5), st.lists(st.sampled_from(["readout", "crash", "split"]), max_size=4))
@settings(deadline=None, max_examples=60)
def test_each_timestep_is_answered_by_the_newest_readout(seed: int, n: int, events: list[str]) -> None:
    ids, codes, classes = data(seed, n)
    task = Around(lambda: PredictOperator(MODEL.spec_json, 3600), flink_keys(1)[0])
    rng, readouts = np.random.default_rng(seed), {}
    records, version = cuts(seed, ids, codes, classes), 1
    message, readouts[1] = readout(1)
    happen = dict(zip(rng.permutation(len(records))[: len(events)].tolist(), events, strict=False))
    task.offer(message)
    for at, record in enumerate(records):
        match happen.get(at):
            case "readout":
                version += 1
                message, readouts[version] = readout(version)
                task.offer(message)
            case "crash":
                task.restart()
            case "split":  # a single sequence's first timestep parts it from its cohort
                piece = Slice(0, ids[:1], 0, codes[:1, :1], Targets(classes[:1, :1]), 7)
                task.process(encode_slice(MODEL, piece))
        task.process(record)
    assert not task.beside
    answers: dict[tuple[int, int], int] = defaultdict(int)
    offline = {version: r.scores(spikes_of(codes, r.support)) for version, r in readouts.items()}
    for sent in task.sent:
        answer = decode(pb.Prediction, sent)
        at = int(np.flatnonzero(ids == answer.id)[0])
        scores = np.frombuffer(answer.scores).reshape(-1, 4)
        steps = slice(answer.start, answer.start + len(scores))
        expected = offline[answer.readout_version][at, steps]
        assert np.array_equal(scores, expected)
        assert answer.predicted_classes == predicted_classes(expected, MODEL.readout).ravel().tolist()
        assert answer.target_classes == classes[at, steps].ravel().tolist()
        for t in range(steps.start, steps.stop):
            answers[answer.id, t] += 1
    assert sorted(answers) == sorted((i, t) for i in ids.tolist() for t in range(length_of(i)))
    if "crash" not in events:
        assert set(answers.values()) == {1}


def test_a_readout_of_heads_and_timesteps_is_that_of_all_their_rows() -> None:
    model = small_model(
        input={"timesteps": T, "features": 2, "bits": 4},
        witnesses={"law": {"name": "gaussian", "scale": 2.0}, "count": P},
        readout={"heads": HEADS, "every_step": True, "relative_beta": 0.05},
        lanes=1,
    )
    ids, codes, classes = data(1, 40)
    trainer = Trainer(model)
    spikes = spikes_of(codes, list(range(P)))
    trainer.ingest(encode_columns(model, Columns(0, 0, ids, pack(spikes), Targets(classes))))
    message = trainer.solve(1, 60)
    assert message is not None
    known = (classes >= 0).all(axis=2)
    assert (message.rows, message.seen) == (known.sum(), 40 * T)
    scores = Readout(
        list(message.support),
        np.frombuffer(message.coefficients).reshape(-1, 4),
        np.frombuffer(message.intercept),
    ).scores(spikes[known][:, list(message.support)])
    digit, carry = classes[known].T
    loss = np.log(np.exp(scores[:, :3]).sum(axis=1)) - scores[np.arange(len(digit)), digit]
    loss += np.log1p(np.exp(scores[:, 3])) - carry * scores[:, 3]
    coefficients = np.frombuffer(message.coefficients).reshape(-1, 4)
    penalty = message.beta * np.linalg.norm(coefficients, axis=1).sum()
    assert abs(loss.mean() + penalty - message.primal) < 1e-9
    assert message.solved


def test_model_without_heads_keeps_its_digest() -> None:
    plain: ModelSpec = small_model()
    assert "heads" not in plain.spec_json
    assert "every_step" not in plain.spec_json

"""SG-CVX while the stream runs, on a real broker and a real cluster: witnesses are trained by surrogate gradients, the
roll-out takes them up without a restart, the readout over them is certified and answers."""

from pathlib import Path

import numpy as np

from snn.engine import final_spikes, prepare
from snn.network import select
from spikeloom.client import Client
from spikeloom.local import Stack
from tests.integration.conftest import Solver, eventually, job, readouts_of
from tests.integration.test_train_surrogate import SEQUENCES, data, model
from wire import messages_pb2 as pb
from wire.codec import decode
from wire.registry import read_all
from wire.weights import decode_witnesses, witnesses_model

WINDOW = 500


def test_trained_witnesses_feed_the_roll_out(stack: Stack, solver: Solver, project_root: Path) -> None:
    inputs, classes = data()
    spec = model("live", window=WINDOW)

    def readouts() -> list[pb.Readout]:
        return readouts_of(stack, spec)

    with Client(stack.connection) as client:
        client.register(spec)
        solver.start()
        with job(stack, project_root, "roll_out", spec), job(stack, project_root, "predict", spec):
            client.push(spec, inputs[:WINDOW], classes[:WINDOW], ids=np.arange(WINDOW))
            eventually(lambda: any(r.rows == WINDOW for r in readouts()), "a readout over the law's witnesses")
            assert {r.witnesses_version for r in readouts()} == {0}
            with job(stack, project_root, "train_surrogate", spec):
                ids = np.arange(WINDOW, WINDOW + SEQUENCES)
                client.push(spec, inputs, classes, ids=ids, block=64)
                eventually(lambda: readouts()[-1].witnesses_version == 12, "a readout over trained witnesses", 240)
            eventually(lambda: readouts()[-1].rows == WINDOW and readouts()[-1].solved, "one over the whole window")
            last = readouts()[-1]
            asked = client.push(spec, inputs[:50], ids=np.arange(10**6, 10**6 + 50)).ids.tolist()

            def answers() -> dict[int, pb.Prediction]:
                every = (decode(pb.Prediction, record) for record in read_all(stack.connection, "predictions"))
                return {answer.id: answer for answer in every if answer.model == spec.model}

            eventually(lambda: answers().keys() >= set(asked), "answers")
            got = answers()
    records = [record for record in read_all(stack.connection, "witnesses") if witnesses_model(record) == spec.model]
    network = dict(decode_witnesses(record, spec) for record in records)[12]
    spikes = final_spikes((inputs[:50] * 16).astype(int), spec.input, prepare(select(network, list(last.support))))
    scores = spikes @ np.frombuffer(last.coefficients).reshape(-1, 3) + np.frombuffer(last.intercept)
    assert {got[sequence].readout_version for sequence in asked} == {last.version}
    assert b"".join(got[sequence].scores for sequence in asked) == scores.tobytes(), "scores are the same bits"
    assert np.mean(scores.argmax(axis=1) == classes[:50]) > 0.9

"""A dictionary that grows while the stream runs, on a real broker and a real cluster: the solver asks, the lanes price,
new versions enter without a restart, and answers go on; a solver and a task manager that die do not end it."""

from pathlib import Path

import numpy as np

from snn.engine import final_spikes, on_device
from spikeloom.client import Client
from spikeloom.local import Stack
from tests.dashboards import PREFIX
from tests.integration.conftest import Solver, eventually, job, not_shown
from tests.models import small_model
from wire import messages_pb2 as pb
from wire.codec import decode, decode_readout
from wire.prices import decode_chosen
from wire.registry import read_all
from wire.weights import witnesses_model

WINDOW, START, ASKED = 1000, 32, 20
MODEL = small_model(
    model="grows",
    witnesses={"law": {"name": "gaussian", "scale": 2.0}, "count": 400},
    readout={"outputs": 3, "window": WINDOW, "relative_beta": 0.01},
    growing={"start": START, "candidates": 8},
)


def data(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which third of a sequence's features is brightest, by however little."""
    codes = np.random.default_rng(0).integers(0, 17, (count, 8, 8))
    thirds = np.stack([codes[:, :, 2 * third : 2 * third + 2].sum(axis=(1, 2)) for third in range(3)], axis=1)
    return codes, thirds.argmax(axis=1)


def test_a_dictionary_grows_while_answers_go_on(stack: Stack, solver: Solver, project_root: Path) -> None:
    codes, classes = data(WINDOW + ASKED)
    asked = 0

    def readouts() -> list[pb.Readout]:
        found = [decode_readout(record) for record in read_all(stack.connection, "readouts")]
        return [readout for readout in found if readout.model == MODEL.model]

    def reaches(version: int) -> None:
        eventually(lambda: readouts()[-1].witnesses_version >= version, f"a readout over version {version}", 240)

    def answers() -> dict[int, pb.Prediction]:
        every = (decode(pb.Prediction, record) for record in read_all(stack.connection, "predictions"))
        return {answer.id: answer for answer in every if answer.model == MODEL.model}

    def ask() -> int:
        """Sequences without a target are answered now; the oldest readout that has answered them."""
        nonlocal asked
        ids = np.arange(10**6 + asked, 10**6 + asked + ASKED)
        asked += ASKED
        client.push(MODEL, codes[WINDOW:] / 16, ids=ids)
        eventually(lambda: answers().keys() >= set(ids.tolist()), "answers while the dictionary grows")
        got = answers()
        return min(got[sequence].readout_version for sequence in ids.tolist())

    with Client(stack.connection) as client:
        client.register(MODEL)
        solver.start()
        with job(stack, project_root, "roll_out", MODEL), job(stack, project_root, "predict", MODEL):
            client.push(MODEL, codes[:WINDOW] / 16, classes[:WINDOW], ids=np.arange(WINDOW))
            eventually(lambda: bool(readouts()), "a readout over the first witnesses")
            ask()
            reaches(1)
            solver.kill()
            solver.start()
            ask()
            reaches(2)
            stack.kill_task_manager()
            stack.start_task_manager()
            ask()
            reaches(3)
            eventually(lambda: readouts()[-1].rows > 0.8 * WINDOW and readouts()[-1].solved, "one over the window")
            last = readouts()[-1]
            eventually(lambda: ask() >= last.version, "answers of the newest readout")
            got = answers()
            pages = [*stack.metrics_urls.values(), solver.metrics_url]
            eventually(lambda: not not_shown("Growing by price", pages), "the panels' metrics")
            of_training = {f"{PREFIX}weights_version"}
            eventually(lambda: not_shown("Witnesses that change", pages) <= of_training, "the panels' metrics")

    records = [record for record in read_all(stack.connection, "witnesses") if witnesses_model(record) == MODEL.model]
    versions = [decode_chosen(record, MODEL) for record in records]
    assert [chosen.version for chosen in versions] == list(range(1, len(versions) + 1)), "each comes once"
    assert all(len(chosen.ids) > START for chosen in versions)
    whole = [readout for readout in readouts() if readout.rows == max(r.rows for r in readouts())]
    assert whole[0].witnesses_version == 0
    assert whole[-1].witnesses_version >= 3
    assert whole[-1].primal < whole[0].primal
    assert whole[-1].best_price > 0
    assert whole[-1].tried >= 3 * 100 * 8
    for readout in readouts():  # sequences with a target are answered, too
        ids = [sequence for sequence, answer in got.items() if answer.readout_version == readout.version]
        if not ids:
            continue
        rows = [at if at < WINDOW else WINDOW + (at - 10**6) % ASKED for at in ids]
        spikes = final_spikes(codes[rows], MODEL.input, on_device(MODEL, list(readout.support)))
        scores = spikes @ np.frombuffer(readout.coefficients).reshape(-1, 3) + np.frombuffer(readout.intercept)
        assert b"".join(got[at].scores for at in ids) == scores.tobytes(), "scores are the same bits"

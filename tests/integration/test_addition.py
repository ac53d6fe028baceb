"""Addition on a real broker and a real cluster: several heads, a target at every timestep, sequences that end before
the model's last timestep, answered timestep by timestep with the model's own carry."""

from pathlib import Path

import numpy as np

from spikeloom import autoregressive
from spikeloom.client import Client
from spikeloom.local import Stack
from spikeloom.tasks import load_task
from tests.integration.conftest import Solver, eventually, job, readouts_of


def test_addition_is_learnt_and_generalises(stack: Stack, solver: Solver, project_root: Path) -> None:
    task = load_task("addition-2", None)
    inputs, targets = task.train.inputs[:1000], task.train.targets[:1000]
    with Client(stack.connection) as client:
        client.register(task.model)
        solver.start()
        with (
            job(stack, project_root, "roll_out", task.model),
            job(stack, project_root, "predict", task.model),
        ):
            client.push(task.model, inputs, targets, ends=True)

            def trained() -> bool:
                return any(r.rows == targets[..., 0].size and r.solved for r in readouts_of(stack, task.model))

            eventually(trained, "a readout of every timestep")
            said = autoregressive.answer(client, task.model, task.test.inputs[:50], task.feedback)
            longer = autoregressive.answer(client, task.model, task.longer.inputs[:20, :40], task.feedback)
    assert np.array_equal(said, task.test.targets[:50])
    assert np.array_equal(longer, task.longer.targets[:20, :40])

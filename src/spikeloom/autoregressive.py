"""Answering with one's own answers: what the model says at a timestep is a part of its input at the next one.

A sequence is pushed timestep by timestep, to the prediction job itself; the next timestep waits for the answer to the
last one. This is how addition is evaluated (design, section 2.7): the carry that goes in is the one that came out.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from kafka import KafkaConsumer, TopicPartition

from snn.model import ModelSpec
from spikeloom.client import Client
from spikeloom.errors import SpikeloomError
from wire import messages_pb2 as pb
from wire.codec import decode

PATIENCE_S = 120  # for the answers to a timestep


class AutoregressionError(SpikeloomError):
    """Answers did not come; the text says how many."""


class Feedback(NamedTuple):
    """The class of a head goes into a feature at the next timestep; before the first one it is 0."""

    head: int
    feature: int


def answer(
    client: Client,
    model: ModelSpec,
    inputs: npt.NDArray[np.float64],
    feedback: Feedback,
    on_progress: Callable[[int], None] = lambda timesteps: None,
) -> npt.NDArray[np.int32]:
    """The classes [N, k, H] that the running prediction job gives for inputs [N, k, m], k <= T, whose feature
    `feedback.feature` is replaced. Raises AutoregressionError where answers do not come."""
    inputs, count, steps = inputs.copy(), len(inputs), inputs.shape[1]
    heads = len(model.readout.all_heads)
    said = np.full((count, steps, heads), -1, np.int32)
    carried = np.zeros(count)
    ids = client.new_ids(count)
    with _Answers(client, model.model) as answers:
        for t in range(steps):
            inputs[:, t, feedback.feature] = carried
            client.push(model, inputs[:, t : t + 1], ids=ids, start=t, ends=t == steps - 1)
            said[:, t] = answers.at(t, ids)
            carried = said[:, t, feedback.head].astype(np.float64)
            on_progress(1)
    return said


class _Answers:
    """What `predictions` says of one model from now on."""

    def __init__(self, client: Client, model: str) -> None:
        self._model = model
        self._consumer = KafkaConsumer(**client.connection.python_client(), enable_auto_commit=False)
        partitions = self._consumer.partitions_for_topic("predictions") or ()
        self._consumer.assign([TopicPartition("predictions", n) for n in partitions])
        self._consumer.seek_to_end()
        for partition in self._consumer.assignment():
            self._consumer.position(partition)  # the end of now, not that of the first poll

    def __enter__(self) -> "_Answers":
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def at(self, t: int, ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
        """[N, H] the answers at timestep t, once all are there."""
        row = {int(sequence): at for at, sequence in enumerate(ids)}
        found: dict[int, Sequence[int]] = {}
        deadline = time.monotonic() + PATIENCE_S
        while len(found) < len(ids):
            if time.monotonic() > deadline:
                raise AutoregressionError(
                    f"expected {len(ids)} answers at timestep {t} within {PATIENCE_S} s, got {len(found)}; is the "
                    f"prediction job of {self._model} running, and has it a readout?"
                )
            for records in self._consumer.poll(timeout_ms=100).values():
                for record in records:
                    message = decode(pb.Prediction, record.value)
                    if message.model == self._model and message.id in row and message.start == t:
                        found[row[message.id]] = message.predicted_classes
        return np.array([found[at] for at in range(len(ids))], np.int32)

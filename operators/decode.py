"""Records of `sequences` to (key, record), one for each shard; what cannot be used becomes a dead letter."""

import json
from collections.abc import Iterator

from pyflink.datastream import ProcessFunction, RuntimeContext

from operators.keys import flink_keys
from operators.metrics import OperatorMetrics
from operators.tags import DEAD_LETTERS
from snn.model import parse_model
from wire.codec import decode_slice, encode_dead_letter
from wire.reasons import WireError


class Decode(ProcessFunction):
    def __init__(self, job: str, spec_json: str, shards: int) -> None:
        self._job, self._spec_json, self._shards = job, spec_json, shards

    def open(self, runtime_context: RuntimeContext) -> None:
        self._model = parse_model(json.loads(self._spec_json))
        self._keys = flink_keys(self._model.lanes * self._shards)
        self._metrics = OperatorMetrics(runtime_context, self._model.model)

    def process_element(self, value: bytes, ctx: ProcessFunction.Context) -> Iterator:
        try:
            piece = decode_slice(value, self._model)
        except WireError as error:
            self._metrics.count("dead_letters", reason=error.reason)
            yield DEAD_LETTERS, encode_dead_letter(self._job, "sequences", error, value)
            return
        if piece is not None:
            first = piece.lane * self._shards
            for key in self._keys[first : first + self._shards]:
                yield key, value

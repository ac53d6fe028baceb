"""Trained weights as bytes: what goes in comes out, and nothing else is taken for them."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn.model import ModelSpec
from snn.network import Network
from snn.training.on_grid import on_grid
from tests.models import small_model
from wire.reasons import Reason, WireError
from wire.weights import (
    Weights,
    decode_weights,
    decode_witnesses,
    encode_weights,
    encode_witnesses,
    from_bytes,
    network_from_bytes,
    network_to_bytes,
    to_bytes,
    weights_of,
    witnesses_model,
)

GAUSSIAN = {"law": {"name": "gaussian", "widths": [3], "recurrent": 0.5}, "count": 16}
SHAPES = {"parameters": (6,), "velocity": (2, 3)}
PARTS = {name: np.arange(6, dtype=np.float32).reshape(shape) for name, shape in SHAPES.items()}


def network_of(model: ModelSpec) -> Network:
    return on_grid(model.network(range(model.witnesses.count)), model.input, model.witnesses.law.weight_bits)


@pytest.mark.parametrize("changes", [{}, {"witnesses": GAUSSIAN}])
def test_witnesses_there_and_back(changes: dict) -> None:
    model = small_model(**changes)
    network = network_of(model)
    record = encode_witnesses(model, 7, network)
    version, back = decode_witnesses(record, model)
    assert (version, witnesses_model(record)) == (7, model.model)
    for mine, its in zip(network, back, strict=True):
        for name, part in mine._asdict().items():
            got = getattr(its, name)
            assert got is None if part is None else torch.equal(got, part)


def test_witnesses_of_another_model_or_off_the_grid_are_refused() -> None:
    model = small_model()
    network = network_of(model)
    with pytest.raises(WireError, match=Reason.WRONG_MODEL):
        decode_witnesses(encode_witnesses(small_model(lanes=2), 1, network), model)
    off = (network[0]._replace(bias=network[0].bias + 2**-20), *network[1:])
    with pytest.raises(WireError, match="expected weights on the grid of 2\\^-8"):
        decode_witnesses(encode_witnesses(model, 1, off), model)
    with pytest.raises(WireError, match=Reason.CORRUPT_WEIGHTS):  # fewer witnesses than the model has
        network_from_bytes(network_to_bytes(model.network(range(8))), model, model.witnesses.count)


def test_weights_there_and_back() -> None:
    model = small_model(training={"outer_momentum": 0.9})
    weights = Weights(3, np.ones(5, np.float32), np.zeros(5, np.float32), (0, 1), 64, 0.5, 0.25, 1.5)
    back = decode_weights(encode_weights(model, weights), model, 5)
    for mine, its in zip(weights, back, strict=True):
        assert np.array_equal(mine, its)
    without = small_model(training={})
    record = encode_weights(without, weights._replace(velocity=None))
    assert decode_weights(record, without, 5).velocity is None
    assert weights_of(record, without) is not None
    assert weights_of(record, model) is None
    with pytest.raises(WireError, match=Reason.CORRUPT_WEIGHTS):
        decode_weights(record, without, 6)
    with pytest.raises(WireError, match="expected finite numbers"):
        decode_weights(
            encode_weights(without, weights._replace(parameters=np.full(5, np.nan), velocity=None)), without, 5
        )


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_damaged_bytes_are_refused_or_hold_these_shapes(data: st.DataObject) -> None:
    record = bytearray(to_bytes(PARTS))
    for _ in range(data.draw(st.integers(1, 3))):
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(record[: data.draw(st.integers(0, len(record)))]) if data.draw(st.booleans()) else bytes(record)
    try:
        parts = from_bytes(cut, SHAPES)
    except WireError:
        return
    assert {name: part.shape for name, part in parts.items()} == SHAPES
    assert all(part.dtype == np.float32 and np.isfinite(part).all() for part in parts.values())


@pytest.mark.parametrize(
    "header",
    [
        {"parameters": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 48]}},
        {"parameters": {"dtype": "F64", "shape": [6], "data_offsets": [0, 48]}},
        {"parameters": {"dtype": "F32", "shape": [12], "data_offsets": [0, 48]}},
        {name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 24]} for name, shape in SHAPES.items()},
        {"parameters": 3},
        [1, 2],
    ],
)
def test_a_header_that_lies_is_refused(header: object) -> None:
    text = json.dumps(header).encode()
    with pytest.raises(WireError, match=Reason.CORRUPT_WEIGHTS):
        from_bytes(len(text).to_bytes(8, "little") + text + bytes(48), SHAPES)

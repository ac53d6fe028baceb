"""What the Hebbian operator keeps and publishes comes back as it was."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.hebbian import of_bytes, to_bytes
from snn.training.hebbian import HebbianSpec, initial_state


@settings(deadline=None)
@given(seed=st.integers(0, 2**63 - 1), passes=st.integers(0, 2**62), hidden=st.lists(st.integers(1, 9), max_size=3))
def test_a_state_comes_back_bit_for_bit(seed: int, passes: int, hidden: list[int]) -> None:
    state = initial_state(HebbianSpec(hidden=tuple(hidden), seed=seed), 3, 2)._replace(passes=passes)
    back = of_bytes(to_bytes(state))
    assert back.passes == passes
    assert np.array_equal(back.weights, state.weights)

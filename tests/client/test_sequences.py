"""Made sequences hold what their task says, by arithmetic on whole numbers."""

import numpy as np
import pytest

from spikeloom.tasks.sequences import addition, first_last_xor, parity, running_parity


@pytest.mark.parametrize("base", [2, 3, 5, 10])
@pytest.mark.parametrize("carry_input", [True, False])
def test_addition_adds(base: int, carry_input: bool) -> None:
    data = addition(50, base, 7, 3, carry_input)
    assert data.inputs.shape == (50, 7, 3 if carry_input else 2)
    place = base ** np.arange(7)
    digits = np.rint(data.inputs[:, :, :2] * (base - 1)).astype(np.int64)
    a, c = (digits * place[:, None]).sum(axis=1).T
    total = (data.targets[:, :, 0] * place).sum(axis=1) + data.targets[:, -1, 1] * base**7
    assert (a + c == total).all()
    if carry_input:
        assert (data.inputs[:, 1:, 2] == data.targets[:, :-1, 1]).all()
        assert (data.inputs[:, 0, 2] == 0).all()
    assert (data.inputs * 256 == np.rint(data.inputs * 256)).all()


def test_xor_and_parity() -> None:
    data = first_last_xor(64, 9, 1)
    assert (data.targets == (data.inputs[:, 0, 0] != data.inputs[:, -1, 0])).all()
    running = running_parity(64, 9, 1)
    assert (running.targets[:, :, 0] == running.inputs[:, :, 0].cumsum(axis=1) % 2).all()
    assert (parity(32).inputs[:, 0].argmax(axis=1) % 2 == parity(32).targets).all()
    binary = parity(32, timesteps=3, coding="binary")
    assert binary.inputs.shape == (32, 3, 5)
    assert (binary.inputs @ 2 ** np.arange(5) == np.arange(32)[:, None]).all()
    assert (binary.inputs[:, 0, 0] == binary.targets).all(), "the lowest bit alone decides"


def test_seeds_differ_and_repeat() -> None:
    assert np.array_equal(addition(9, 3, 5, 1).inputs, addition(9, 3, 5, 1).inputs)
    assert not np.array_equal(addition(9, 3, 5, 1).inputs, addition(9, 3, 5, 2).inputs)

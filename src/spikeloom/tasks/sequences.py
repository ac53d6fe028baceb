"""Sequences that are made, not measured: addition, first-last XOR, running parity, parity of numbers.

Each function gives `Data` that is a pure function of its arguments; different seeds give independent sequences. Targets
are classes: [N] of the whole sequence, or [N, T, H] at every timestep, one column for each of H heads.
"""

from typing import Literal

import numpy as np

from spikeloom.data import Data

GRID = 256  # inputs are multiples of 2^-8


def first_last_xor(count: int, timesteps: int, seed: int) -> Data:
    """Random bits, inputs [N, T, 1]; the class is x[1] xor x[T]."""
    bits = np.random.default_rng(seed).integers(0, 2, (count, timesteps, 1))
    return Data(bits.astype(np.float64), bits[:, 0, 0] ^ bits[:, -1, 0])


def running_parity(count: int, timesteps: int, seed: int) -> Data:
    """Random bits, inputs [N, T, 1]; the class at a timestep is the parity of the bits so far, targets [N, T, 1]."""
    bits = np.random.default_rng(seed).integers(0, 2, (count, timesteps, 1))
    return Data(bits.astype(np.float64), np.cumsum(bits, axis=1) % 2)


def addition(count: int, base: int, timesteps: int, seed: int, carry_input: bool = True) -> Data:
    """Sums of two random numbers of `timesteps` digits, the lowest digit first (design, section 2.7).

    inputs: [N, T, 3], a / (base - 1), c / (base - 1) and the carry into this digit, on the grid of 2^-8; [N, T, 2]
    without `carry_input`: memory must hold it then. targets: [N, T, 2], digit and carry of a + c + carry.
    """
    digits = np.random.default_rng(seed).integers(0, base, (count, timesteps, 2))
    inputs = np.zeros((count, timesteps, 3))
    inputs[:, :, :2] = np.round(digits / (base - 1) * GRID) / GRID
    targets = np.empty((count, timesteps, 2), np.int64)
    carry = np.zeros(count, np.int64)
    for t in range(timesteps):
        inputs[:, t, 2] = carry
        total = digits[:, t].sum(axis=1) + carry
        targets[:, t, 0], carry = total % base, total // base
        targets[:, t, 1] = carry
    return Data(inputs if carry_input else inputs[:, :, :2], targets)


def parity(numbers: int, timesteps: int = 1, coding: Literal["one-hot", "binary"] = "one-hot") -> Data:
    """The numbers 0 .. numbers-1, the same input for `timesteps`; the class is the number's parity. inputs: one-hot
    rows [numbers, T, numbers], or bits [numbers, T, bits], the lowest first: then 0 is silence."""
    every = np.arange(numbers)
    codes = np.eye(numbers) if coding == "one-hot" else (every[:, None] >> np.arange((numbers - 1).bit_length())) & 1
    return Data(np.repeat(codes[:, None].astype(np.float64), timesteps, axis=1), every % 2)

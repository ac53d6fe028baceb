"""Emotion-driven Hebbian learning on a dense recurrent network (seed 000, entries of 7 and 8 October 2025).

All m neurons lie in one vector: inputs, hidden, outputs. W[i, j] is what a spike of i adds to the membrane of j, 0
where there is no connection. With s[0] = u[0] = 0 and R(u) = 0 where u >= theta, else u, for t = 1..T:

    v[t] = i[t] or s[t-1]
    u[t] = (1 - lambda) R(u[t-1]) + v[t] @ (W + D[t])         D: the perturbation, redrawn in every forward pass
    s[t] = 1 if u[t] >= theta else 0

The output neurons that fire at the first timestep t* at which any does are the answer; several at once, or none, are no
answer. The emotion e is 1 where the answer is the tag, else -1. The source's rule, and ours:

    W += S e sum_{t <= t*} v[t] s[t]^T                            weights in [0, 1)
    W += S e sum_{t <= t*} v[t] (s[t] - E s[t])^T                 weights in (-1, 1), where the network alone is wrong

E s[t] is the chance that a neuron fires at t given v[t] and u[t-1]: over D, whose sum over k connections has a standard
deviation of p sqrt(k / 3) and is taken for normal. So a spike is credited for what the perturbation, and not the input,
has done: REINFORCE (Williams 1992) in the form of perturbed nodes (Fiete and Seung 2006). Each change is a switch of
`HebbianSpec`; without all three it is the source's rule.

Weights and perturbations are multiples of 2^-20 and all that is random comes from Philox streams of (seed, forward
pass): what is learned is a function of the specification and of the labelled sequences in their order, and of nothing
else. Sums over neurons are exact; the last bit of E s[t] is that of the C library, and hidden by the grid.
"""

from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import ndtr

from snn.laws.base import uniforms

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

GRID = 2.0**-20  # far below every step S that learns, far above what float64 loses in a sum over neurons
HIGHEST = 1 - GRID


class HebbianSpec(BaseModel):
    """The network above `input` and below the classes, and how it learns. `hidden` are the widths of layers, of which
    each hears the one below it; with `dense`, every neuron but the inputs hears every other one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = ()
    dense: bool = False
    strength: float = Field(default=0.2, gt=0, description="S")
    perturbation: float = Field(default=1.0, ge=0, description="p: D is uniform in (-p, p)")
    leak: float = Field(default=0.5, ge=0, le=1, description="lambda")
    threshold: float = Field(default=0.5, gt=0, description="theta")
    expected: bool = Field(default=True, description="credit s - E s, not s")
    signed: bool = Field(default=True, description="weights in (-1, 1), not [0, 1)")
    mistakes_only: bool = Field(default=True, description="leave alone what the unperturbed network answers rightly")
    seed: int = Field(default=0, ge=0, lt=2**63)
    publish_every: int = Field(default=100, ge=1, description="labelled sequences from one publication to the next")


class State(NamedTuple):
    """All that learning goes on from. weights: [m, m]; passes: forward passes with a target so far."""

    weights: Floats
    passes: int


class Answers(NamedTuple):
    """outputs: [N, C] the output neurons that answered; active: [T, m] how many of N sequences each neuron fired in."""

    outputs: Mask
    active: npt.NDArray[np.int64]

    @property
    def classes(self) -> npt.NDArray[np.int32]:
        """[N] the class of the only neuron that answered; -1 where several did, or none."""
        return np.where(self.outputs.sum(axis=1) == 1, self.outputs.argmax(axis=1), -1).astype(np.int32)


def connections(spec: HebbianSpec, inputs: int, outputs: int) -> Mask:
    """[m, m] which neuron (row) is heard by which (column)."""
    sizes = [inputs, *spec.hidden, outputs]
    layer = np.repeat(np.arange(len(sizes)), sizes)
    if spec.dense:
        return ~np.eye(len(layer), dtype=bool) & (layer > 0)
    return layer[:, None] + 1 == layer


def initial_state(spec: HebbianSpec, inputs: int, outputs: int) -> State:
    """Weights uniform in (-1, 1), or in (0, 1) where they are not signed."""
    mask = connections(spec, inputs, outputs)
    draws = uniforms(spec.seed, [0], int(mask.sum()))[0]
    weights = np.zeros(mask.shape)
    weights[mask] = _on_grid(2 * draws - 1 if spec.signed else draws)
    return State(_bounded(weights, spec), 0)


def answers(inputs: npt.NDArray, weights: Floats, spec: HebbianSpec, outputs: int) -> Answers:
    """What the unperturbed network answers to `inputs` [N, T, n] of zeros and ones."""
    shape = (len(inputs), len(weights))
    membranes, spikes = np.zeros(shape), np.zeros(shape, bool)
    given = np.zeros((len(inputs), outputs), bool)
    active = np.zeros((inputs.shape[1], len(weights)), np.int64)
    for t in range(inputs.shape[1]):
        membranes = drive(heard(inputs[:, t], spikes), membranes, weights, spec)
        spikes = membranes >= spec.threshold
        active[t] = spikes.sum(axis=0)
        given |= spikes[:, -outputs:] & ~given.any(axis=1, keepdims=True)
    return Answers(given, active)


def learn(state: State, inputs: npt.NDArray, target: int, spec: HebbianSpec, outputs: int, answered: int) -> State:
    """The state after a labelled sequence, `inputs` [T, n] of zeros and ones, to which the network of `state` has
    `answered`, a class or -1 (see `answers`)."""
    weights, passes = state.weights, state.passes + 1
    if spec.mistakes_only and answered == target:
        return State(weights, passes)
    mask = connections(spec, inputs.shape[1], outputs)
    draws = uniforms(spec.seed, [passes], len(inputs) * int(mask.sum()))[0].reshape(len(inputs), -1)
    answer, credit = explore(inputs, weights, _on_grid(spec.perturbation * (2 * draws - 1)), mask, spec, outputs)
    change = _on_grid(spec.strength * emotion(answer, target) * credit)
    return State(_bounded(weights + change, spec), passes)


def emotion(answer: Mask, target: int) -> int:
    """1 where the output neurons `answer` [C] are that of the target alone, else -1."""
    return 1 if answer[target] and answer.sum() == 1 else -1


def explore(
    inputs: npt.NDArray, weights: Floats, perturbation: Floats, mask: Mask, spec: HebbianSpec, outputs: int
) -> tuple[Mask, Floats]:
    """Answer [C] of the network whose connections are perturbed by `perturbation` [T, connections], and the credit
    [m, m] of each connection: sum over t <= t* of v[t] (s[t] - E s[t])^T, or of v[t] s[t]^T."""
    size = len(weights)
    membranes, spikes = np.zeros(size), np.zeros(size, bool)
    credit, perturbed = np.zeros((size, size)), np.zeros((size, size))
    for given, drawn in zip(inputs, perturbation, strict=True):
        v = heard(given, spikes)
        perturbed[mask] = drawn
        alone = drive(v, membranes, weights, spec)
        membranes = alone + v @ perturbed
        spikes = membranes >= spec.threshold
        credit += np.outer(v, spikes - chance(alone, v @ mask, spec) if spec.expected else spikes)
        if spikes[-outputs:].any():
            break
    return spikes[-outputs:], credit * mask


def heard(inputs: npt.NDArray, spikes: Mask) -> Floats:
    """v [..., m] for inputs [..., n] and the last spikes [..., m]."""
    v = spikes.astype(np.float64)
    n = inputs.shape[-1]
    v[..., :n] = np.maximum(v[..., :n], inputs)
    return v


def drive(v: Floats, membranes: Floats, weights: Floats, spec: HebbianSpec) -> Floats:
    """Membranes [..., m] after v [..., m], from those before."""
    kept = np.where(membranes >= spec.threshold, 0, membranes)
    return (1 - spec.leak) * kept + v @ weights


def chance(alone: Floats, heard_of: Floats, spec: HebbianSpec) -> Floats:
    """[m] that a membrane, unperturbed at `alone`, reaches the threshold: perturbed at `heard_of` [m] connections."""
    spread = spec.perturbation * np.sqrt(heard_of / 3)
    above = alone - spec.threshold
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, ndtr(above / spread), above >= 0)


def _bounded(weights: Floats, spec: HebbianSpec) -> Floats:
    return np.clip(weights, -HIGHEST if spec.signed else 0, HIGHEST)


def _on_grid(values: Floats) -> Floats:
    return np.round(values / GRID) * GRID

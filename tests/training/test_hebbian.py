"""Voltages worked by hand, the rule's sign, and a run that is a function of seed and data."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn.training.hebbian import (
    HIGHEST,
    HebbianSpec,
    State,
    answers,
    chance,
    connections,
    drive,
    emotion,
    explore,
    heard,
    initial_state,
    learn,
)

SOURCE = HebbianSpec(expected=False, signed=False, mistakes_only=False)


def test_who_hears_whom() -> None:
    """Layers of 1, 2 and 1: each hears the one below. Dense: all but the input hear all others."""
    layered = connections(HebbianSpec(hidden=(2,)), 1, 1).astype(int)
    assert layered.tolist() == [[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    dense = connections(HebbianSpec(hidden=(2,), dense=True), 1, 1).astype(int)
    assert dense.tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0]]


def test_membranes_leak_add_up_and_reset_to_zero() -> None:
    """One input that always fires, weight 3/8, leak 1/2, threshold 5/8."""
    spec = HebbianSpec(leak=0.5, threshold=0.625)
    weights = np.array([[0, 0.375], [0, 0]])
    membranes, voltages = np.zeros(2), []
    for _ in range(6):
        membranes = drive(heard(np.array([1]), membranes >= spec.threshold), membranes, weights, spec)
        voltages.append(membranes[1])
    assert voltages == [0.375, 0.5625, 0.65625, 0.375, 0.5625, 0.65625]


def test_a_loop_keeps_a_pulse() -> None:
    """Input 0 hears itself by no connection; 1 and 2 hear each other; 3, the output, hears 2 alone, weakly."""
    spec = HebbianSpec(dense=True, leak=0, threshold=1)
    weights = np.zeros((4, 4))
    weights[0, 1] = weights[1, 2] = weights[2, 1] = 1
    weights[2, 3] = 0.5
    pulse = np.zeros((1, 7, 1))
    pulse[0, 0] = 1
    found = answers(pulse, weights, spec, outputs=1)
    assert found.active.tolist() == [
        [0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]
    ]  # fmt: skip
    assert found.classes.tolist() == [0]


@pytest.mark.parametrize("target", [0, 1])
def test_the_sources_rule(target: int) -> None:
    """Neuron 0 fires, output 0 answers: the connection between them alone changes, by S, up where that is right."""
    spec = SOURCE.model_copy(update={"perturbation": 0.0, "strength": 0.125})
    weights = np.zeros((4, 4))
    weights[0, 2:], weights[1, 2:] = (0.75, 0.25), (0.5, 0.5)
    inputs = np.array([[1, 0], [1, 0]])
    after = learn(State(weights, 0), inputs, target, spec, 2, answered=0)
    change = np.zeros((4, 4))
    change[0, 2] = 0.125 if target == 0 else -0.125
    assert np.array_equal(after.weights - weights, change)
    assert after.passes == 1


def test_ties_and_silence_are_no_answers() -> None:
    assert emotion(np.array([True, False]), 0) == 1
    for answer in ([False, True], [True, True], [False, False]):
        assert emotion(np.array(answer), 0) == -1
    weights = np.zeros((4, 4))
    weights[0, 2] = weights[1, 2:] = HIGHEST
    found = answers(np.array([[[1, 0]], [[0, 1]], [[0, 0]]]), weights, HebbianSpec(), 2)
    assert found.classes.tolist() == [0, -1, -1]


def test_what_is_right_is_left_alone() -> None:
    spec = HebbianSpec(hidden=(3,))
    state, inputs = initial_state(spec, 2, 2), np.ones((3, 2))
    assert np.array_equal(learn(state, inputs, 1, spec, 2, answered=1).weights, state.weights)
    assert not np.array_equal(learn(state, inputs, 1, spec, 2, answered=0).weights, state.weights)


def test_what_the_perturbation_has_not_done_is_not_credited() -> None:
    spec = HebbianSpec(hidden=(3,), perturbation=0)
    state, inputs = initial_state(spec, 2, 2), np.ones((3, 2))
    assert np.array_equal(learn(state, inputs, 1, spec, 2, answered=0).weights, state.weights)


def test_every_forward_pass_is_perturbed_anew() -> None:
    spec = HebbianSpec(hidden=(3,))
    weights, inputs = initial_state(spec, 2, 2).weights, np.ones((3, 2))
    after = [learn(State(weights, passes), inputs, 1, spec, 2, answered=0).weights for passes in range(3)]
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(after, 2))
    assert np.array_equal(learn(State(weights, 1), inputs, 1, spec, 2, answered=0).weights, after[1])


def test_silence_is_woken() -> None:
    """A network that does not fire is unhappy with that, and fires more readily: the source's rule would not move."""
    spec = HebbianSpec(perturbation=0.5, threshold=1.0)
    silent = State(np.zeros((4, 4)), 0)
    after = learn(silent, np.ones((1, 2)), 0, spec, 2, answered=-1)
    assert (after.weights[:2, 2:] > 0).all()
    spec = SOURCE.model_copy(update={"perturbation": 0.5, "threshold": 1.0})
    assert np.array_equal(learn(silent, np.ones((1, 2)), 0, spec, 2, answered=-1).weights, silent.weights)


@pytest.mark.parametrize("alone", [-0.4, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("below", [2, 5, 40])
def test_chance_is_the_share_of_perturbations_that_lift_a_neuron(alone: float, below: int) -> None:
    spec = HebbianSpec(perturbation=0.75, threshold=0.5)
    drawn = np.random.default_rng(below).uniform(-0.75, 0.75, (20_000, below)).sum(axis=1)
    share = (alone + drawn >= spec.threshold).mean()
    assert chance(np.array([alone]), np.array([below]), spec)[0] == pytest.approx(share, abs=0.03)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), hidden=st.lists(st.integers(1, 5), max_size=2), dense=st.booleans(),
       expected=st.booleans(), signed=st.booleans(), mistakes_only=st.booleans(), cut=st.integers(0, 12))  # fmt: skip
def test_a_run_is_a_function_of_seed_and_data(
    seed: int, hidden: list[int], dense: bool, expected: bool, signed: bool, mistakes_only: bool, cut: int
) -> None:
    """Within its bounds, on its connections, and the same bits where it is interrupted and goes on from its state."""
    spec = HebbianSpec(
        hidden=tuple(hidden), dense=dense, seed=seed, expected=expected, signed=signed, mistakes_only=mistakes_only
    )
    rng = np.random.default_rng(seed)
    inputs, targets = rng.integers(0, 2, (12, 4, 3)), rng.integers(0, 2, 12)

    def run(state: State, first: int, last: int) -> State:
        for given_, target in zip(inputs[first:last], targets[first:last].tolist(), strict=True):
            answered = int(answers(given_[None], state.weights, spec, 2).classes[0])
            state = learn(state, given_, target, spec, 2, answered)
        return state

    whole = run(initial_state(spec, 3, 2), 0, 12)
    half = run(initial_state(spec, 3, 2), 0, cut)
    stored = State(np.frombuffer(half.weights.tobytes()).reshape(half.weights.shape), half.passes)
    assert run(stored, cut, 12).weights.tobytes() == whole.weights.tobytes()
    assert whole.passes == 12
    assert not whole.weights[~connections(spec, 3, 2)].any()
    assert -HIGHEST * signed <= whole.weights.min()
    assert whole.weights.max() <= HIGHEST
    batch = answers(inputs, whole.weights, spec, 2)
    alone = [answers(one[None], whole.weights, spec, 2) for one in inputs]
    assert np.array_equal(batch.outputs, np.concatenate([one.outputs for one in alone]))
    assert np.array_equal(batch.active, np.sum([one.active for one in alone], axis=0))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), leak=st.sampled_from([0.0, 0.5, 1.0]))
def test_an_unperturbed_exploration_is_the_answer(seed: int, leak: float) -> None:
    spec = HebbianSpec(hidden=(4,), seed=seed, leak=leak)
    weights, mask = initial_state(spec, 3, 2).weights, connections(spec, 3, 2)
    inputs = np.random.default_rng(seed).integers(0, 2, (5, 3))
    answer, credit = explore(inputs, weights, np.zeros((5, int(mask.sum()))), mask, SOURCE.model_copy(
        update={"leak": leak, "hidden": (4,)}), 2)  # fmt: skip
    assert np.array_equal(answer, answers(inputs[None], weights, spec, 2).outputs[0])
    assert (credit >= 0).all()


def test_with_memory_the_sources_network_could_tell_parity() -> None:
    """Weights in [0, 1), no leak, threshold 1/2: the lowest bit alone lifts "odd" over the threshold at once, all
    others together lift "even" later. It is the credit that the source's rule lacks, not the network."""
    weights = np.zeros((7, 7))
    weights[1:5, 5], weights[0, 6] = 0.11, 0.6
    codes = (np.arange(1, 32)[:, None] >> np.arange(5)) & 1
    found = answers(np.repeat(codes[:, None], 5, axis=1), weights, HebbianSpec(leak=0, signed=False), 2)
    assert np.array_equal(found.classes, np.arange(1, 32) % 2)


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_what_was_learned_is_kept(hidden: tuple[int, ...]) -> None:
    """Numbers below 8, one-hot: all right after a while, and from then on no weight changes any more."""
    spec = HebbianSpec(hidden=hidden, seed=3)
    codes = np.repeat(np.eye(8)[:, None], 3, axis=1)
    state, rng = initial_state(spec, 8, 2), np.random.default_rng(3)
    for number in rng.integers(0, 8, 4000).tolist():
        answered = int(answers(codes[number : number + 1], state.weights, spec, 2).classes[0])
        state = learn(state, codes[number], number % 2, spec, 2, answered)
        if (right := answers(codes, state.weights, spec, 2).classes == np.arange(8) % 2).all():
            break
    assert right.all()
    for number in range(8):
        assert np.array_equal(learn(state, codes[number], number % 2, spec, 2, number % 2).weights, state.weights)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), hidden=st.lists(st.integers(1, 6), max_size=2), n=st.integers(1, 31))
def test_without_memory_and_inhibition_more_input_never_silences(seed: int, hidden: list[int], n: int) -> None:
    """Weights in [0, 1) and leak 1: every neuron that fires for a number fires for a number with one bit more. So the
    answer "even" to n is given to n + 1, too: the source's network cannot tell a number from its odd neighbour."""
    spec = HebbianSpec(hidden=tuple(hidden), signed=False, leak=1, seed=seed, threshold=0.3)
    weights = initial_state(spec, 5, 2).weights
    code, more = ((number >> np.arange(5)) & 1 for number in (n, n | 1))
    few, many = (np.broadcast_to(bits, (1, 4, 5)) for bits in (code, more))
    fewer, more_active = (answers(inputs, weights, spec, 2).active for inputs in (few, many))
    assert (fewer <= more_active).all()

"""The five variants of the paper (its appendix E) as functions on arrays that feed each other:

    SG        sg(law's sample)             CVX       cvx(law's sample)
    SG-CVX    cvx(SG's network)            SG-SG     sg(SG's network, from SG's readout)
                                           CVX-SG    sg(CVX's network, from CVX's readout)

Whatever network `cvx` is given it puts on the grid first, so that its dictionary has the promise of exactness.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn import fused, lif
from snn.model import InputSpec
from snn.network import Network
from snn.training.local import deal, take_steps
from snn.training.objective import Head, Objective
from snn.training.on_grid import is_exact, on_grid
from snn.training.rules import at_rest
from snn.training.spec import TrainingSpec
from snn.training.surrogate import Surrogate
from solver_service import ReadoutClassifier
from solver_service.path import Choice

BLOCK = 1024  # sequences rolled out at a time: of 196 timesteps the reference holds 200 MB for 256 neurons
WEIGHT_BITS = 8

Classes = npt.NDArray[np.int64]


class Rows(NamedTuple):
    """inputs: [N, T, m] on `grid`. classes: [N, H] of the last timestep or [N, T, H] of every one, a column a head.
    outputs: the number of classes of each head."""

    inputs: Tensor
    classes: Classes
    outputs: tuple[int, ...]
    grid: InputSpec

    @classmethod
    def of(cls, inputs: npt.NDArray, targets: npt.NDArray, *outputs: int) -> Self:
        """Sequences as `spikeloom.tasks.sequences` makes them: targets [N] or [N, T, H]."""
        x = torch.tensor(inputs, dtype=torch.float32)
        grid = InputSpec(timesteps=x.shape[1], features=x.shape[2])
        return cls(x, np.asarray(targets if targets.ndim > 1 else targets[:, None], np.int64), outputs, grid)

    @property
    def every_step(self) -> bool:
        return self.classes.ndim == 3

    @property
    def heads(self) -> list[slice]:
        """The columns of the scores that each head has."""
        ends = np.cumsum(self.outputs).tolist()
        return [slice(end - count, end) for end, count in zip(ends, self.outputs, strict=True)]


class Trained(NamedTuple):
    """A network with its readout, W [n, C] and c [C]; relative_gap: the largest of the heads, where it is certified."""

    network: Network
    readout: Tensor
    intercept: Tensor
    relative_gap: float | None = None

    def scores(self, rows: Rows) -> Tensor:
        """[N, C], or [N, T, C] where every timestep is asked."""
        return spikes_of(self.network, rows).float() @ self.readout + self.intercept

    def accuracy(self, rows: Rows) -> float:
        """The share of rows (timesteps, where every one is asked) at which every head is right."""
        return float((likeliest(self.scores(rows), rows) == rows.classes).all(axis=-1).mean())

    def right_with_own_carry(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """[N, T] whether every head is right, where the class of the last head is the last input of the next timestep:
        addition, its carry being what the network said (design, section 2.7)."""
        exact = is_exact(self.network, rows.grid, WEIGHT_BITS)
        network = fused.Prepared(self.network) if exact else self.network
        step = fused.roll_out if exact else lif.roll_out
        state, heard = lif.initial_state(network, len(rows.inputs)), rows.inputs.clone()
        right = np.empty(rows.classes.shape[:2], np.bool_)
        for t in range(right.shape[1]):
            result = step(heard[:, t : t + 1], state, network)
            said = likeliest(result.spikes.float() @ self.readout + self.intercept, rows)
            state, right[:, t] = result.state, (said == rows.classes[:, t]).all(axis=-1)
            if t + 1 < right.shape[1]:
                heard[:, t + 1, -1] = torch.from_numpy(said[:, -1])
        return right


def likeliest(scores: Tensor, rows: Rows) -> Classes:
    """[..., H] the class of each head for scores [..., C]."""
    return torch.stack([scores[..., head].argmax(-1) for head in rows.heads], dim=-1).numpy()


def sg(start: Network | Trained, rows: Rows, training: TrainingSpec) -> Trained:
    """Witnesses and readout trained together by surrogate gradients; `training.rounds * local_steps` steps."""
    order = deal(len(rows.inputs), training.steps, training.batch, training.seed)
    (trained,) = sg_by_portions(start, rows, training, [order])
    return trained


def sg_by_portions(
    start: Network | Trained, rows: Rows, training: TrainingSpec, portions: Iterable[npt.NDArray[np.int64]]
) -> Iterator[Trained]:
    """The same, and what there is after each portion: a step for each of its batches, places of rows [steps, batch]."""
    network, kept = (start.network, start) if isinstance(start, Trained) else (start, None)
    objective = Objective(
        network,
        sum(rows.outputs),
        tuple(Head("multinomial", head) for head in rows.heads),
        Surrogate(training.surrogate, training.slope),
        training.weight_decay,
    )
    theta = objective.initial() if kept is None else objective.initial(kept.readout, kept.intercept)
    one_hot = [torch.eye(count)[torch.from_numpy(rows.classes[..., h])] for h, count in enumerate(rows.outputs)]
    targets, moments, done = torch.cat(one_hot, dim=-1), at_rest(theta), 0
    for portion in portions:
        theta, moments, _, _ = take_steps(objective, training, theta, moments, rows.inputs, targets, portion, done)
        done += len(portion)
        yield Trained(objective.network(theta), *objective.readout(theta))


def cvx(start: Network | Trained, rows: Rows, relative_beta: float | Choice, seconds: float | None = None) -> Trained:
    """Frozen witnesses, put on the grid where they are not, and the readout that is optimal over them, head by head."""
    network = start.network if isinstance(start, Trained) else start
    if not is_exact(network, rows.grid, WEIGHT_BITS):
        network = on_grid(network, rows.grid, WEIGHT_BITS)
    spikes = spikes_of(network, rows).flatten(0, -2).numpy()
    readout, intercept = np.zeros((spikes.shape[1], sum(rows.outputs))), np.zeros(sum(rows.outputs))
    gaps = []
    for number, head in enumerate(rows.heads):
        solved = ReadoutClassifier(relative_beta=relative_beta, max_seconds=seconds)
        solved.fit(spikes, rows.classes[..., number].ravel())
        if len(solved.classes_) < rows.outputs[number]:
            raise ValueError(
                f"head {number}: expected rows of all {rows.outputs[number]} classes, got {solved.classes_}"
            )
        columns = slice(head.stop - len(solved.coef_), head.stop)  # of two classes the second has all of the score
        readout[:, columns], intercept[columns] = solved.coef_.T, solved.intercept_
        gaps.append(solved.relative_gap_)
    return Trained(network, torch.tensor(readout).float(), torch.tensor(intercept).float(), max(gaps))


def spikes_of(network: Network, rows: Rows) -> Tensor:
    """[N, n] bool at the last timestep, or [N, T, n] at every one: the definition's bits, from the compiled kernel
    where the network is exact."""
    backend = fused.roll_out if is_exact(network, rows.grid, WEIGHT_BITS) else lif.roll_out
    return torch.cat(
        [
            backend(block, lif.initial_state(network, len(block)), network, rows.every_step).spikes
            for block in torch.split(rows.inputs, BLOCK)
        ]
    )

"""The complete dictionary of a tiny problem: every spike column that some weights give, each with such weights
(paper, sections 3.2 to 3.4 and appendices C.3, D.4, D.5).

Along a trajectory the membrane of a neuron is linear in its parameters q = (w, V, bias, theta):

    u[t] = f[t] . q,    f[t] = lambda f[t-1] + (s_below[t], s_layer[t-1], 1, -s[t-1]),    f[0] = (0, 0, 0, -1)

so the parameters of one trajectory are a cone:  f.q >= 0 where it fires,  f.q < 0 where it is silent,  theta > 0.
Cones of different trajectories are disjoint and all of them together are every q. They are found by a walk over samples
and timesteps that cuts each cone by the hyperplane f.q = 0 of its own trajectory so far. Given what a layer hears, the
neurons of a step are cut independently of each other; a layer hears one witnessed trajectory of the layer below it.

Cones are kept by the vertices of their part in a simplex around 0, in integers (double description: Motzkin et al.
1953), so no tolerance decides what exists. A cone may be thin: where no bias can lift them, several neurons or samples
may fire together only at u = 0, which fires; those columns belong to the dictionary as well.

q scales freely, so theta > 0 is no choice: every fixed theta gives the same columns, and a witness states its own. A
recurrent layer without leak is a general threshold network: V_jj takes up the reset.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, combinations_with_replacement, product
from math import gcd, lcm
from operator import mul
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from snn import lif
from snn.network import Layer, Network

Columns = npt.NDArray[np.bool_]
Heard = npt.NDArray[np.float64] | Columns
Row = tuple[int, ...]
Spikes = tuple[int, ...]
WITNESS_BITS = (4, 8, 12, 16, 20)  # grids of witnesses, coarse ones first; float32 holds no finer one


class Hidden(NamedTuple):
    """A layer of a subnetwork: `width` neurons of one leak, with a bias of their own, or recurrent, or not."""

    width: int = 1
    leak: float = 0.0
    bias: bool = True
    recurrent: bool = False


class Exact(NamedTuple):
    """columns: [N, P], or [N * T, P] with every timestep, all different. network: P subnetworks; column p is what the
    first neuron of the last layer of subnetwork p does (`fired`)."""

    network: Network
    columns: Columns


def exact(inputs: npt.ArrayLike, layers: Sequence[Hidden], every_step: bool = False) -> Exact:
    """All columns of subnetworks of `layers` on inputs [N, T, m], at the last timestep or at every one.

    Complete over real parameters; each witness was rolled out by `snn.lif`. The number of trajectories grows like
    (N T)^d with d free parameters a neuron, and is raised to the width in a recurrent layer. Raises ValueError for what
    cannot be used, or for a leak of so many bits that float32 does not hold a witness.
    """
    x = np.asarray(inputs, np.float64)
    _validate(x, layers)
    stacks: dict[bytes, tuple[Heard, tuple[_Witness, ...]]] = {b"": (x, ())}
    for layer in layers[:-1]:
        heard, stacks = stacks, {}
        for below, under in heard.values():
            for spikes, witness in _joint(below, layer):
                stacks.setdefault(spikes.tobytes(), (spikes, (*under, witness)))
    found: dict[bytes, tuple[Columns, tuple[_Witness, ...]]] = {}
    for below, under in stacks.values():
        for trajectory, witness in _trajectories(below, layers[-1]):
            column = trajectory[:, :, 0].ravel() if every_step else trajectory[:, -1, 0]
            if (key := column.tobytes()) not in found or (witness.robust and not found[key][1][-1].robust):
                found[key] = column, (*under, witness)
    columns = np.stack([column for column, _ in found.values()], axis=1)
    return Exact(_verified(x, layers, columns, [witnesses for _, witnesses in found.values()], every_step), columns)


def fired(inputs: npt.ArrayLike, network: Network, width: int, every_step: bool = False) -> Columns:
    """Columns [N, P] or [N * T, P] of inputs [N, T, m]: the first of `width` neurons of each subnetwork at the top."""
    x = torch.from_numpy(np.asarray(inputs, np.float32))
    spikes = lif.roll_out(x, lif.initial_state(network, len(x)), network, every_step).spikes
    return np.asarray(spikes[..., ::width].reshape(-1, spikes.shape[-1] // width).numpy())


class _Cone(NamedTuple):
    """vertices: (q, h), the point q / h. on: for each vertex a bit for each hyperplane that it lies on. open: bits of
    the hyperplanes that the cone does not reach. cuts: how many bits are taken."""

    vertices: tuple[Row, ...]
    on: tuple[int, ...]
    open: int
    cuts: int

    @property
    def thin(self) -> int:
        """Bits of the hyperplanes that all of it lies on."""
        common = -1
        for bits in self.on:
            common &= bits
        return common

    def split(self, row: Row) -> tuple["_Cone | None", "_Cone | None"]:
        """The parts where row . q < 0 and >= 0, None where there is no such q."""
        values = [sum(map(mul, row, vertex)) for vertex in self.vertices]
        bit = 1 << self.cuts
        below, at, above = ([k for k, value in enumerate(values) if _sign(value) == sign] for sign in (-1, 0, 1))
        face = [(self.vertices[k], self.on[k] | bit) for k in at]
        for i, j in product(above, below):
            if self._adjacent(i, j):
                ends = zip(self.vertices[i], self.vertices[j], strict=True)
                point = [values[i] * low - values[j] * high for high, low in ends]
                common = gcd(*point)
                face.append((tuple(part // common for part in point), self.on[i] & self.on[j] | bit))
        silent = self._part(below, face, bit) if below else None
        return silent, self._part(above, face, 0)

    def _part(self, side: list[int], face: list[tuple[Row, int]], open_: int) -> "_Cone | None":
        """The vertices of one side and those of the cut, None where they leave the open side of a hyperplane."""
        kept = [(self.vertices[k], self.on[k]) for k in side] + face
        vertices, on = zip(*kept, strict=True)
        part = _Cone(vertices, on, self.open | open_, self.cuts + 1)
        return None if part.thin & part.open else part

    def _adjacent(self, i: int, j: int) -> bool:
        """No third vertex lies on all hyperplanes that both lie on."""
        common = self.on[i] & self.on[j]
        if common.bit_count() < len(self.vertices[i]) - 2:
            return False
        return not any(common & on == common for k, on in enumerate(self.on) if k not in (i, j))


def _everything(dimensions: int) -> _Cone:
    """All q with theta, the last of them, above 0: the simplex q_k >= -1, sum q <= 1, then cut."""
    corners = []
    for k in range(dimensions + 1):
        corner = [-1] * dimensions
        if k < dimensions:
            corner[k] = dimensions
        corners.append((*corner, 1))
    facets = (1 << (dimensions + 1)) - 1
    whole = _Cone(tuple(corners), tuple(facets ^ (1 << k) for k in range(dimensions + 1)), 0, dimensions + 1)
    below, _ = whole.split((0,) * (dimensions - 1) + (-1,))
    assert below is not None
    return below


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


class _Witness(NamedTuple):
    """A cone for each neuron of a layer."""

    cones: tuple[_Cone, ...]

    @property
    def robust(self) -> bool:
        """Whether the weights may be changed a little."""
        return not any(cone.thin for cone in self.cones)

    def parameters(self, bits: int) -> npt.NDArray[np.float64]:
        """[width, d] inside the cones and on a grid; where a cone is thin, integers."""
        return np.array([_thin_point(cone) if cone.thin else _grid_point(cone, bits) for cone in self.cones])


def _grid_point(cone: _Cone, bits: int) -> npt.NDArray[np.float64]:
    corners = np.array([[part / vertex[-1] for part in vertex[:-1]] for vertex in cone.vertices])
    centre = corners.mean(axis=0)
    return np.asarray(np.ldexp(np.rint(np.ldexp(centre / np.abs(centre).max(), bits)), -bits))


def _thin_point(cone: _Cone) -> npt.NDArray[np.float64]:
    total = [sum(parts) for parts in zip(*cone.vertices, strict=True)][:-1]
    common = gcd(*total)
    return np.array([part // common for part in total], np.float64)


def _trajectories(below: Heard, layer: Hidden) -> Iterator[tuple[Columns, _Witness]]:
    """Every trajectory [N, T, width] of a layer that hears `below` [N, T, m]: of each neuron on its own, width 1, or
    of all together where they hear each other."""
    samples, steps, fan_in = below.shape
    width = layer.width if layer.recurrent else 1
    numbers, unit = _integers(below)
    numerator, denominator = float(layer.leak).as_integer_ratio()
    rest: Row = (0,) * (fan_in + (width if layer.recurrent else 0) + layer.bias)
    silence: Spikes = (0,) * width

    def walk(
        step: int, cones: tuple[_Cone, ...], rows: tuple[Row, ...], last: Spikes, history: Spikes
    ) -> Iterator[tuple[Spikes, tuple[_Cone, ...]]]:
        if step == samples * steps:
            yield history, cones
            return
        t = step % steps
        if t == 0:
            rows, last = ((*rest, -unit),) * width, silence
        scale = denominator ** (t + 1)
        peers = tuple(unit * spike for spike in last) if layer.recurrent else ()
        common = numbers[step] + peers + (unit,) * layer.bias
        rows = tuple(
            tuple(numerator * old + scale * new for old, new in zip(row, (*common, -unit * spike), strict=True))
            for row, spike in zip(rows, last, strict=True)
        )
        parts = [enumerate(cone.split(row)) for cone, row in zip(cones, rows, strict=True)]
        for choice in product(*([(spike, cone) for spike, cone in both if cone is not None] for both in parts)):
            now = tuple(spike for spike, _ in choice)
            yield from walk(step + 1, tuple(cone for _, cone in choice), rows, now, history + now)

    for history, cones in walk(0, (_everything(len(rest) + 1),) * width, (), silence, ()):
        yield np.array(history, np.bool_).reshape(samples, steps, width), _Witness(cones)


def _joint(below: Heard, layer: Hidden) -> Iterable[tuple[Columns, _Witness]]:
    """Trajectories [N, T, width] of a whole layer, up to the order of its neurons."""
    found = list(_trajectories(below, layer))
    if layer.recurrent:
        alike = {tuple(sorted(map(bytes, np.moveaxis(spikes, 2, 0)))): (spikes, witness) for spikes, witness in found}
        return alike.values()
    choose = combinations if len(found) >= layer.width else combinations_with_replacement
    return (
        (
            np.concatenate([spikes for spikes, _ in chosen], axis=2),
            _Witness(tuple(cone for _, witness in chosen for cone in witness.cones)),
        )
        for chosen in choose(found, layer.width)
    )


def _integers(below: Heard) -> tuple[list[Row], int]:
    """below [N, T, m] as whole multiples of 1 / unit, a row for each sample and timestep."""
    ratios = [[float(value).as_integer_ratio() for value in row] for row in below.reshape(-1, below.shape[2])]
    unit = lcm(*(denominator for row in ratios for _, denominator in row))
    return [tuple(numerator * unit // denominator for numerator, denominator in row) for row in ratios], unit


def _verified(
    inputs: npt.NDArray[np.float64],
    layers: Sequence[Hidden],
    columns: Columns,
    witnesses: Sequence[tuple[_Witness, ...]],
    every_step: bool,
) -> Network:
    """Each witness on the coarsest grid on which the reference gives its column."""
    chosen = [[witness.parameters(WITNESS_BITS[0]) for witness in stack] for stack in witnesses]
    for finer in (*WITNESS_BITS[1:], None):
        network = _network(layers, chosen, inputs.shape[2])
        right = (fired(inputs, network, layers[-1].width, every_step) == columns).all(axis=0)
        right &= np.array([all((part[:, -1] > 0).all() for part in stack) for stack in chosen])
        wrong = np.flatnonzero(~right).tolist()
        if not wrong or finer is None:
            break
        for p in wrong:
            chosen[p] = [witness.parameters(finer) for witness in witnesses[p]]
    if wrong:
        raise ValueError(
            f"leak: float32 rounds the membranes of {len(wrong)} of {len(witnesses)} witnesses to other spikes; "
            f"expected leaks of few bits, such as 0.5 or 0.875, got {[layer.leak for layer in layers]}"
        )
    return network


def _network(layers: Sequence[Hidden], chosen: Sequence[list[npt.NDArray[np.float64]]], features: int) -> Network:
    """From the parameters [width, d] of each layer of each subnetwork."""
    built, fan_in = [], features
    for number, layer in enumerate(layers):
        own = np.stack([stack[number] for stack in chosen]).astype(np.float32)  # [P, width, d]
        parts = torch.from_numpy(own.swapaxes(1, 2))  # [P, d, width]
        weights = parts[:, :fan_in]
        feedback = parts[:, fan_in : fan_in + layer.width] if layer.recurrent else None
        threshold = parts[:, -1].flatten()
        built.append(
            Layer(
                (weights.transpose(0, 1).flatten(1) if number == 0 else weights).contiguous(),
                parts[:, -2].flatten() if layer.bias else torch.zeros_like(threshold),
                torch.full_like(threshold, layer.leak),
                threshold,
                None if feedback is None else feedback.contiguous(),
            )
        )
        fan_in = layer.width
    return tuple(built)


def _validate(inputs: npt.NDArray[np.float64], layers: Sequence[Hidden]) -> None:
    if inputs.ndim != 3 or 0 in inputs.shape or not np.isfinite(inputs).all():
        raise ValueError(f"inputs: expected finite numbers [N, T, m], at least one of each, got {list(inputs.shape)}")
    if (inputs.astype(np.float32) != inputs).any():
        raise ValueError("inputs: expected numbers that float32 holds, got others; round them to a dyadic grid")
    if not layers or any(layer.width < 1 or not 0 <= layer.leak <= 1 for layer in layers):
        raise ValueError(f"layers: expected at least one, of width >= 1 and a leak in [0, 1], got {list(layers)}")
    if layers[-1].width > 1 and not layers[-1].recurrent:
        raise ValueError(
            f"layers: expected width 1 at the top, where no neuron hears another, got {layers[-1].width}; a column is "
            "one neuron's"
        )

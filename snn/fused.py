"""The dynamics of `snn.lif` as one compiled pass on the CPU: the same bits, from the input to the last layer in cache.

A tile of subnetworks is taken through all sequences, `CHUNK` rows (a row is one timestep of one sequence) at a time:

    product   drive[row] = x[row] @ W        int16 grid codes, or float32 where a code does not fit
    couple    drive[row] = spikes[row] @ W   the layers above the first, and a layer's own last spikes with V
    step      u = ((leak * u) + drive) - reset;  spikes[row] = u >= 0

so currents and hidden spikes stay in the L1 and L2 caches, in the layout of `snn.tiles`.

Bits. Within the exactness bound a current is the same number in any order, with or without fused multiply-add, in
integers or in floats. A membrane is not: `_step` must round after each operation, so it alone is compiled without
fast-math (`tests/snn/test_fused.py` reads the machine code).
"""

from functools import cached_property
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snn import network as networks
from snn import tiles as tiles_of
from snn.fused_product import PANEL, ROWS, product
from snn.lif import RollOut, State, validate
from snn.network import Layer, Network

CHUNK = 2 * ROWS  # rows a tile is taken through at a time
TILE = 1024  # neurons of a tile's widest layer: their currents of a chunk are 48 KB
TILE_BYTES = 2**18  # of a tile's first weights: half of a small L2 cache, which they share with the currents
EXACT = 2.0**24  # integers that float32 holds
STRIP = 4096  # numbers whose grid is checked at once: 16 KB, read twice
TRUNK_SPIKES = 2**23  # of a layer of the trunk at a time: 8 MB, and 16 MB or 32 MB as numbers for the layer above
FINEST = 2.0**-30  # a grid finer than this is none: one number below 2^-6 fills float32

Float = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]


class Prepared(tuple[Layer, ...]):
    """A network, checked and laid out for the kernel once, so that a call need not.

    Its stages run one behind the other, over as many sequences at a time as TRUNK_SPIKES allows.

    Raises ValueError where shapes disagree, a number is not finite, or weights lie on no grid on which every current
    is exact.
    """

    def __new__(cls, network: Network) -> "Prepared":
        networks.validate(network)
        return super().__new__(cls, network)

    def __init__(self, network: Network) -> None:
        self.columns = [len(layer.bias) for layer in network]
        self.stages, layers, neurons = [], 0, 0
        for layers_of_stage in networks.stages(network):
            self.stages.append(Stage(layers_of_stage, layers, neurons))
            layers += len(layers_of_stage)
            neurons += sum(len(layer.bias) for layer in layers_of_stage)

    @cached_property
    def resting(self) -> Float:
        """[n] membranes of one sequence before its first timestep."""
        return -torch.cat([layer.threshold for layer in self]).numpy()

    @property
    def whole(self) -> bool:
        """Whether inputs of 16 bits can be taken as they are."""
        return self.stages[0].whole

    def refuse_inexact_inputs(self, largest: float, grid: float) -> None:
        """ValueError where inputs up to `largest`, multiples of `grid`, may give a current that float32 rounds."""
        first = self.stages[0]
        _refuse_inexact("inputs", largest * first.reach + first.feedback, grid * first.grid)


class Stage:
    """What one pass of the kernel takes: a layer of the trunk, or the subnetworks (`networks.stages`)."""

    def __init__(self, layers: Network, below: int, neurons_below: int) -> None:
        """`below` layers of so many neurons lie below it, whose spikes it reads; inputs where there are none."""
        self.layers, self.below, self.neurons_below = layers, below, neurons_below
        self.features = len(layers[0].weights)
        self.subnetworks = networks.subnetworks(layers)
        self.neurons = len(layers[-1].bias)
        self.widths = np.array([len(layer.bias) // max(self.subnetworks, 1) for layer in layers])
        self.recurrent = np.array([layer.recurrent is not None for layer in layers])
        self.grid, self.reach, self.feedback, self.whole = 1.0, 0.0, 0.0, True
        if self.subnetworks:
            self._lay_out()

    def _lay_out(self) -> None:
        self.grid, self.reach, self.feedback = self._exact()
        self.whole = bool(self.layers[0].weights.abs().max() < 2.0**15 * self.grid)
        # Few neurons of a trunk fire at a time, so that few of the weights are read.
        most = TILE if self.below else min(TILE, TILE_BYTES // (2 * self.features))
        most //= int(self.widths.max())
        tiles = -(-self.subnetworks // max(PANEL, most))
        self.lanes = -(-self.subnetworks // (tiles * PANEL)) * PANEL
        self.parameters = tiles_of.parameters(self.layers, self.lanes)

    @cached_property
    def codes(self) -> npt.NDArray[np.int16]:
        """The first weights as whole numbers of their grid, in pairs of features, as `product` reads them."""
        return self._panels(1 / self.grid, 2).astype(np.int16)

    @cached_property
    def floats(self) -> Float:
        """The first weights as they are, as `product` reads them."""
        return self._panels(1, 1)

    def _exact(self) -> tuple[float, float, float]:
        """The first layer's grid, its current per unit of input, and its current from its own spikes."""
        found = []
        for number, layer in enumerate(self.layers, start=self.below + 1):
            parts = [layer.weights] if layer.recurrent is None else [layer.weights, layer.recurrent]
            grid = min(measure(part.numpy().ravel())[0] for part in parts)
            reach, feedback = [part.abs().sum(dim=-2).max().item() for part in parts] + [0.0] * (2 - len(parts))
            _refuse_inexact(f"layer {number}", feedback + (reach if number > 1 else 0), grid)
            found.append((grid, reach, feedback))
        return found[0]

    def _panels(self, scale: float, group: int) -> Float:
        """[tiles, panels, groups of features, PANEL, group]: what `product` multiplies lies together."""
        weights = tiles_of.first_weights(self.layers, self.lanes) * np.float32(scale)
        tiles, features, width, lanes = weights.shape
        padded = np.pad(weights, ((0, 0), (0, -features % group), (0, 0), (0, 0)))
        split = padded.reshape(tiles, -1, group, width * lanes // PANEL, PANEL)
        return np.ascontiguousarray(split.transpose(0, 3, 1, 4, 2))


class Stepped(NamedTuple):
    """spikes: [B, 1 or k, n] of the last layer; active: [depth, k] neurons that fired, or more columns where the
    sequences do not begin together."""

    spikes: Bits
    active: Integers


def roll_out(inputs: Tensor, state: State, network: Network, every_step: bool = False) -> RollOut:
    """`snn.lif.roll_out` for tensors on the CPU; a network that is stepped often is `Prepared` once.

    Raises ValueError as the reference does, and where numbers lie on no grid on which every current is exact.
    """
    ready = network if isinstance(network, Prepared) else Prepared(network)
    validate(inputs, state, ready)
    x = inputs.contiguous().numpy()
    grid, largest = measure(x.reshape(-1))
    ready.refuse_inexact_inputs(largest, grid)
    membranes = torch.cat(state, dim=1)
    if ready.whole and largest < 2.0**15 * grid:
        codes = _codes(x.reshape(-1), np.float32(1 / grid)).reshape(x.shape)
        result = step(codes, grid, membranes.numpy(), ready, every_step)
    else:
        result = step(x, 1.0, membranes.numpy(), ready, every_step)
    spikes = torch.from_numpy(result.spikes)
    return RollOut(
        spikes if every_step else spikes[:, 0],
        torch.split(membranes, ready.columns, dim=1),
        tuple(torch.from_numpy(wave) for wave in result.active),
    )


def step(
    x: npt.NDArray[np.int16] | Float,
    unit: float,
    membranes: Float,
    network: Prepared,
    every_step: bool = False,
    delays: Integers | None = None,
) -> Stepped:
    """Step through x * unit, x [B, k, m] int16 (where `network.whole`) or float32, from `membranes` [B, all neurons
    of all layers side by side], which are changed in place. Sequence b begins delays[b] columns into `active`, at the
    first one if left out. Trusts its caller to have checked them."""
    batch, steps, _ = x.shape
    if delays is None:
        delays, span = np.zeros(batch, np.int64), steps
    else:
        span = steps + int(delays.max(initial=0))
    spikes = np.empty((batch, steps if every_step else 1, network.columns[-1]), np.bool_)
    active = np.zeros((len(network), span), np.int64)
    widest = max((stage.neurons for stage in network.stages[:-1]), default=0)
    together = max(1, TRUNK_SPIKES // (steps * widest)) if widest else max(1, batch)
    for begin in range(0, batch, together):
        some = slice(begin, begin + together)
        heard, of_one = x[some], unit
        for stage in network.stages:
            top = stage is network.stages[-1]
            fired = spikes[some] if top else np.empty((len(heard), steps, stage.neurons), np.bool_)
            _step_stage(heard, of_one, stage, membranes[some], delays[some], fired, active)
            heard, of_one = fired, 1.0
    return Stepped(spikes, active)


def _step_stage(
    x: npt.NDArray, unit: float, stage: Stage, membranes: Float, delays: Integers, spikes: Bits, active: Integers
) -> None:
    """Step one stage through x * unit, or through spikes x; its own of the membranes and rows of `active` change."""
    if not spikes.size:
        return
    if x.dtype == np.bool_:
        x = x.astype(np.int16 if stage.whole else np.float32)
    whole = x.dtype == np.int16
    rows = x.reshape(-1, stage.features)
    if whole and stage.features % 2:
        rows = np.pad(rows, ((0, 0), (0, 1)))
    _roll_out(
        *_compress(np.ascontiguousarray(rows).view(np.int32)),
        np.float32(unit * stage.grid if whole else unit),
        stage.codes if whole else stage.floats,
        stage.parameters,
        stage.widths,
        stage.recurrent,
        stage.subnetworks,
        membranes,
        stage.neurons_below,
        delays,
        x.shape[1],
        spikes,
        active[stage.below : stage.below + len(stage.layers)],
    )


def _refuse_inexact(what: str, largest: float, grid: float) -> None:
    """ValueError where sums up to `largest` of multiples of `grid` leave float32's whole numbers."""
    if largest >= EXACT * grid:
        raise ValueError(
            f"{what}: expected currents below 2^24 of their grid's steps, so that float32 holds them exactly, got up "
            f"to {largest:g} on a grid of {grid:g}; put inputs and weights on a coarser grid, or scale them down"
        )


# Loops over numbers go by index and count in 32 bits: only so does the compiler take as many at once as a vector holds.


@numba.njit(nogil=True, cache=True, error_model="numpy")
def measure(values: Float) -> tuple[float, float]:
    """The coarsest grid 2^-b, b >= 0, that holds all `values`, or 0 if none does, and their largest magnitude."""
    scale = np.float32(1)
    largest = np.float32(0)
    for start in range(0, len(values), STRIP):
        strip = values[start : start + STRIP]
        while not _held(strip, scale):
            scale *= np.float32(2)
            if scale > np.float32(1 / FINEST):
                return 0.0, np.inf
        largest = max(largest, _largest(strip))
    return 1 / float(scale), float(largest)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _held(values: Float, scale: np.float32) -> bool:
    """Whether all values * scale are whole numbers."""
    off = np.int32(0)
    for at in range(len(values)):
        scaled = values[at] * scale
        off = np.int32(off | np.int32(scaled != np.rint(scaled)))
    return off == 0


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _largest(values: Float) -> np.float32:
    """The largest magnitude: without their signs, floats are in the order of their bits."""
    bits, largest = values.view(np.int32), np.int32(0)
    for at in range(len(bits)):
        magnitude = np.int32(bits[at] & 0x7FFFFFFF)
        largest = magnitude if magnitude > largest else largest
    return np.int32(largest).view(np.float32)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def finite(values: Float) -> bool:
    """Whether no number is NaN or infinite, at the pace of memory."""
    return _largest(values) < np.float32(np.inf)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _codes(values: Float, scale: np.float32) -> npt.NDArray[np.int16]:
    """values * scale, whole numbers of 16 bits."""
    codes = np.empty(len(values), np.int16)
    for at in range(len(values)):
        codes[at] = np.int16(np.int32(values[at] * scale))
    return codes


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _compress(x: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Integers]:
    """Rows [R, groups] in blocks of ROWS, without the groups of features that are zero in all of a block's rows.

    Gives values [blocks, groups, ROWS], which group each is, [blocks, groups], and how many, [blocks].
    """
    rows, groups = x.shape
    blocks = -(-rows // ROWS)
    values = np.empty((blocks, groups, ROWS), np.int32)
    which = np.empty((blocks, groups), np.int32)
    counts = np.empty(blocks, np.int64)
    for block in range(blocks):
        kept = 0
        for g in range(groups):
            seen = np.int32(0)
            for r in range(ROWS):
                value = x[min(block * ROWS + r, rows - 1), g]  # what follows the last row is not stepped through
                values[block, kept, r] = value
                seen |= value
            which[block, kept] = g
            kept += seen != 0
        counts[block] = kept
    return values, which, counts


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _roll_out(
    x: npt.NDArray[np.int32],
    which: npt.NDArray[np.int32],
    counts: Integers,
    unit: np.float32,
    first: npt.NDArray,
    parameters: Float,
    widths: Integers,
    recurrent: Bits,
    subnetworks: int,
    membranes: Float,
    begins: int,
    delays: Integers,
    steps: int,
    spikes: Bits,
    active: Integers,
) -> None:
    depth = len(widths)
    lanes = first.shape[1] * PANEL // widths[0]
    rows = len(membranes) * steps
    row_size = widths.max() * lanes
    drive, heard = np.empty(CHUNK * row_size, np.float32), np.empty(CHUNK * row_size, np.float32)
    u = np.empty(widths.sum() * lanes, np.float32)
    last_spikes, fed = np.empty(row_size, np.float32), np.empty(row_size, np.float32)
    for tile in range(len(first)):
        own = parameters[tile]
        begin = tile * lanes
        inside = min(lanes, subnetworks - begin)
        for top in range(0, rows, CHUNK):
            height = min(CHUNK, rows - top)
            _receive(x, which, counts, unit, first, tile, own, drive, top, height)
            at, neuron, column = 0, 0, begins  # of the layer: its parameters, its membranes in `u` and in `membranes`
            for layer in range(depth):
                width = widths[layer]
                n = width * lanes
                bias, leak, threshold = own[at : at + n], own[at + n : at + 2 * n], own[at + 2 * n : at + 3 * n]
                at += 3 * n
                if layer > 0:
                    weights = own[at : at + widths[layer - 1] * n]
                    at += len(weights)
                    _couple_rows(heard, weights, bias, drive, height, lanes)
                feedback = own[at : at + width * n] if recurrent[layer] else own[:0]
                at += len(feedback)
                state = u[neuron : neuron + n]
                neuron += n
                columns = slice(column + begin * width, column + (begin + inside) * width)
                column += subnetworks * width
                for r in range(height):
                    sequence, t = divmod(top + r, steps)
                    current = drive[r * n : (r + 1) * n]
                    if t == 0:
                        _take(membranes[sequence, columns], state, width, lanes)
                    if recurrent[layer]:
                        _fire(state, last_spikes[:n])
                        _couple(last_spikes[:n], feedback, current, fed[:n], lanes)
                        current = fed[:n]
                    fired = heard[r * n : (r + 1) * n]
                    firing = _step(current, leak, threshold, state, fired, layer < depth - 1)
                    active[layer, delays[sequence] + t] += firing
                    ended = t == steps - 1
                    if layer == depth - 1 and (ended or spikes.shape[1] == steps):
                        out = spikes[sequence, min(t, spikes.shape[1] - 1), begin * width : (begin + inside) * width]
                        _emit(state, out, width, lanes)
                    if ended:
                        _give(state, membranes[sequence, columns], width, lanes)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _receive(
    x: npt.NDArray[np.int32],
    which: npt.NDArray[np.int32],
    counts: Integers,
    unit: np.float32,
    first: npt.NDArray,
    tile: int,
    bias: Float,
    drive: Float,
    top: int,
    height: int,
) -> None:
    """The first layer's currents of the rows top .. top + height - 1: a panel's weights serve all of them in L1."""
    panels, groups = first.shape[1:3]
    n = panels * PANEL
    for panel in range(panels):
        weights, neuron = (tile * panels + panel) * groups, panel * PANEL
        for block in range(top // ROWS, -(-(top + height) // ROWS)):
            at = (block * ROWS - top) * n + neuron
            product(x, which, block * groups, counts[block], unit, first, weights, bias, neuron, drive, at, n)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _couple_rows(heard: Float, weights: Float, bias: Float, drive: Float, height: int, lanes: int) -> None:
    """The currents of a layer above the first, from the spikes below it."""
    n = len(bias)
    below = len(weights) // n * lanes
    for r in range(height):
        _couple(heard[r * below : (r + 1) * below], weights, bias, drive[r * n : (r + 1) * n], lanes)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _step(current: Float, leak: Float, threshold: Float, u: Float, spikes: Float, heard: bool) -> int:
    """One timestep of some neurons, and how many fired; `spikes` is written where they are heard.

    No fast-math here: each operation rounds. The arrays must not overlap, or the compiled loop takes one at a time.
    """
    fired = np.int32(0)
    for j in range(len(u)):
        before, theta = u[j], threshold[j]  # read whether needed or not: a masked load is slow
        after = ((leak[j] * before) + current[j]) - (theta if before >= 0 else np.float32(0))
        u[j] = after
        if heard:
            spikes[j] = np.float32(1) if after >= 0 else np.float32(0)
        fired = np.int32(fired + np.int32(after >= 0))  # 32 bits: as many lanes as the floats have
    return int(fired)


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _couple(heard: Float, weights: Float, base: Float, out: Float, lanes: int) -> None:
    """out[o] = base[o] + sum over i of heard[i] * weights[i, o], all of them vectors over the subnetworks.

    The sum is exact in any order; `base` joins it last, so that a bias off the grid rounds as in the reference.
    """
    fan_in, width = len(heard) // lanes, len(out) // lanes
    for o in range(width):
        total, start = out[o * lanes : (o + 1) * lanes], base[o * lanes : (o + 1) * lanes]
        for i in range(fan_in):
            spikes = heard[i * lanes : (i + 1) * lanes]
            weight = weights[(i * width + o) * lanes : (i * width + o + 1) * lanes]
            if i == 0:
                for p in range(lanes):
                    total[p] = spikes[p] * weight[p]
            else:
                for p in range(lanes):
                    total[p] += spikes[p] * weight[p]
        for p in range(lanes):
            total[p] += start[p]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _fire(u: Float, spikes: Float) -> None:
    for j in range(len(u)):
        spikes[j] = np.float32(1) if u[j] >= 0 else np.float32(0)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _take(source: Float, u: Float, width: int, lanes: int) -> None:
    """A sequence's membranes, subnetworks side by side, into `u`, subnetwork innermost; what fills a tile is silent."""
    for o in range(width):
        row = u[o * lanes : (o + 1) * lanes]
        row[:] = -1
        for p in range(len(source) // width):
            row[p] = source[p * width + o]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _give(u: Float, target: Float, width: int, lanes: int) -> None:
    """The way back."""
    for o in range(width):
        row = u[o * lanes : (o + 1) * lanes]
        for p in range(len(target) // width):
            target[p * width + o] = row[p]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _emit(u: Float, target: Bits, width: int, lanes: int) -> None:
    for o in range(width):
        row = u[o * lanes : (o + 1) * lanes]
        for p in range(len(target) // width):
            target[p * width + o] = row[p] >= 0

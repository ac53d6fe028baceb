"""The dynamics of `snn.lif` as one Triton kernel on CUDA: the same bits, with membranes in registers throughout.

A program takes ROWS sequences and LANES subnetworks (`snn.tiles`) through all timesteps and all layers. Per timestep:
currents of the first layer from the input, spikes of a layer into currents of the next, and a layer's own last spikes
through V, all without leaving the program. The loops over the neurons of a subnetwork are unrolled. A layer
of the trunk is a launch of its own, whose spikes at every timestep are the input of the next.

Bits. Within the exactness bound a current is the same number in any order, if nothing is shortened on the way:
`input_precision="ieee"` keeps tl.dot from rounding float32 to TF32's 10 bits. The membrane must round after each
operation: `enable_fp_fusion=False` keeps the compiler from contracting `leak * u + current` into one operation.

What has run: the kernel in Triton's interpreter, and its compilation to PTX for compute capability 8.0 and 9.0, which
`tests/snn/test_fused_gpu.py` repeats and reads for the two points above. No GPU has run it yet; on a machine that
has one the same tests do.
"""

from typing import Any, no_type_check

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from snn import network as networks
from snn import tiles
from snn.lif import RollOut, State, validate
from snn.lif import roll_out as reference
from snn.network import Layer, Network

ROWS = 16  # sequences of a program: the least that tl.dot takes
LANES = 32  # subnetworks of a program
FEATURES = 32  # multiplied at a time
TRUNK_SPIKES = 2**26  # of a layer of the trunk at a time: 256 MB, as the numbers that the layer above reads
LARGEST = 32  # neurons of a subnetwork: more membranes than this leave the registers and unroll for minutes


class Prepared(tuple[Layer, ...]):
    """A network on `device`, checked and laid out for the kernel once. Raises ValueError as `networks.validate`."""

    def __new__(cls, network: Network, device: torch.device) -> "Prepared":
        networks.validate(network)
        return super().__new__(cls, (_on(device, layer) for layer in network))

    def __init__(self, network: Network, device: torch.device) -> None:
        self.stages = [Stage(layers, device) for layers in networks.stages(tuple(self))]


class Stage:
    """What one launch of the kernel takes: a layer of the trunk, or the subnetworks (`networks.stages`)."""

    def __init__(self, layers: Network, device: torch.device) -> None:
        self.layers = layers
        self.subnetworks = networks.subnetworks(layers)
        self.widths = tuple(len(layer.bias) // max(self.subnetworks, 1) for layer in layers)
        self.recurrent = tuple(layer.recurrent is not None for layer in layers)
        self.fits = 0 < sum(self.widths) <= LARGEST
        if self.fits:
            self.first = torch.from_numpy(tiles.first_weights(layers, LANES)).to(device)
            self.parameters = torch.from_numpy(tiles.parameters(layers, LANES)).to(device)


def roll_out(inputs: Tensor, state: State, network: Network, every_step: bool = False) -> RollOut:
    """`snn.lif.roll_out` for tensors on a GPU; a network that is stepped often is `Prepared` once.

    Groups and subnetworks of more than LARGEST neurons go through the reference on the same device. Raises ValueError
    as the reference does; that inputs and weights lie within the exactness bound is the model's promise.
    """
    ready = network if isinstance(network, Prepared) else Prepared(network, inputs.device)
    validate(inputs, state, ready)
    widest = max((len(stage.layers[0].bias) for stage in ready.stages[:-1]), default=0)
    together = max(1, TRUNK_SPIKES // (inputs.shape[1] * widest)) if widest else max(1, len(inputs))
    parts = [
        _through_stages(
            inputs[begin : begin + together], [u[begin : begin + together] for u in state], ready, every_step
        )
        for begin in range(0, max(1, len(inputs)), together)
    ]
    if len(parts) == 1:
        return parts[0]
    spikes, states, waves = zip(*parts, strict=True)
    return RollOut(
        torch.cat(spikes),
        tuple(torch.cat(membranes) for membranes in zip(*states, strict=True)),
        tuple(torch.stack(active).sum(dim=0) for active in zip(*waves, strict=True)),
    )


def _through_stages(inputs: Tensor, state: list[Tensor], network: Prepared, every_step: bool) -> RollOut:
    heard, membranes, waves = inputs, iter(state), []
    after: list[Tensor] = []
    for stage in network.stages:
        own = tuple(next(membranes) for _ in stage.layers)
        result = _roll_out(heard, own, stage, every_step or stage is not network.stages[-1])
        heard = result.spikes.float()
        after += result.state
        waves += result.active
    return RollOut(result.spikes, tuple(after), tuple(waves))


def _roll_out(inputs: Tensor, state: State, stage: Stage, every_step: bool) -> RollOut:
    batch, steps, features = inputs.shape
    if not stage.fits or not batch:
        torch.backends.cuda.matmul.allow_tf32 = False
        return reference(inputs, state, stage.layers, every_step)
    x, membranes = inputs.contiguous(), torch.cat(state, dim=1)
    spikes = torch.empty(
        batch, steps if every_step else 1, len(stage.layers[-1].bias), dtype=torch.bool, device=x.device
    )
    active = torch.zeros(len(stage.layers), steps, dtype=torch.int64, device=x.device)
    grid = (len(stage.parameters), triton.cdiv(batch, ROWS))
    _kernel[grid](
        x,
        stage.first,
        stage.parameters,
        membranes,
        spikes,
        active,
        batch,
        steps,
        features,
        stage.subnetworks,
        membranes.shape[1],
        stage.parameters.shape[1],
        **constants(stage, every_step),
        enable_fp_fusion=False,
    )
    return RollOut(
        spikes if every_step else spikes[:, 0],
        torch.split(membranes, [len(layer.bias) for layer in stage.layers], dim=1),
        tuple(active),
    )


def _on(device: torch.device, layer: Layer) -> Layer:
    weights, bias, leak, threshold = (part.to(device) for part in layer[:4])
    return Layer(weights, bias, leak, threshold, None if layer.recurrent is None else layer.recurrent.to(device))


def constants(stage: Stage, every_step: bool) -> dict[str, Any]:
    """What the kernel is compiled for: for each layer its width, its first neuron in a subnetwork, and where in a
    tile's parameters it begins and its V begins, 0 where it has none; in numbers of `LANES`."""
    begins, feedback, at = [], [], 0
    for below, width, recurrent in zip((0, *stage.widths), stage.widths, stage.recurrent, strict=False):
        begins.append(at)
        at += (3 + below) * width
        feedback.append(at if recurrent else 0)
        at += width * width if recurrent else 0
    return {
        "WIDTHS": stage.widths,
        "NEURON": tuple(sum(stage.widths[:layer]) for layer in range(len(stage.widths))),
        "BEGIN": tuple(begins),
        "FEEDBACK": tuple(feedback),
        "EVERY_STEP": every_step,
        "R": ROWS,
        "N": LANES,
        "K": FEATURES,
    }


# ruff: noqa: RUF005 - Triton's language has no (*tuple, item)
@triton.jit  # type: ignore[misc]
@no_type_check
def _kernel(  # noqa: C901  (Triton unrolls loops; it has no functions that would share their tuples)
    x,  # [batch, steps, features]
    first,  # [tiles, features, w, N]
    parameters,  # [tiles, size], as `snn.tiles` lays them out
    membranes,  # [batch, neurons], changed in place
    spikes,  # [batch, 1 or steps, n]
    active,  # [depth, steps]
    batch,
    steps,
    features,
    subnetworks,
    neurons,
    size,
    WIDTHS: tl.constexpr,
    NEURON: tl.constexpr,
    BEGIN: tl.constexpr,
    FEEDBACK: tl.constexpr,
    EVERY_STEP: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    tile = tl.program_id(0)
    row = (tl.program_id(1) * R + tl.arange(0, R)).to(tl.int64)[:, None]
    lane = tl.arange(0, N)[None, :]
    p = tile * N + lane
    mine = (row < batch) & (p < subnetworks)
    own = parameters + tile.to(tl.int64) * size + lane
    k = tl.arange(0, K)
    DEPTH: tl.constexpr = len(WIDTHS)
    OUT: tl.constexpr = WIDTHS[DEPTH - 1]

    u = ()  # of every neuron of a subnetwork, each [R, N]
    column = 0
    for layer in tl.static_range(DEPTH):
        for o in tl.static_range(WIDTHS[layer]):
            at = row * neurons + column + p * WIDTHS[layer] + o
            u = u + (tl.load(membranes + at, mask=mine, other=-1.0),)
        column += subnetworks * WIDTHS[layer]

    for t in range(steps):
        after = ()
        heard = ()
        for layer in tl.static_range(DEPTH):
            fired = ()
            count = tl.zeros((R, N), tl.int32)
            for o in tl.static_range(WIDTHS[layer]):
                current = tl.zeros((R, N), tl.float32)
                if layer == 0:
                    for f in range(0, features, K):
                        at_x = (row * steps + t) * features + f + k[None, :]
                        values = tl.load(x + at_x, mask=(row < batch) & (f + k[None, :] < features), other=0.0)
                        at_w = ((tile.to(tl.int64) * features + f + k[:, None]) * WIDTHS[0] + o) * N + lane
                        weights = tl.load(first + at_w, mask=f + k[:, None] < features, other=0.0)
                        current = tl.dot(values, weights, current, input_precision="ieee")
                else:
                    for i in tl.static_range(WIDTHS[layer - 1]):
                        at_w = BEGIN[layer] + (3 + i) * WIDTHS[layer] + o
                        current += heard[i] * tl.load(own + at_w * N)
                current += tl.load(own + (BEGIN[layer] + o) * N)
                if FEEDBACK[layer] > 0:
                    fed = tl.zeros((R, N), tl.float32)
                    for i in tl.static_range(WIDTHS[layer]):
                        spike = (u[NEURON[layer] + i] >= 0).to(tl.float32)
                        fed += spike * tl.load(own + (FEEDBACK[layer] + i * WIDTHS[layer] + o) * N)
                    current += fed
                before = u[NEURON[layer] + o]
                leak = tl.load(own + (BEGIN[layer] + WIDTHS[layer] + o) * N)
                threshold = tl.load(own + (BEGIN[layer] + 2 * WIDTHS[layer] + o) * N)
                now = ((leak * before) + current) - tl.where(before >= 0, threshold, 0.0)
                after = after + (now,)
                fired = fired + ((now >= 0).to(tl.float32),)
                count += ((now >= 0) & mine).to(tl.int32)
            tl.atomic_add(active + layer * steps + t, tl.sum(count).to(tl.int64))
            heard = fired
        u = after
        if EVERY_STEP or t == steps - 1:
            slot = t if EVERY_STEP else 0
            for o in tl.static_range(OUT):
                at = (row * (steps if EVERY_STEP else 1) + slot) * subnetworks * OUT + p * OUT + o
                tl.store(spikes + at, heard[o] > 0, mask=mine)

    column = 0
    for layer in tl.static_range(DEPTH):
        for o in tl.static_range(WIDTHS[layer]):
            at = row * neurons + column + p * WIDTHS[layer] + o
            tl.store(membranes + at, u[NEURON[layer] + o], mask=mine)
        column += subnetworks * WIDTHS[layer]

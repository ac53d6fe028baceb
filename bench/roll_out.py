"""How long it takes to step LIF neurons through whole sequences: our kernel against other libraries, one core.

Measured: milliseconds for B sequences of T timesteps and m features through P neurons, forward only, to the spikes of
the last timestep. Inputs are random multiples of 1/256 (MNIST's rows would be four fifths zeros, which we skip; one
case has that share). Weights: the gaussian law.

Ours:
- kernel: `snn.fused.roll_out`, tensors in and out;
- engine: `snn.engine.advance`, what the Flink operator calls: bytes in, arrays out, conversion included.
Both also count active neurons at each timestep, which no peer does.

Peers, each as its users would run it fast: `torch.no_grad`, soft reset, inputs laid out [T, B, m] beforehand, the
product for all timesteps in one call, only the last spikes kept where the library lets one choose, and the batch cut
into pieces whose currents stay in the cache where that is faster (it mostly is); freed memory is kept for reuse:
- torch matmul: that product alone, no neuron stepped, as a floor for whoever computes it with BLAS;
- torch: the product, then ten lines of elementwise operations, the same bits as ours (checked);
- SpikingJelly: `LIFNode(step_mode="m")`, its multi-step implementation; on a CPU it has no other backend;
- snnTorch: `Leaky` called for each timestep; its parallel variants have no reset and are no LIF;
- Norse: `lif_box_feed_forward_step`, its LIF without synaptic current.
All but the matmul also through `torch.compile` (inductor, C++), which unrolls time into one pass; the time to compile,
10 to 30 s a shape, is not counted. In the sweeps the compiled ten lines stand for compiled peers.

Deeper networks are P subnetworks with two neurons in each hidden layer; the peers compute the block-diagonal products
for all timesteps in one expression, the fastest of five that were tried.
Peak memory is what a call adds to a process.
"""

import ctypes
import functools
import math
import os
import platform
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters, lif_box_feed_forward_step
from norse.torch.functional.reset import reset_subtract
from snntorch import Leaky
from spikingjelly.activation_based import functional, neuron
from torch import Tensor

from bench import harness
from bench.harness import Report
from snn import engine, fused, lif
from snn.model import InputSpec, parse_model
from snn.network import Layer, Network

LEAK, THRESHOLD = 0.9, 1.0
GRID = 256
WIDTH = 2  # neurons in each hidden layer of a subnetwork, where there is more than one layer
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
CACHE_BYTES = 8 * 2**20  # a piece's currents: below the last level's share of a core on servers and laptops alike
Call = Callable[[], list[Tensor]]  # last spikes, piece by piece
Currents = Callable[[Tensor], Tensor]


class Shape(NamedTuple):
    """Timesteps, batch, features, neurons of the last layer, layers, and the share of inputs that are zero."""

    T: int = 28
    B: int = 256
    m: int = 28
    P: int = 4096
    depth: int = 1
    zeros: float = 0.0

    def __str__(self) -> str:
        deep = f" depth={self.depth}" if self.depth > 1 else ""
        sparse = f" {self.zeros:.0%} zeros" if self.zeros else ""
        return f"T={self.T} B={self.B} m={self.m} P={self.P}{deep}{sparse}"


class Setting(NamedTuple):
    codes: np.ndarray  # [B, T, m]
    inputs: Tensor  # [B, T, m]
    timewise: Tensor  # [T, B, m]
    grid: InputSpec
    network: Network


HEADLINE = Shape()
SWEEPS = [
    *(Shape(P=width) for width in (256, 1024, 16384)),
    *(Shape(T=steps) for steps in (7, 112)),
    *(Shape(B=batch) for batch in (1, 16, 1024)),
    *(Shape(m=features) for features in (7, 112, 784)),
    *(Shape(P=1024, depth=depth) for depth in (2, 3)),
    Shape(zeros=0.8),
]
QUICK = Shape(T=7, B=16, m=8, P=64)
COMPILED_STEPS = 28  # unrolling more takes minutes to compile


def run(report: Report) -> None:
    torch.set_grad_enabled(False)
    _keep_freed_memory()
    runs, seconds = (3, 0.0) if report.quick else (7, 6.0)
    headline = QUICK if report.quick else HEADLINE
    setting = prepare(headline)
    peers = {**eager(setting), **({} if report.quick else compiled(setting))}
    measure(report, headline, setting, peers, runs, seconds)
    if not report.quick:
        memory(report, headline, setting, peers)
    for shape in [QUICK._replace(P=128), QUICK._replace(depth=2)] if report.quick else SWEEPS:
        setting = prepare(shape)
        peers = eager(setting)
        if shape.T <= COMPILED_STEPS and not report.quick:
            peers |= compiled(setting, only=("torch",))
        measure(report, shape, setting, peers, 3, seconds / 2)


def prepare(shape: Shape) -> Setting:
    draw = np.random.default_rng(0)
    codes = draw.integers(0, GRID, (shape.B, shape.T, shape.m), dtype=np.uint8)
    codes[draw.random(codes.shape) < shape.zeros] = 0
    spec = parse_model(
        {
            "model": "bench",
            "input": {"timesteps": shape.T, "features": shape.m},
            "witnesses": {
                "law": {"name": "gaussian", "leak": LEAK, "threshold": THRESHOLD},
                "count": shape.P * (WIDTH if shape.depth > 1 else 1),
            },
            "readout": {"loss": "multinomial", "outputs": 10},
        }
    )
    network = spec.network(range(spec.witnesses.count))
    for depth in range(1, shape.depth):
        network = (*network, _disjoint(shape.P, 1 if depth == shape.depth - 1 else WIDTH, draw))
    inputs = engine.to_inputs(codes, np.ones(len(codes), np.bool_), spec.input)
    return Setting(codes, inputs, inputs.transpose(0, 1).contiguous(), spec.input, network)


def _disjoint(subnetworks: int, width: int, draw: np.random.Generator) -> Layer:
    """A layer of subnetworks that hear their own `WIDTH` neurons below."""
    codes = draw.integers(-GRID, GRID, (subnetworks, WIDTH, width))
    every = torch.ones(subnetworks * width)
    weights = torch.from_numpy(codes.astype(np.float32) / GRID)
    return Layer(weights, bias=0 * every, leak=LEAK * every, threshold=THRESHOLD * every)


def measure(report: Report, shape: Shape, setting: Setting, peers: dict[str, Call], runs: int, seconds: float) -> None:
    ours = kernel(setting)
    # The same operations in the same order: a peer that computes something else is no peer.
    same = torch.equal(torch.cat(peers["torch"]()), ours().spikes)
    assert same, f"{shape}: plain torch gives other spikes than ours"
    taken, done = harness.interleaved({"kernel": ours, "engine": advance(setting), **peers}, runs, seconds)
    for own in ("kernel", "engine"):
        for peer in peers:
            report.add(str(shape), own, "ms", 1e3 * taken[own], runs=done, peer=peer, peer_value=1e3 * taken[peer])


def kernel(setting: Setting) -> Callable[[], lif.RollOut]:
    prepared, state = fused.Prepared(setting.network), lif.initial_state(setting.network, len(setting.inputs))
    return lambda: fused.roll_out(setting.inputs, state, prepared)


def advance(setting: Setting) -> Callable[[], object]:
    prepared = fused.Prepared(setting.network)
    membranes = np.tile(engine.resting(prepared), (len(setting.codes), 1))
    return lambda: engine.advance(setting.codes, 0, membranes, prepared, setting.grid)


def eager(setting: Setting) -> dict[str, Call]:
    """Every peer over the whole batch or in pieces, whichever is faster."""
    calls: dict[str, Call] = {}
    if len(setting.network) == 1:  # else it is no floor
        calls["torch matmul"] = _faster(lambda x: x @ setting.network[0].weights, setting)
    for name, library in LIBRARIES.items():
        calls[name] = _faster(functools.partial(_through, library, network=setting.network), setting)
    return calls


def compiled(setting: Setting, only: tuple[str, ...] | None = None) -> dict[str, Call]:
    """In pieces: compiled or not, it is memory that a whole batch waits for."""
    torch._dynamo.reset()
    calls: dict[str, Call] = {}
    for name in only or LIBRARIES:
        call = torch.compile(functools.partial(_through, LIBRARIES[name], network=setting.network), dynamic=False)
        calls[f"{name}, compiled"] = _in_pieces(call, setting, _piece(setting))
    return calls


def _faster(call: Callable[[Tensor], Tensor], setting: Setting) -> Call:
    ways = {size: _in_pieces(call, setting, size) for size in (len(setting.codes), _piece(setting))}
    seconds = harness.interleaved({str(size): way for size, way in ways.items()}, runs=3).seconds
    return min(ways.items(), key=lambda way: seconds[str(way[0])])[1]


def _in_pieces(call: Callable[[Tensor], Tensor], setting: Setting, size: int) -> Call:
    pieces = [piece.contiguous() for piece in torch.split(setting.timewise, size, dim=1)]
    return lambda: [call(piece) for piece in pieces]


def _piece(setting: Setting) -> int:
    """Sequences whose currents fit the cache together: the largest power of two."""
    steps, batch, _ = setting.timewise.shape
    fitting = max(1, CACHE_BYTES // (4 * steps * len(setting.network[0].bias)))
    return min(batch, 1 << int(math.log2(fitting)))


def _through(library: Callable[[Tensor, Layer, bool], Tensor], x: Tensor, network: Network) -> Tensor:
    """[B, P] last spikes. A layer's current comes from one product over all timesteps."""
    for depth, layer in enumerate(network):
        if depth == 0:
            current = x @ layer.weights
        else:
            grouped = x.view(*x.shape[:-1], *layer.weights.shape[:2])
            # Twice as fast as bmm, four times as einsum and (grouped * weights).sum(-1), thirty as grouped Conv1d.
            above = (grouped[..., i, None] * layer.weights[:, i] for i in range(WIDTH))
            current = functools.reduce(torch.add, above).flatten(-2)
        x = library(current, layer, depth == len(network) - 1)
    return x


def plain(current: Tensor, layer: Layer, last: bool) -> Tensor:
    u = (-layer.threshold).expand(current.shape[1:])
    spikes = []
    for drive in current:
        u = ((layer.leak * u) + (drive + layer.bias)) - torch.where(u >= 0, layer.threshold, 0)
        if not last:
            spikes.append((u >= 0).float())
    return u >= 0 if last else torch.stack(spikes)


def spikingjelly(current: Tensor, layer: Layer, last: bool) -> Tensor:
    spikes, _, _ = functional.lif_multi_step(  # what LIFNode(step_mode="m") calls, without its memory
        current, torch.zeros_like(current[0]), 1 / (1 - LEAK), False, THRESHOLD, None, JELLY_SURROGATE, True
    )
    return spikes[-1] if last else spikes


def snntorch(current: Tensor, layer: Layer, last: bool) -> Tensor:
    membrane, spikes = torch.zeros_like(current[0]), []
    for drive in current:
        spike, membrane = LEAKY(drive, membrane)
        spikes.append(spike)
    return spikes[-1] if last else torch.stack(spikes)


def norse(current: Tensor, layer: Layer, last: bool) -> Tensor:
    state, spikes = LIFBoxFeedForwardState(v=torch.zeros_like(current[0])), []
    for drive in current:
        spike, state = lif_box_feed_forward_step(drive, state, BOX, dt=1.0)
        spikes.append(spike)
    return spikes[-1] if last else torch.stack(spikes)


LEAKY = Leaky(beta=LEAK, threshold=THRESHOLD)
BOX = LIFBoxParameters(
    tau_mem_inv=torch.tensor(1 - LEAK),
    v_th=torch.tensor((1 - LEAK) * THRESHOLD),  # it scales its input by 1 - leak
    reset_method=reset_subtract,
)
JELLY_SURROGATE = neuron.LIFNode().surrogate_function
LIBRARIES: dict[str, Callable[[Tensor, Layer, bool], Tensor]] = {
    "torch": plain,
    "SpikingJelly": spikingjelly,
    "snnTorch": snntorch,
    "Norse": norse,
}


def memory(report: Report, shape: Shape, setting: Setting, peers: dict[str, Call]) -> None:
    ours = peak(kernel(setting))
    for name, call in peers.items():
        report.add(str(shape), "peak memory", "MB", ours / 1e6, peer=name, peer_value=peak(call) / 1e6)


def peak(call: Callable[[], object]) -> int:
    """Bytes by which a call raises the peak of a process that has warmed up already: a fork of this one."""
    harness.trim()  # what lies free here would hide what the call takes there
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        before = harness.highest()
        call()
        os.write(writer, str(harness.highest() - before).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        return max(int(answer.read() or 0), 1)


def _keep_freed_memory() -> None:
    """Blocks up to 32 MB stay with the process when they are freed: else glibc returns them, and peers, which allocate
    what they compute, spend most of their time on page faults. jemalloc or tcmalloc would do the same."""
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(M_TRIM_THRESHOLD, 2**30)


if __name__ == "__main__":
    harness.main("roll_out", run, cores=1)

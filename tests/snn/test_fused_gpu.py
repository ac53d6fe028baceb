"""The Triton kernel gives the reference's bits: on a GPU where there is one, else in Triton's interpreter, which must
be chosen before the kernel is imported, so that this file runs itself in a process of its own. And it compiles."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn import lif
from snn.lif import RollOut
from snn.network import Layer
from tests.snn.cases import Case, assert_same_bits, cases

triton = pytest.importorskip("triton", reason="torch brings it on Linux alone")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from snn import fused_gpu  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
needs_a_device = pytest.mark.skipif(not (INTERPRETED or torch.cuda.is_available()), reason="runs in the interpreter")
needs_the_compiler = pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")


def on_cpu(result: RollOut) -> RollOut:
    return RollOut(result.spikes.cpu(), *(tuple(part.cpu() for part in parts) for parts in result[1:]))


@needs_a_device
@settings(max_examples=12, deadline=None)
@given(cases(steps=5), st.booleans())
def test_gpu_gives_the_bits_of_the_reference(case: Case, every_step: bool) -> None:
    inputs, network = case
    state = lif.initial_state(network, len(inputs))
    expected = lif.roll_out(inputs, state, network, every_step)
    there = tuple(u.to(DEVICE) for u in state)
    ready = fused_gpu.Prepared(network, DEVICE)
    assert_same_bits(on_cpu(fused_gpu.roll_out(inputs.to(DEVICE), there, ready, every_step)), expected)


@needs_a_device
def test_many_features_and_many_tiles() -> None:
    n, m = 70, 75
    weights = torch.randint(-9, 10, (m, n)) / 8
    network = (Layer(weights, torch.zeros(n), torch.full((n,), 0.9), torch.ones(n)),)
    inputs = torch.randint(0, 9, (33, 3, m)) / 8
    state = lif.initial_state(network, 33)
    got = fused_gpu.roll_out(inputs.to(DEVICE), tuple(u.to(DEVICE) for u in state), network)
    assert_same_bits(on_cpu(got), lif.roll_out(inputs, state, network))


@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="the tests above run here")
def test_the_kernel_runs_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def assembly(network: tuple[Layer, ...], every_step: bool, capability: int) -> str:
    constants = fused_gpu.constants(fused_gpu.Stage(network, torch.device("cpu")), every_step)
    pointers = dict.fromkeys(("x", "first", "parameters", "membranes"), "*fp32") | {"spikes": "*i1", "active": "*i64"}
    names = fused_gpu._kernel.arg_names
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=fused_gpu._kernel, signature=signature, constexprs=values)
    compiled = triton.compile(source, GPUTarget("cuda", capability, 32), {"enable_fp_fusion": False})
    return compiled.asm["ptx"]


def networks() -> Iterator[tuple[Layer, ...]]:
    for widths, recurrent in (([1], False), ([2, 3, 1], True)):
        layers, below = [], 9
        for number, width in enumerate(widths):
            n = 40 * width
            weights = torch.zeros(40, below, width) if number else torch.zeros(below, n)
            neuron = torch.zeros(n), torch.ones(n), torch.ones(n)
            layers.append(Layer(weights, *neuron, torch.zeros(40, width, width) if recurrent else None))
            below = width
        yield tuple(layers)


@needs_the_compiler
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("every_step", [False, True])
def test_compiled_it_keeps_float32_and_contracts_nothing_but_the_product(capability: int, every_step: bool) -> None:
    """The product has so many multiply-adds a thread (ROWS * FEATURES * LANES over 128 threads) for each neuron of a
    subnetwork that reads the input; one more would be a membrane's."""
    for network in networks():
        code = assembly(network, every_step, capability)
        assert "tf32" not in code
        assert ".ftz" not in code
        neurons = len(network[0].bias) // 40
        a_thread = fused_gpu.ROWS * fused_gpu.FEATURES * fused_gpu.LANES // 128
        assert code.count("fma.rn.f32") == neurons * a_thread
        assert code.count("mul.f32") + code.count("mul.rn.f32") > 0

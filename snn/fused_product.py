"""The inner loop of `snn.fused`: a block of input rows times a panel of weights, with every sum in a register.

    out[r, j] = bias[j] + unit * sum over kept groups g and features i of g of  x[g, r, i] * W[which[g], j, i]

for ROWS rows r and PANEL neurons j. A compiler that vectorises loops keeps no matrix of sums in registers, and the
loads and stores of the sums then cost more than the multiplications; so this loop is written as vectors of LLVM's
language, which any processor's back end lowers to its own. Whole numbers go in pairs: 16-bit products added two and
two into 32 bits are one instruction on x86 (pmaddwd), twice a float's rate, and nothing can overflow within the
exactness bound. Floats contract to fused multiply-add, exact for the same reason.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8  # numbers in a vector: 32 bytes, one AVX2 register
VECTORS = 2
PANEL = VECTORS * LANES  # neurons
ROWS = 6  # with 2 vectors, 12 sums and 4 operands fill the 16 registers of AVX2

_FLOAT, _INT16, _INT32, _INT64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLOATS = ir.VectorType(_FLOAT, LANES)
_FLOAT_BYTES = 4  # all the alignment that numpy promises


@intrinsic  # type: ignore[misc]
def product(
    context: Any,
    x: Any,
    which: Any,
    block: Any,
    count: Any,
    unit: Any,
    weights: Any,
    panel: Any,
    bias: Any,
    neuron: Any,
    out: Any,
    at: Any,
    row: Any,
) -> Any:
    """Arrays and where to start in them: x and which [block ...], weights [panel ...], counted in groups; bias
    [neuron ...], out [at ...], with `row` numbers from one of its rows to the next. `count` groups are kept. x holds
    32 bits for a group, as the weights' type tells: two int16 or a float32."""
    whole = weights.dtype == types.int16
    number = _INT32 if whole else _FLOAT  # an element: a pair of int16, or a float32
    vector = ir.VectorType(number, LANES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, which, block, count, unit, weights, panel, bias, neuron, out, at, row = arguments

        def start(position: int, value: Any, element: Any, offset: Any) -> Any:
            data = context.make_array(signature.args[position])(context, builder, value).data
            return builder.gep(builder.bitcast(data, element.as_pointer()), [offset])

        def times(value: Any, factor: int) -> Any:
            return builder.mul(value, _INT64(factor))

        x = start(0, x, number, times(block, ROWS))
        which = start(1, which, _INT32, block)
        weights = start(5, weights, number, times(panel, PANEL))
        bias = start(7, bias, _FLOAT, neuron)
        out = start(9, out, _FLOAT, at)
        lanes = [_INT64(v * LANES) for v in range(VECTORS)]
        sums = [[cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in lanes] for _ in range(ROWS)]
        with cgutils.for_range(builder, count) as loop:
            group = builder.sext(builder.load(builder.gep(which, [loop.index])), _INT64)
            columns = [_load(builder, weights, builder.add(times(group, PANEL), lane), vector) for lane in lanes]
            for r, of_row in enumerate(sums):
                at_x = builder.add(times(loop.index, ROWS), _INT64(r))
                value = _splat(builder, builder.load(builder.gep(x, [at_x])))
                for total, column in zip(of_row, columns, strict=True):
                    builder.store(_multiply_add(builder, builder.load(total), value, column), total)
        factor = _splat(builder, unit)  # a power of two: its product is exact, so contraction rounds the same
        offsets = [_load(builder, bias, lane, _FLOATS) for lane in lanes]
        for r, of_row in enumerate(sums):
            for total, offset, lane in zip(of_row, offsets, lanes, strict=True):
                current = _multiply_add(builder, offset, _as_floats(builder, builder.load(total)), factor)
                target = builder.gep(out, [builder.add(builder.mul(row, _INT64(r)), lane)])
                builder.store(current, builder.bitcast(target, _FLOATS.as_pointer()), align=_FLOAT_BYTES)
        return context.get_dummy_value()

    size = types.int64
    return types.void(x, which, size, size, types.float32, weights, size, bias, size, out, size, size), generate


def _load(builder: Any, pointer: Any, offset: Any, vector: Any) -> Any:
    return builder.load(builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer()), align=_FLOAT_BYTES)


def _splat(builder: Any, value: Any) -> Any:
    """A vector of one number."""
    kind = ir.VectorType(value.type, LANES)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _INT32(0))
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES))


def _multiply_add(builder: Any, total: Any, a: Any, b: Any) -> Any:
    """total + a * b for floats; for pairs of int16 both products, a form that back ends know as one instruction."""
    if total.type == _FLOATS:
        return builder.fadd(total, builder.fmul(a, b, flags=("contract",)), flags=("contract",))
    halves, wide = ir.VectorType(_INT16, 2 * LANES), ir.VectorType(_INT32, 2 * LANES)
    both = builder.mul(*(builder.sext(builder.bitcast(side, halves), wide) for side in (a, b)))
    sides = (ir.Constant(total.type, list(range(side, 2 * LANES, 2))) for side in (0, 1))
    return builder.add(total, builder.add(*(builder.shuffle_vector(both, both, side) for side in sides)))


def _as_floats(builder: Any, total: Any) -> Any:
    return total if total.type == _FLOATS else builder.sitofp(total, _FLOATS)

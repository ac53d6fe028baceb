"""Vectors as numbers of a compiled function: `LANES` float32, or as many int32, in one register.

A compiler that vectorises loops has to prove, at every call, that arrays do not overlap; over the short rows of
`snn.fused` the proof costs more than the work. Operators are LLVM's, without fast-math: each one rounds.
"""

import operator
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 8  # 32 bytes, one AVX2 register

FLOATS = ir.VectorType(ir.FloatType(), LANES)
INTS = ir.VectorType(ir.IntType(32), LANES)
ALIGN = 4  # bytes: all that numpy promises


class Vector(types.Type):  # type: ignore[misc]
    """What numba calls a vector; `element` is what an array of its numbers holds."""

    def __init__(self, element: Any, llvm: Any) -> None:
        self.element, self.llvm = element, llvm
        super().__init__(name=f"Vector({element})")


floats, ints = Vector(types.float32, FLOATS), Vector(types.int32, INTS)


@register_model(Vector)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.llvm)


def pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any, element: Any) -> Any:
    """To number `at` of a contiguous array, seen as an array of `element`."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(builder.bitcast(data, element.as_pointer()), [at])


@intrinsic  # type: ignore[misc]
def load(context: Any, array: Any, at: Any) -> Any:
    """The vector that begins at number `at` of a contiguous array."""
    kind = {types.float32: floats, types.int32: ints}[array.dtype]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = pointer(context, builder, signature.args[0], *arguments, kind.llvm.element)
        return builder.load(builder.bitcast(source, kind.llvm.as_pointer()), align=ALIGN)

    return kind(array, types.int64), generate


@intrinsic  # type: ignore[misc]
def store(context: Any, array: Any, at: Any, vector: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, at, value = arguments
        target = pointer(context, builder, signature.args[0], array, at, vector.llvm.element)
        builder.store(value, builder.bitcast(target, vector.llvm.as_pointer()), align=ALIGN)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), generate


@intrinsic  # type: ignore[misc]
def store_bits(context: Any, array: Any, at: Any, heard: Any) -> Any:
    """Spikes, 1 or 0, as numpy keeps booleans."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, at, value = arguments
        byte = ir.IntType(8)
        few = ir.VectorType(byte, LANES)
        target = pointer(context, builder, signature.args[0], array, at, byte)
        value = builder.trunc(builder.fptosi(value, INTS), few)
        builder.store(value, builder.bitcast(target, few.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, floats), generate


@intrinsic  # type: ignore[misc]
def fires(context: Any, u: Any) -> Any:
    """-1 where u >= 0, else 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sext(builder.fcmp_ordered(">=", arguments[0], ir.Constant(FLOATS, None)), INTS)

    return ints(floats), generate


@intrinsic  # type: ignore[misc]
def where(context: Any, spikes: Any, value: Any) -> Any:
    """`value`, a vector, where `spikes` is -1, and 0 where it is 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        spikes, value = arguments
        return builder.bitcast(builder.and_(spikes, builder.bitcast(value, INTS)), FLOATS)

    return floats(ints, floats), generate


@intrinsic  # type: ignore[misc]
def splat(context: Any, number: Any) -> Any:
    """A vector of one float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return broadcast(builder, arguments[0])

    return floats(types.float32), generate


def broadcast(builder: Any, value: Any) -> Any:
    kind = ir.VectorType(value.type, LANES)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(single, single, ir.Constant(INTS, [0] * LANES))


def _operator(function: Any, kind: Vector, instruction: str) -> None:
    @infer_global(function)
    class _Typed(ConcreteTemplate):  # type: ignore[misc]
        cases = [signature(kind, kind, kind)]  # noqa: RUF012

    @lower_builtin(function, kind, kind)  # type: ignore[misc]
    def _lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(*arguments)


_operator(operator.add, floats, "fadd")
_operator(operator.sub, floats, "fsub")
_operator(operator.mul, floats, "fmul")
_operator(operator.add, ints, "add")
_operator(operator.sub, ints, "sub")

# SPDX-License-Identifier: Apache-2.0
"""A vector of neighbouring samples as a numba type, so that kernels are SIMD by construction.

LLVM's loop vectoriser gives up on kernels that touch many rows of one buffer at run-time offsets,
because it cannot rule out that they overlap. Values of this type are LLVM vectors from the start:
a kernel is written for one sample and runs on all lanes.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

from .jit import jit

# Samples per vector: one AVX-512 register in float32, two in float64, twice that with AVX2.
LANES = 16

# No nnan, ninf or reassoc: NaN must stay visible, and reducing a sine's argument needs its order.
_FLAGS = ("contract", "nsz", "arcp")


class Lanes(types.Type):
    """The same quantity of several samples; `truth` marks the outcome of a comparison."""

    def __init__(self, dtype: types.Float, truth: bool = False) -> None:
        self.dtype = dtype
        self.truth = truth
        super().__init__(f"Lanes({dtype}, truth={truth})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes: Lanes) -> None:
        element = ir.IntType(1) if lanes.truth else manager.lookup(lanes.dtype).get_value_type()
        super().__init__(manager, lanes, ir.VectorType(element, LANES))


def splat(builder, vector: ir.VectorType, scalar):
    """A vector that holds the scalar in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, zeros)


def _splat(context, builder, lanes: Lanes, value_type: types.Type, value):
    if isinstance(value_type, Lanes):
        return value
    scalar = context.cast(builder, value, value_type, lanes.dtype)
    return splat(builder, context.get_value_type(lanes), scalar)


def _pair(args) -> Lanes | None:
    """The lanes type of a mixed pair of lanes and real numbers."""
    lanes = [a for a in args if isinstance(a, Lanes)]
    if len(args) != 2 or not lanes or lanes[0].truth or lanes[0] != lanes[-1]:
        return None
    if any(not isinstance(a, (Lanes, types.Float, types.Integer)) for a in args):
        return None
    return lanes[0]


def _define_binary(operation, emit, truth: bool) -> None:
    @infer_global(operation)
    class _Typing(AbstractTemplate):
        def generic(self, args, kws):
            lanes = None if kws else _pair(args)
            if lanes is not None:
                return Lanes(lanes.dtype, truth)(*args) if truth else lanes(*args)

    def lower(context, builder, signature, args):
        lanes = _pair(signature.args)
        a, b = (
            _splat(context, builder, lanes, t, v) for t, v in zip(signature.args, args, strict=True)
        )
        return emit(builder, a, b)

    for left, right in ((Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)):
        lower_builtin(operation, left, right)(lower)


for _operations, _name in (
    ((operator.add, operator.iadd), "fadd"),
    ((operator.sub, operator.isub), "fsub"),
    ((operator.mul, operator.imul), "fmul"),
    ((operator.truediv, operator.itruediv), "fdiv"),
):
    for _operation in _operations:
        _define_binary(
            _operation, lambda b, x, y, n=_name: getattr(b, n)(x, y, flags=_FLAGS), False
        )
for _symbol, _operation in (
    ("<", operator.lt),
    ("<=", operator.le),
    (">", operator.gt),
    (">=", operator.ge),
):
    _define_binary(_operation, lambda b, x, y, s=_symbol: b.fcmp_ordered(s, x, y), True)


def _define_logic(operation, emit) -> None:
    @infer_global(operation)
    class _Typing(AbstractTemplate):
        def generic(self, args, kws):
            if (
                len(args) == 2
                and all(isinstance(a, Lanes) and a.truth for a in args)
                and args[0] == args[1]
            ):
                return args[0](*args)

    @lower_builtin(operation, Lanes, Lanes)
    def lower(context, builder, signature, args):
        return emit(builder, *args)


_define_logic(operator.and_, lambda b, x, y: b.and_(x, y))
_define_logic(operator.or_, lambda b, x, y: b.or_(x, y))


def _address(context, builder, array_type, array, slot):
    data = context.make_array(array_type)(context, builder, array).data
    width = ir.Constant(slot.type, LANES)
    pointer = builder.gep(data, [builder.mul(slot, width)])
    vector = context.get_value_type(Lanes(array_type.dtype))
    return builder.bitcast(pointer, vector.as_pointer()), array_type.dtype.bitwidth // 8


@intrinsic
def load(typing, array, slot):
    """The lanes of row `slot` of a flat buffer."""

    def lower(context, builder, signature, args):
        pointer, align = _address(context, builder, signature.args[0], *args)
        return builder.load(pointer, align=align)

    return Lanes(array.dtype)(array, types.intp), lower


@intrinsic
def store(typing, array, slot, value):
    """Write lanes, or one number for all lanes, to row `slot` of a flat buffer."""

    def lower(context, builder, signature, args):
        lanes = Lanes(signature.args[0].dtype)
        pointer, align = _address(context, builder, signature.args[0], *args[:2])
        builder.store(
            _splat(context, builder, lanes, signature.args[2], args[2]), pointer, align=align
        )
        return context.get_dummy_value()

    return types.void(array, types.intp, value), lower


def _define_function(name: str):
    @intrinsic
    def function(typing, value):
        def lower(context, builder, signature, args):
            vector = context.get_value_type(signature.return_type)
            callee = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(vector, [vector]),
                f"llvm.{name}.v{LANES}f{value.dtype.bitwidth}",
            )
            return builder.call(callee, args)

        return value(value), lower

    return function


floor = _define_function("floor")
square_root = _define_function("sqrt")
absolute = _define_function("fabs")


@intrinsic
def select(typing, condition, yes, no):
    """Lane by lane `yes` where the condition holds, else `no`."""

    def lower(context, builder, signature, args):
        lanes = signature.return_type
        a, b = (
            _splat(context, builder, lanes, t, v)
            for t, v in zip(signature.args[1:], args[1:], strict=True)
        )
        return builder.select(args[0], a, b)

    return Lanes(condition.dtype)(condition, yes, no), lower


@intrinsic
def any_lane(typing, condition):
    """Whether a condition holds in at least one lane."""

    def lower(context, builder, signature, args):
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(condition), lower


@jit
def load3(work, row):
    """The lanes of three successive rows."""
    return load(work, row), load(work, row + 1), load(work, row + 2)


@jit
def store3(work, row, a, b, c):
    """Write lanes, or one number for all lanes each, to three successive rows."""
    store(work, row, a)
    store(work, row + 1, b)
    store(work, row + 2, c)

# SPDX-License-Identifier: Apache-2.0
"""Products of rows of features with weights, in pieces that fit the registers of a CPU.

Weights are packed block by block, each block (inputs, `BLOCK` outputs), so that one pass over a
block reads memory in order. With rows in float32 they are float32, or float16, which a checkpoint
has and a CPU widens for nothing. With rows in bfloat16 they are bfloat16, and two neighbouring
inputs of an output lie side by side. Numbers of 16 bits come as integers, for numba has no floats
of that size.
"""

from __future__ import annotations

from llvmlite import binding, ir
from numba.core import cgutils, config, types
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from .simd import LANES, splat

_CPU = config.CPU_FEATURES if config.CPU_FEATURES is not None else get_host_cpu_features()
FEATURES = frozenset(_CPU.split(","))
# Whether the CPU widens float16 by itself; without that, LLVM calls a library for each number.
WIDENS_HALF = "+f16c" in FEATURES
MULTIPLIES_BFLOAT16 = "+avx512bf16" in FEATURES
# AMD does so twice as fast as float32, Intel half as fast.
BFLOAT16_IS_FASTER = MULTIPLIES_BFLOAT16 and binding.get_host_cpu_name().startswith("znver")
# Vectors of outputs and rows that a product holds in registers: 16 of AVX-512's 32, or 8 of 16.
_VECTORS, ROWS = (2, 8) if "+avx512f" in FEATURES else (1, 4)
BLOCK = _VECTORS * LANES
WIDE = ir.VectorType(ir.FloatType(), LANES)
_WHOLE = ir.VectorType(ir.IntType(32), LANES)


def call(builder, name: str, result: ir.Type, *arguments):
    """Call a function of LLVM."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _make_product(rows: int, blocks: int):
    """y[r, o] = bias[o] (+ y[r, o]) + sum_k x[r, k] w[k, o] for some rows and blocks of outputs.

    Every sum is taken in the order of k, so that results do not depend on what is done at once.
    """
    vectors = blocks * _VECTORS

    @intrinsic
    def product(typing, w, w_at, x, x_at, inputs, y, y_at, outputs, bias, bias_at, add):
        pairs = x.dtype != types.float32
        if pairs:
            stored = _WHOLE
        else:
            stored = ir.VectorType(ir.HalfType(), LANES) if w.dtype == types.uint16 else WIDE
        step = 2 if pairs else 1  # inputs that one instruction takes

        def lower(context, builder, signature, args):
            _, w_at, _, x_at, inputs, _, y_at, outputs, _, bias_at, add = args
            w_data, x_data, y_data, bias_data = (
                context.make_array(signature.args[i])(context, builder, args[i]).data
                for i in (0, 2, 5, 8)
            )

            def moved(index, *factors):
                """index + the product of the factors."""
                distance = inputs.type(1)
                for factor in factors:
                    factor = inputs.type(factor) if isinstance(factor, int) else factor
                    distance = builder.mul(distance, factor)
                return builder.add(index, distance)

            def read(data, index, kind, align):
                pointer = builder.bitcast(builder.gep(data, [index]), kind.as_pointer())
                return builder.load(pointer, align=align)

            def weights_at(k):
                for v in range(vectors):
                    block, vector = divmod(v, _VECTORS)
                    place = moved(moved(w_at, inputs, block, BLOCK), k, BLOCK)
                    value = read(
                        w_data, moved(place, vector, LANES * step), stored, w.dtype.bitwidth // 8
                    )
                    yield builder.fpext(value, WIDE) if stored.element == ir.HalfType() else value

            def added(total, weight, factor):
                if pairs:
                    name = "llvm.x86.avx512bf16.dpbf16ps.512"
                    return call(builder, name, WIDE, total, weight, factor)
                return call(builder, f"llvm.fmuladd.v{LANES}f32", WIDE, weight, factor, total)

            # From nothing on, for each addition is rounded as the larger number is.
            sums = [
                [cgutils.alloca_once_value(builder, WIDE([0.0] * LANES)) for _ in range(vectors)]
                for _ in range(rows)
            ]
            zero, stride = inputs.type(0), inputs.type(step)
            with cgutils.for_range_slice(builder, zero, inputs, stride) as (k, _):
                weights = list(weights_at(k))
                for r in range(rows):
                    place = builder.add(moved(x_at, inputs, r), k)
                    kind = stored.element if pairs else ir.FloatType()
                    factor = read(x_data, place, kind, x.dtype.bitwidth // 8)
                    factor = splat(builder, ir.VectorType(kind, LANES), factor)
                    for total, weight in zip(sums[r], weights, strict=True):
                        builder.store(added(builder.load(total), weight, factor), total)
            for v in range(vectors):
                start = read(bias_data, moved(bias_at, v, LANES), WIDE, 4)
                for r in range(rows):
                    place = builder.gep(y_data, [moved(moved(y_at, outputs, r), v, LANES)])
                    place = builder.bitcast(place, WIDE.as_pointer())
                    # Chosen, for what lies in y may be NaN where nothing is added to it.
                    before = builder.fadd(start, builder.load(place, align=4))
                    before = builder.select(add, before, start)
                    total = builder.fadd(before, builder.load(sums[r][v]))
                    builder.store(total, place, align=4)
            return context.get_dummy_value()

        return types.void(
            w, types.intp, x, types.intp, types.intp, y, types.intp, types.intp, bias, types.intp,
            types.boolean,
        ), lower  # fmt: skip

    return product


product_of_rows = _make_product(ROWS, 1)  # `ROWS` rows and one block
product_of_one_row = _make_product(1, 2)  # one row and two blocks


@intrinsic
def write(typing, array, slot, value):
    """Store lanes in row `slot` of a flat buffer of float32, or rounded in one of bfloat16."""

    def lower(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.gep(data, [builder.mul(args[1], args[1].type(LANES))])
        lanes = args[2]
        if array.dtype != types.float32:
            kind = ir.VectorType(ir.IntType(16), LANES)
            lanes = call(builder, "llvm.x86.avx512bf16.cvtneps2bf16.512", kind, lanes)
        pointer = builder.bitcast(pointer, lanes.type.as_pointer())
        builder.store(lanes, pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), lower

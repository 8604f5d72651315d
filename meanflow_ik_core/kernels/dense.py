# SPDX-License-Identifier: Apache-2.0
"""Linear layers, normalisation and activations of rows of features, for one thread.

A row is one sample, pose or token; its features lie side by side, padded with zeros to a multiple
of `PADDING`. Weights are packed block by block, each block (inputs, `BLOCK` outputs), so that one
pass over a block reads memory in order. They are float16, as a checkpoint's are, where the CPU
widens those for nothing; else float32.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, config, types
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, register_jitable

from .simd import LANES, floor, load, select, splat, store

_jit = njit(nogil=True, error_model="numpy")
# A sum in any order, so that it becomes one of vectors.
_any_order_jit = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})

_CPU = config.CPU_FEATURES if config.CPU_FEATURES is not None else get_host_cpu_features()
_FEATURES = _CPU.split(",")
# Whether the CPU converts float16 by itself; without that, LLVM calls a library for each number.
WIDENS_HALF = "+f16c" in _FEATURES
# Vectors of outputs and rows that a product holds in registers: 16 of AVX-512's 32, or 8 of 16.
_VECTORS, ROWS = (2, 8) if "+avx512f" in _FEATURES else (1, 4)
BLOCK = _VECTORS * LANES
PADDING = 2 * BLOCK


def _make_product(rows: int, blocks: int):
    """y[r, o] = bias[o] (+ y[r, o]) + sum_k x[r, k] w[k, o] for some rows and blocks of outputs.

    Every sum is taken in the order of k, so that results do not depend on what is done at once.
    """
    vectors = blocks * _VECTORS

    @intrinsic
    def product(typing, w, w_at, x, x_at, inputs, y, y_at, outputs, bias, bias_at, add):
        def lower(context, builder, signature, args):
            wide = ir.VectorType(ir.FloatType(), LANES)
            stored = ir.VectorType(ir.HalfType(), LANES) if w.dtype == types.uint16 else wide
            _, w_at, _, x_at, inputs, _, y_at, outputs, _, bias_at, add = args
            w_data, x_data, y_data, bias_data = (
                context.make_array(signature.args[i])(context, builder, args[i]).data
                for i in (0, 2, 5, 8)
            )

            def moved(index, *steps):
                """index + the product of the steps."""
                step = inputs.type(1)
                for factor in steps:
                    factor = inputs.type(factor) if isinstance(factor, int) else factor
                    step = builder.mul(step, factor)
                return builder.add(index, step)

            def vector_at(data, index, kind=wide):
                return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())

            sums = [
                [cgutils.alloca_once(builder, wide) for _ in range(vectors)] for _ in range(rows)
            ]
            places = [
                [
                    vector_at(y_data, moved(moved(y_at, outputs, r), v, LANES))
                    for v in range(vectors)
                ]
                for r in range(rows)
            ]
            for v in range(vectors):
                place = vector_at(bias_data, moved(bias_at, v, LANES))
                start = builder.load(place, align=4)
                for r in range(rows):
                    before = builder.fadd(start, builder.load(places[r][v], align=4))
                    # chosen, for what lies in y may be NaN where nothing is added to it
                    builder.store(builder.select(add, before, start), sums[r][v])
            fused = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(wide, [wide] * 3), f"llvm.fmuladd.v{LANES}f32"
            )
            with cgutils.for_range(builder, inputs) as loop:
                weights = []
                for v in range(vectors):
                    block, vector = divmod(v, _VECTORS)
                    place = moved(moved(w_at, inputs, block, BLOCK), loop.index, BLOCK)
                    place = vector_at(w_data, moved(place, vector, LANES), stored)
                    value = builder.load(place, align=w.dtype.bitwidth // 8)
                    weights.append(value if stored is wide else builder.fpext(value, wide))
                for r in range(rows):
                    place = builder.gep(x_data, [builder.add(moved(x_at, inputs, r), loop.index)])
                    factor = splat(builder, wide, builder.load(place))
                    for total, weight in zip(sums[r], weights, strict=True):
                        value = builder.call(fused, [weight, factor, builder.load(total)])
                        builder.store(value, total)
            for r in range(rows):
                for total, place in zip(sums[r], places[r], strict=True):
                    builder.store(builder.load(total), place, align=4)
            return context.get_dummy_value()

        return types.void(
            w, types.intp, x, types.intp, types.intp, y, types.intp, types.intp, bias, types.intp,
            types.boolean,
        ), lower  # fmt: skip

    return product


# Up to so many rows the weights are read for each row anew; more are padded to `ROWS`.
_FEW = ROWS // 2
_product_of_rows = _make_product(ROWS, 1)
_product_of_one_row = _make_product(1, 2)


@register_jitable
def padded(width):
    """Features of a row as it lies in memory, of ``width`` features that it holds."""
    return (width + PADDING - 1) // PADDING * PADDING


@_jit
def dense(w, bias, x, inputs, y, outputs, rows):
    """y (rows, outputs) = x (rows, inputs) w^T + bias; the weights and biases of what comes next.

    Many rows are done `ROWS` at a time, so that x and y must have room for a multiple of that.
    ``outputs`` is a multiple of `PADDING`, or of `BLOCK` for many rows.
    """
    # a boolean of run time, for numba compiles each function anew for each literal
    return _dense(w, bias, x, inputs, y, outputs, rows, rows < 0)


@_jit
def add_dense(w, bias, x, inputs, y, outputs, rows):
    """As `dense`, added to what y holds."""
    return _dense(w, bias, x, inputs, y, outputs, rows, rows >= 0)


@_jit
def _dense(w, bias, x, inputs, y, outputs, rows, add):
    if rows <= _FEW:
        for r in range(rows):
            for o in range(0, outputs, PADDING):
                _product_of_one_row(
                    w, o * inputs, x, r * inputs, inputs, y, r * outputs + o, outputs, bias, o, add
                )
    else:
        for o in range(0, outputs, BLOCK):
            for r in range(0, rows, ROWS):
                _product_of_rows(
                    w, o * inputs, x, r * inputs, inputs, y, r * outputs + o, outputs, bias, o, add
                )
    return w[inputs * outputs :], bias[outputs:]


@intrinsic
def _total(typing, value):
    """Sum of the lanes."""

    def lower(context, builder, signature, args):
        single = ir.FloatType()
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(single, [single, args[0].type]),
            f"llvm.vector.reduce.fadd.v{LANES}f32",
        )
        return builder.call(function, [ir.Constant(single, -0.0), args[0]], fastmath=("reassoc",))

    return types.float32(value), lower


@intrinsic
def _power_of_two(typing, exponent):
    """2^n of whole n in [-126, 127]."""

    def lower(context, builder, signature, args):
        whole = ir.VectorType(ir.IntType(32), LANES)
        bits = builder.add(builder.fptosi(args[0], whole), ir.Constant(whole, [127] * LANES))
        bits = builder.shl(bits, ir.Constant(whole, [23] * LANES))
        return builder.bitcast(bits, args[0].type)

    return exponent(exponent), lower


@_jit
def _silu(x):
    """x / (1 + exp(-x)); exp by a polynomial of degree 6 on [-1/2, 1/2] for powers of two."""
    t = x * -1.4426950408889634
    t = select(t > 126.0, 126.0, t)
    t = select(t < -126.0, -126.0, t)
    n = floor(t + 0.5)
    f = t - n
    p = f * 1.5403530393381608e-4 + 1.3333558146428443e-3
    p = p * f + 9.618129107628477e-3
    p = p * f + 5.550410866482158e-2
    p = p * f + 2.402265069591007e-1
    p = p * f + 6.931471805599453e-1
    p = p * f + 1.0
    return x / (p * _power_of_two(n) + 1.0)


@_jit
def silu(x, y, count):
    """y = silu(x) of ``count`` numbers, a multiple of `LANES`; y may be x."""
    for i in range(count // LANES):
        store(y, i, _silu(load(x, i)))


@_jit
def _moments(x, at, width, vectors):
    """Mean and inverse deviation of a row that begins at vector ``at`` and is padded with zeros."""
    total = load(x, at)
    for i in range(1, vectors):
        total += load(x, at + i)
    mean = _total(total) / np.float32(width)
    away = load(x, at) - mean
    total = away * away
    for i in range(1, vectors):
        away = load(x, at + i) - mean
        total += away * away
    padding = np.float32(vectors * LANES - width)
    variance = (_total(total) - padding * mean * mean) / np.float32(width)
    return mean, np.float32(1.0) / np.sqrt(variance + np.float32(1e-5))


@_jit
def normalise(x, y, rows, width):
    """y = layer_norm(x), row by row; padding becomes anything."""
    vectors = padded(width) // LANES
    for r in range(rows):
        at = r * vectors
        mean, scale = _moments(x, at, width, vectors)
        for i in range(at, at + vectors):
            store(y, i, (load(x, i) - mean) * scale)


@_jit
def normalise_modulated(x, y, row, width, modulation, scale_at):
    """One row of y = layer_norm(x) * scale + shift, with the shift behind the scale."""
    vectors = padded(width) // LANES
    at, scales = row * vectors, scale_at // LANES
    mean, scale = _moments(x, at, width, vectors)
    for i in range(vectors):
        normed = (load(x, at + i) - mean) * scale
        store(
            y,
            at + i,
            normed * load(modulation, scales + i) + load(modulation, scales + vectors + i),
        )


@_any_order_jit
def dot(a, a_at, b, b_at, count):
    """Scalar product of two runs of numbers."""
    total = np.float32(0)
    for i in range(count):
        total += a[a_at + i] * b[b_at + i]
    return total

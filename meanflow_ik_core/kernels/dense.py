# SPDX-License-Identifier: Apache-2.0
"""Linear layers, normalisation and activations of rows of features, for one thread.

A row is one sample, pose or token; its features lie side by side, padded with zeros to a multiple
of `PADDING`. Rows that only a product reads may be bfloat16, see `products`.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from .jit import jit
from .products import BLOCK, ROWS, product_of_one_row, product_of_rows, write
from .simd import LANES, floor, load, select

# A sum in any order, so that it becomes one of vectors.
_any_order_jit = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})

PADDING = 2 * BLOCK
# Rows of a buffer come in multiples of this.
ROOM = 16
# Up to so many rows the weights are read for each row anew; more are done `ROWS` at a time.
_FEW = ROWS // 2


@register_jitable
def padded(width):
    """Features of a row as it lies in memory, of ``width`` features that it holds."""
    return (width + PADDING - 1) // PADDING * PADDING


@jit
def dense(w, bias, x, inputs, y, outputs, rows):
    """y (rows, outputs) = x (rows, inputs) w^T + bias; the weights and biases of what comes next.

    x and y must have room for a multiple of `ROOM` rows. ``outputs`` is a multiple of `PADDING`.
    """
    _multiply(w, bias, x, inputs, y, outputs, rows, False)
    return w[inputs * outputs :], bias[outputs:]


@jit
def add_dense(w, bias, x, inputs, y, outputs, rows):
    """As `dense`, added to what y holds."""
    _multiply(w, bias, x, inputs, y, outputs, rows, True)
    return w[inputs * outputs :], bias[outputs:]


@jit
def _multiply(w, bias, x, inputs, y, outputs, rows, add):
    if rows <= _FEW:
        for r in range(rows):
            for o in range(0, outputs, PADDING):
                product_of_one_row(
                    w, o * inputs, x, r * inputs, inputs, y, r * outputs + o, outputs, bias, o, add
                )
    else:
        for o in range(0, outputs, BLOCK):
            for r in range(0, rows, ROWS):
                product_of_rows(
                    w, o * inputs, x, r * inputs, inputs, y, r * outputs + o, outputs, bias, o, add
                )


@intrinsic
def _total(typing, value):
    """Sum of the lanes."""

    def lower(context, builder, signature, args):
        single = ir.FloatType()
        kind = ir.FunctionType(single, [single, args[0].type])
        name = f"llvm.vector.reduce.fadd.v{LANES}f32"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [single(-0.0), args[0]], fastmath=("reassoc",))

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


@jit
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


@jit
def silu(x, y, count):
    """y = silu(x) of ``count`` numbers, a multiple of `LANES`; y may be x."""
    for i in range(count // LANES):
        write(y, i, _silu(load(x, i)))


@jit
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


@jit
def normalise(x, y, rows, width):
    """y = layer_norm(x), row by row; padding becomes anything."""
    vectors = padded(width) // LANES
    for r in range(rows):
        at = r * vectors
        mean, scale = _moments(x, at, width, vectors)
        for i in range(at, at + vectors):
            write(y, i, (load(x, i) - mean) * scale)


@jit
def normalise_modulated(x, y, row, width, modulation, scale_at):
    """One row of y = layer_norm(x) * scale + shift, with the shift behind the scale."""
    vectors = padded(width) // LANES
    at, scales = row * vectors, scale_at // LANES
    mean, scale = _moments(x, at, width, vectors)
    for i in range(vectors):
        normed = (load(x, at + i) - mean) * scale * load(modulation, scales + i)
        write(y, at + i, normed + load(modulation, scales + vectors + i))


@_any_order_jit
def dot(a, a_at, b, b_at, count):
    """Scalar product of two runs of numbers."""
    total = np.float32(0)
    for i in range(count):
        total += a[a_at + i] * b[b_at + i]
    return total

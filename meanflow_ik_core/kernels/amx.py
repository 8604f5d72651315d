# SPDX-License-Identifier: Apache-2.0
"""Products in bfloat16 by AMX, the matrix unit of Intel's servers since 2023.

A tile register holds 16 rows of 64 bytes. Those of the results begin with what lies in memory;
rows of features and blocks of weights, packed as in `products`, are the factors. Linux lends the
registers to a process that asks, and a thread has them from `take_tiles` to `return_tiles`.
"""

from __future__ import annotations

import ctypes
import functools
import sys

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .products import BLOCK, FEATURES, call

TILE = 16  # rows of a tile
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18
_BYTE = ir.IntType(8)
# The type of the 16 bits of a bfloat16 says which products are meant.
TILED = types.int16
_INSTRUCTIONS = "llvm.x86."


@functools.cache
def tiles_allowed() -> bool:
    """Whether this CPU has AMX for bfloat16 and the kernel lends it to this process."""
    if sys.platform != "linux" or not {"+amx-bf16", "+amx-tile", "+avx512bf16"} <= FEATURES:
        return False
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0


def _on_tiles(builder, name: str, tiles, *more) -> None:
    call(builder, f"{_INSTRUCTIONS}{name}", ir.VoidType(), *map(_BYTE, tiles), *more)


@intrinsic
def take_tiles(typing, weights):
    """Configure all tiles as 16 rows of 64 bytes, if weights of this type are multiplied so."""

    def lower(context, builder, signature, args):
        if weights.dtype == TILED:
            # Palette 1, nothing in 15 bytes, bytes of a row of 16 tiles, rows of 16 tiles.
            layout = [1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[TILE] * 8, *[0] * 8]
            data = ir.Constant(ir.ArrayType(_BYTE, 64), list(map(_BYTE, layout)))
            place = cgutils.global_constant(builder, "tiles", data)
            _on_tiles(builder, "ldtilecfg", [], builder.bitcast(place, _BYTE.as_pointer()))
        return context.get_dummy_value()

    return types.void(weights), lower


@intrinsic
def return_tiles(typing, weights):
    """End what `take_tiles` began."""

    def lower(context, builder, signature, args):
        if weights.dtype == TILED:
            _on_tiles(builder, "tilerelease", [])
        return context.get_dummy_value()

    return types.void(weights), lower


@intrinsic
def product_of_tiles(typing, w, w_at, x, x_at, inputs, y, y_at, outputs, start, start_at, step):
    """y[r, o] = start[r step + o] + sum_k x[r, k] w[k, o] for 16 rows and two blocks of outputs."""

    def lower(context, builder, signature, args):
        _, w_at, _, x_at, inputs, _, y_at, outputs, _, start_at, step = args
        w_data, x_data, y_data, start_data = (
            context.make_array(signature.args[i])(context, builder, args[i]).data
            for i in (0, 2, 5, 8)
        )

        def times(*factors):
            product = inputs.type(1)
            for factor in factors:
                factor = inputs.type(factor) if isinstance(factor, int) else factor
                product = builder.mul(product, factor)
            return product

        def on(name, tile, data, index, distance):
            pointer = builder.bitcast(builder.gep(data, [index]), _BYTE.as_pointer())
            _on_tiles(builder, name, [tile], pointer, distance)

        for v in range(4):
            on("tileloadd64", v, start_data, builder.add(start_at, times(v, TILE)), times(step, 4))
        begin, stride = inputs.type(0), inputs.type(2 * TILE)
        with cgutils.for_range_slice(builder, begin, inputs, stride) as (k, _):
            on("tileloadd64", 4, x_data, builder.add(x_at, k), times(inputs, 2))
            for v in range(4):
                block, vector = divmod(v, 2)
                place = builder.add(times(inputs, block, BLOCK), times(k, BLOCK))
                place = builder.add(builder.add(w_at, place), times(vector, 2 * TILE))
                on("tileloadd64", 5 + v % 3, w_data, place, times(4 * BLOCK))
                _on_tiles(builder, "tdpbf16ps", [v, 4, 5 + v % 3])
        for v in range(4):
            on("tilestored64", v, y_data, builder.add(y_at, times(v, TILE)), times(outputs, 4))
        return context.get_dummy_value()

    return types.void(
        w, types.intp, x, types.intp, types.intp, y, types.intp, types.intp, start, types.intp,
        types.intp,
    ), lower  # fmt: skip

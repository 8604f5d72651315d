# SPDX-License-Identifier: Apache-2.0
"""The products by AMX, on a CPU that has none: its instructions are played by Python."""

import ctypes

import llvmlite.binding
import numpy as np
import pytest
from numba import njit

from meanflow_ik_core.kernels import amx
from meanflow_ik_core.kernels.dense import PADDING, add_dense, dense
from meanflow_ik_core.kernels.products import BLOCK, MULTIPLIES_BFLOAT16

# On a CPU with AMX the tests of the network go through it.
pytestmark = pytest.mark.skipif(
    amx.tiles_allowed() or not MULTIPLIES_BFLOAT16, reason="the CPU has AMX, or no AVX-512"
)


class Tiles:
    """Eight tile registers of 16 rows of 64 bytes, as Intel's manual describes them."""

    def __init__(self):
        self.tiles = np.zeros((8, 16, 64), np.uint8)
        self.configured = False

    def ldtilecfg(self, place):
        layout = np.ctypeslib.as_array((ctypes.c_uint8 * 64).from_address(place))
        palette, rows, row_bytes = layout[0], layout[48:64], layout[16:48].view(np.uint16)
        assert palette == 1 and not layout[1:16].any()
        assert (rows[:8] == 16).all() and (row_bytes[:8] == 64).all()
        assert not rows[8:].any() and not row_bytes[8:].any()
        self.configured = True

    def tilerelease(self):
        self.configured = False

    def tileloadd64(self, tile, place, stride):
        assert self.configured
        for row in range(16):
            line = (ctypes.c_uint8 * 64).from_address(place + row * stride)
            self.tiles[tile, row] = np.ctypeslib.as_array(line)

    def tilestored64(self, tile, place, stride):
        assert self.configured
        for row in range(16):
            ctypes.memmove(place + row * stride, self.tiles[tile, row].tobytes(), 64)

    def tdpbf16ps(self, total, left, right):
        a, b = (floats(self.tiles[tile].view(np.uint16)) for tile in (left, right))
        pairs = b.reshape(16, 16, 2).transpose(0, 2, 1).reshape(32, 16)
        self.tiles[total] = (self.tiles[total].view(np.float32) + a @ pairs).view(np.uint8)


def floats(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


@pytest.fixture(scope="module")
def played():
    """The instructions, in functions that compiled code can call."""
    tiles = Tiles()
    byte, place, number = ctypes.c_uint8, ctypes.c_void_p, ctypes.c_int64
    kinds = {
        "ldtilecfg": (place,), "tilerelease": (), "tileloadd64": (byte, place, number),
        "tilestored64": (byte, place, number), "tdpbf16ps": (byte, byte, byte),
    }  # fmt: skip
    functions = {
        name: ctypes.CFUNCTYPE(None, *kind)(getattr(tiles, name)) for name, kind in kinds.items()
    }
    for name, function in functions.items():
        address = ctypes.cast(function, ctypes.c_void_p).value
        llvmlite.binding.add_symbol(f"played_{name}", address)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amx, "_INSTRUCTIONS", "played_")
        yield tiles, functions


@njit
def layer(add, w, bias, x, inputs, y, outputs, rows):
    amx.take_tiles(w)
    if add:
        add_dense(w, bias, x, inputs, y, outputs, rows)
    else:
        dense(w, bias, x, inputs, y, outputs, rows)
    amx.return_tiles(w)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("rows", [1, 16, 37])
def test_tiles_multiply_rows_with_packed_weights(played, rows, add):
    rng = np.random.default_rng(0)
    inputs, outputs, room = 2 * PADDING, 3 * PADDING, -(-rows // 16) * 16
    w, x = (
        (rng.normal(size=shape).astype(np.float32).view(np.uint32) >> 16).astype(np.int16)
        for shape in ((outputs, inputs), (room, inputs))
    )
    packed = w.reshape(-1, BLOCK, inputs // 2, 2).transpose(0, 2, 1, 3)
    bias = rng.normal(size=outputs).astype(np.float32)
    y = rng.normal(size=(room, outputs)).astype(np.float32)
    expected = floats(x.view(np.uint16)) @ floats(w.view(np.uint16)).T + bias
    if add:
        expected += y
    flat = y.ravel()
    layer(add, packed.ravel(), bias, x.ravel(), inputs, flat, outputs, rows)
    assert not played[0].configured
    np.testing.assert_allclose(flat.reshape(y.shape)[:rows], expected[:rows], atol=1e-4)

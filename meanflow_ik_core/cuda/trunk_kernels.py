# SPDX-License-Identifier: Apache-2.0
"""The residual trunk of a network as two Triton kernels: forward, and backward to all but the
noise.

A program has BM rows, the samples of BM / N poses, and keeps their residual stream in registers
from the first block to the last. Shapes, with R rows, P = R / N poses, H wide, D deep, J joints and
JP = J padded to what a product of tiles takes:

    z (R, J) noise, m (P, (1 + 2 D) H) modulations: the context's part of the input, then scale and
    shift of each block; w (2 D, H, H) and b (2 D, H) weights and biases of the blocks, both layers
    of each in turn; wz (H, J), wo (J, H), bo (J) input and output layers; x (R, J) = z - u.
    saved (D + 1, R, H): input of each block, and the last output, in the type DT of the products,
    where R is a multiple of BM.
"""

from __future__ import annotations

from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:  # the trainer says so where the kernels are asked for
    triton: Any = None
    tl: Any = None


def _compiled(kernel: Any) -> Any:
    return kernel if triton is None else triton.jit(kernel)


@_compiled
def trunk_forward(
    z_ptr, m_ptr, w_ptr, b_ptr, wz_ptr, wo_ptr, bo_ptr, x_ptr, saved_ptr, rows, N,
    J: tl.constexpr, JP: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
    BM: tl.constexpr, DT: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    known = row < rows
    row = tl.minimum(row, rows - 1)
    n = tl.arange(0, H)
    m_at = (row // N)[:, None] * ((1 + 2 * D) * H) + n[None, :]
    w_at = n[:, None] * H + n[None, :]
    saved_at = row[:, None] * H + n[None, :]
    h = tl.load(m_ptr + m_at)
    for k in tl.static_range(J):
        h += tl.load(z_ptr + row * J + k)[:, None] * tl.load(wz_ptr + n * J + k)[None, :]
    for block in tl.range(D, num_stages=1):
        if SAVE:
            tl.store(saved_ptr + block * rows * H + saved_at, h.to(DT))
        centred = h - (tl.sum(h, 1) / H)[:, None]
        inverse = 1 / tl.sqrt(tl.sum(centred * centred, 1) / H + 1e-5)
        scale = tl.load(m_ptr + (1 + 2 * block) * H + m_at)
        shift = tl.load(m_ptr + (2 + 2 * block) * H + m_at)
        a = centred * inverse[:, None] * (1 + scale) + shift
        first = tl.load(w_ptr + 2 * block * H * H + w_at)
        y = tl.dot(a.to(DT), tl.trans(first)) + tl.load(b_ptr + 2 * block * H + n)[None, :]
        g = y * tl.sigmoid(y)
        second = tl.load(w_ptr + (2 * block + 1) * H * H + w_at)
        h += tl.dot(g.to(DT), tl.trans(second))
        h += tl.load(b_ptr + (2 * block + 1) * H + n)[None, :]
    if SAVE:
        tl.store(saved_ptr + D * rows * H + saved_at, h.to(DT))
    j = tl.arange(0, JP)
    wo = tl.load(wo_ptr + j[:, None] * H + n[None, :], mask=j[:, None] < J, other=0.0)
    u = tl.dot(h * tl.sigmoid(h), tl.trans(wo))
    u += tl.load(bo_ptr + j, mask=j < J, other=0.0)[None, :]
    x_at = row[:, None] * J + j[None, :]
    z = tl.load(z_ptr + x_at, mask=j[None, :] < J, other=0.0)
    tl.store(x_ptr + x_at, z - u, mask=known[:, None] & (j[None, :] < J))


# From d_x (R, J) to d_m, and to the factors of the weights' gradients, d_out and in (2 D, R, H):
# gradients at outputs of layers, and inputs of layers. part (R / BM, 2 D + 1 + J + JP, H) has
# each program's sums for b (2 D rows), bo (in the first JP entries of one row), wz by columns
# (J rows), and wo (JP rows).
@_compiled
def trunk_backward(
    z_ptr, m_ptr, w_ptr, b_ptr, wo_ptr, saved_ptr, d_x_ptr, d_m_ptr, d_out_ptr, in_ptr, part_ptr,
    rows,
    J: tl.constexpr, JP: tl.constexpr, N: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
    BM: tl.constexpr, DT: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    row = program * BM + tl.arange(0, BM)
    pose = program * (BM // N) + tl.arange(0, BM // N)
    n = tl.arange(0, H)
    j = tl.arange(0, JP)
    m_at = (row // N)[:, None] * ((1 + 2 * D) * H) + n[None, :]
    d_m_at = pose[:, None] * ((1 + 2 * D) * H) + n[None, :]
    part_at = part_ptr + program * (2 * D + 1 + J + JP) * H
    w_at = n[:, None] * H + n[None, :]
    row_at = row[:, None] * H + n[None, :]
    h = tl.load(saved_ptr + D * rows * H + row_at).to(tl.float32)
    d_u = -tl.load(d_x_ptr + row[:, None] * J + j[None, :], mask=j[None, :] < J, other=0.0)
    wo = tl.load(wo_ptr + j[:, None] * H + n[None, :], mask=j[:, None] < J, other=0.0)
    s = tl.sigmoid(h)
    d_wo = tl.dot(tl.trans(d_u.to(DT)), (h * s).to(DT))
    tl.store(part_at + (2 * D + 1 + J + j[:, None]) * H + n[None, :], d_wo)
    tl.store(part_at + 2 * D * H + j, tl.sum(d_u, 0))
    d_h = tl.dot(d_u.to(DT), wo.to(DT)) * s * (1 + h * (1 - s))
    for step in tl.range(D, num_stages=1):
        block = D - 1 - step
        h = tl.load(saved_ptr + block * rows * H + row_at).to(tl.float32)
        mean = tl.sum(h, 1) / H
        centred = h - mean[:, None]
        inverse = 1 / tl.sqrt(tl.sum(centred * centred, 1) / H + 1e-5)
        scale = tl.load(m_ptr + (1 + 2 * block) * H + m_at) + 1
        shift = tl.load(m_ptr + (2 + 2 * block) * H + m_at)
        a = (centred * inverse[:, None] * scale + shift).to(DT)
        tl.store(in_ptr + 2 * block * rows * H + row_at, a)
        first = tl.load(w_ptr + 2 * block * H * H + w_at)
        y = tl.dot(a, tl.trans(first)) + tl.load(b_ptr + 2 * block * H + n)[None, :]
        s = tl.sigmoid(y)
        tl.store(in_ptr + (2 * block + 1) * rows * H + row_at, (y * s).to(DT))
        d_second = d_h.to(DT)
        tl.store(d_out_ptr + (2 * block + 1) * rows * H + row_at, d_second)
        tl.store(part_at + (2 * block + 1) * H + n, tl.sum(d_h, 0))
        second = tl.load(w_ptr + (2 * block + 1) * H * H + w_at)
        d_y = tl.dot(d_second, second) * s * (1 + y * (1 - s))
        tl.store(part_at + 2 * block * H + n, tl.sum(d_y, 0))
        d_first = d_y.to(DT)
        tl.store(d_out_ptr + 2 * block * rows * H + row_at, d_first)
        d_a = tl.dot(d_first, first)
        # The normed input and the scale are read again: registers are what is short here.
        h = tl.load(saved_ptr + block * rows * H + row_at).to(tl.float32)
        normed = (h - mean[:, None]) * inverse[:, None]
        d_shift = tl.sum(tl.reshape(d_a, (BM // N, N, H)), 1)
        d_scale = tl.sum(tl.reshape(d_a * normed, (BM // N, N, H)), 1)
        tl.store(d_m_ptr + (2 + 2 * block) * H + d_m_at, d_shift)
        tl.store(d_m_ptr + (1 + 2 * block) * H + d_m_at, d_scale)
        d_a = d_a * (tl.load(m_ptr + (1 + 2 * block) * H + m_at) + 1)
        along = (tl.sum(d_a, 1) / H)[:, None] + normed * (tl.sum(d_a * normed, 1) / H)[:, None]
        d_h += inverse[:, None] * (d_a - along)
    tl.store(d_m_ptr + d_m_at, tl.sum(tl.reshape(d_h, (BM // N, N, H)), 1))
    for k in tl.static_range(J):
        z = tl.load(z_ptr + row * J + k)
        tl.store(part_at + (2 * D + 1 + k) * H + n, tl.sum(d_h * z[:, None], 0))

# SPDX-License-Identifier: Apache-2.0
"""Noise and target poses become normalised joints: the one-step call of the networks, compiled.

x0_hat = x1 - u(x1, 0, 1, targets), with the layers of `network.model` and `network.token_model`.
A pass turns some poses into modulations (the context), and then their samples, some rows at a
time, into joints (the trunk).
"""

import functools

import numpy as np
from numba import types
from numba.extending import register_jitable

from .dense import ROOM, add_dense, dense, dot, normalise, normalise_modulated, padded, silu
from .jit import cached_jit, jit

# Numbers of `sizes`.
(
    JOINTS, TIPS, HIDDEN, DEPTH, CONTEXT, CONTEXT_DEPTH, TOKEN, TOKEN_DEPTH, HEADS,
) = range(9)  # fmt: skip
POSE = 12  # position, rotation matrix by rows
# Poses and samples whose numbers stay in the caches.
_POSES, _SAMPLES = 16, 64


@register_jitable
def _room(rows):
    """Rows of a buffer for `dense`."""
    return (rows + ROOM - 1) // ROOM * ROOM


@jit
def _piece(work, at, rows, width):
    """The next rows of the work buffer, and where they end."""
    end = at + _room(rows) * width
    return work[at:end], end


@register_jitable
def _modulations(sizes):
    """Numbers that the context gives one pose: input, then scale and shift of every block."""
    return (1 + 2 * sizes[DEPTH]) * padded(sizes[HIDDEN])


@register_jitable
def work_sizes(sizes):
    """Numbers in the work buffers of `_one_step`, ``work`` and ``inputs``."""
    context, token, hidden = padded(sizes[CONTEXT]), padded(sizes[TOKEN]), padded(sizes[HIDDEN])
    size = _room(_POSES) * (POSE * sizes[TIPS] + 3 * context + _modulations(sizes))
    size += _room(_POSES * sizes[TIPS]) * (
        2 * token + padded(3 * sizes[TOKEN]) + padded(2 * sizes[TOKEN])
    ) + sizes[TIPS] * (token + 1)
    size += _room(_SAMPLES) * (sizes[JOINTS] + 2 * hidden + padded(sizes[JOINTS]))
    return size, _room(_SAMPLES) * hidden


@jit
def _write_features(poses, given, scale, features):
    """Position / scale and rotation of every tip, zeros for what is not given."""
    at = 0
    for p in range(poses.shape[0]):
        for t in range(poses.shape[1]):
            T = poses[p, t]
            for i in range(3):
                features[at + i] = T[i, 3] / scale if given[t, 0] else 0.0
                for j in range(3):
                    features[at + 3 + 3 * i + j] = T[i, j] if given[t, 1] else 0.0
            at += POSE


@jit
def _attend(heads, mixed, scores, poses, sizes):
    """Values (rows, D), mixed by the softmax of query . key among the tips of a pose."""
    tips, width, count = sizes[TIPS], sizes[TOKEN], sizes[HEADS]
    row, out_row, head = padded(3 * width), padded(width), width // count
    scale = np.float32(1.0) / np.sqrt(np.float32(head))
    for first in range(0, poses * tips, tips):
        for begin in range(0, width, head):
            for i in range(first, first + tips):
                largest = np.float32(-np.inf)
                for j in range(tips):
                    key = (first + j) * row + width + begin
                    scores[j] = dot(heads, i * row + begin, heads, key, head) * scale
                    largest = max(largest, scores[j])
                total = np.float32(0)
                for j in range(tips):
                    scores[j] = np.exp(scores[j] - largest)
                    total += scores[j]
                out = i * out_row + begin
                for k in range(head):
                    mixed[out + k] = 0
                for j in range(tips):
                    share = scores[j] / total
                    value = (first + j) * row + 2 * width + begin
                    for k in range(head):
                        mixed[out + k] += share * heads[value + k]


@jit
def _encode_tokens(features, c, poses, given, sizes, w, b, work):
    """The context's input (poses, C) by a transformer over the tips; where its weights end."""
    tips, width = sizes[TIPS], sizes[TOKEN]
    own, thrice, twice = padded(width), padded(3 * width), padded(2 * width)
    tokens, at = _piece(work, 0, poses * tips, own)
    normed, at = _piece(work, at, poses * tips, own)
    heads, at = _piece(work, at, poses * tips, thrice)
    hidden, at = _piece(work, at, poses * tips, twice)
    token_bias, scores = work[at : at + tips * own], work[at + tips * own : at + tips * (own + 1)]
    rows = poses * tips
    for i in range(tips * own):
        # Which tip the token is of, and what stands for a position or an orientation left out.
        token_bias[i] = b[i]
        for part in range(2):
            if not given[i // own, part]:
                token_bias[i] += b[(1 + part) * tips * own + i]
    b = b[3 * tips * own :]
    w, _ = dense(w, token_bias, features, POSE * tips, tokens, tips * own, poses)
    for _ in range(sizes[TOKEN_DEPTH]):
        normalise(tokens, normed, rows, width)
        w, b = dense(w, b, normed, own, heads, thrice, rows)
        _attend(heads, normed, scores, poses, sizes)
        w, b = add_dense(w, b, normed, own, tokens, own, rows)
        normalise(tokens, normed, rows, width)
        w, b = dense(w, b, normed, own, hidden, twice, rows)
        silu(hidden, hidden, rows * twice)
        w, b = add_dense(w, b, hidden, twice, tokens, own, rows)
    return dense(w, b, tokens, tips * own, c, padded(sizes[CONTEXT]), poses)


@jit
def _make_context(poses, given, sizes, scale, w, b, modulations, work):
    """Modulations (poses, M) of target poses."""
    count, width = poses.shape[0], padded(sizes[CONTEXT])
    features, at = _piece(work, 0, count, POSE * sizes[TIPS])
    c, at = _piece(work, at, count, width)
    x, at = _piece(work, at, count, width)
    y, at = _piece(work, at, count, width)
    _write_features(poses, given, scale, features)
    if sizes[TOKEN] > 0:
        w, b = _encode_tokens(features, x, count, given, sizes, w, b, work[at:])
    else:
        w, b = dense(w, b, features, POSE * sizes[TIPS], x, width, count)
    silu(x, x, count * width)
    w, b = dense(w, b, x, width, c, width, count)
    silu(c, c, count * width)
    for _ in range(sizes[CONTEXT_DEPTH]):
        normalise(c, x, count, sizes[CONTEXT])
        w, b = dense(w, b, x, width, y, width, count)
        silu(y, y, count * width)
        w, b = add_dense(w, b, y, width, c, width, count)
    dense(w, b, c, width, modulations, _modulations(sizes), count)


@jit
def _denoise(
    noise, x0_hat, first, per_pose, sizes, edges, blocks, b, modulations, work, x
):  # fmt: skip
    """Rows of noise from ``first`` on become rows of x0_hat, each by its pose's modulations."""
    joints, hidden, rows = sizes[JOINTS], padded(sizes[HIDDEN]), noise.shape[0]
    outputs, stride = padded(joints), _modulations(sizes)
    z, at = _piece(work, 0, rows, joints)
    h, at = _piece(work, at, rows, hidden)
    y, at = _piece(work, at, rows, hidden)
    u, at = _piece(work, at, rows, outputs)
    for i in range(rows):
        for j in range(joints):
            z[i * joints + j] = noise[i, j]
        own = (first + i) // per_pose * stride
        for j in range(hidden):
            h[i * hidden + j] = modulations[own + j]
    edges, b = add_dense(edges, b, z, joints, h, hidden, rows)
    for block in range(sizes[DEPTH]):
        for i in range(rows):
            scale = (first + i) // per_pose * stride + (1 + 2 * block) * hidden
            normalise_modulated(h, x, i, sizes[HIDDEN], modulations, scale)
        blocks, b = dense(blocks, b, x, hidden, y, hidden, rows)
        silu(y, x, rows * hidden)
        blocks, b = add_dense(blocks, b, x, hidden, h, hidden, rows)
    silu(h, y, rows * hidden)
    dense(edges, b, y, hidden, u, outputs, rows)
    for i in range(rows):
        for j in range(joints):
            x0_hat[i, j] = noise[i, j] - u[i * outputs + j]


def _one_step(
    noise, per_pose, poses, given, sizes, scale, context, context_biases, edges, blocks,
    trunk_biases, work, inputs, x0_hat,
):  # fmt: skip
    """x0_hat (B N, J) of noise (B N, J), N rows per pose of (B, T, 4, 4), of which (T, 2) count.

    The weights are those of the context; of the first and the last layer of the trunk; and of its
    blocks, which have the type of ``inputs``, their work buffer.
    """
    for first in range(0, poses.shape[0], _POSES):
        targets = poses[first : first + _POSES]
        modulations, at = _piece(work, 0, targets.shape[0], _modulations(sizes))
        rest = work[at:]
        _make_context(targets, given, sizes, scale, context, context_biases, modulations, rest)
        last = (first + targets.shape[0]) * per_pose
        for begin in range(first * per_pose, last, _SAMPLES):
            end = min(begin + _SAMPLES, last)
            _denoise(
                noise[begin:end], x0_hat[begin:end], begin - first * per_pose, per_pose, sizes,
                edges, blocks, trunk_biases, modulations, rest, inputs,
            )  # fmt: skip


# How the blocks of the trunk are multiplied, and the type of their numbers.
FLOAT32, BFLOAT16 = types.float32, types.uint16


@functools.cache
def one_step_of(half: bool, blocks):
    """`_one_step` for weights of the context in float16, or else float32, and blocks so typed.

    The weights of checkpoints are exact in float16, which is half the memory to read.
    """
    floats = types.float32[::1]
    signature = types.void(
        types.Array(types.float32, 2, "C", readonly=True), types.int64,
        types.Array(types.float64, 4, "C", readonly=True), types.boolean[:, ::1],
        types.int64[::1], types.float64, types.uint16[::1] if half else floats, floats, floats,
        blocks[::1], floats, floats, blocks[::1], types.float32[:, ::1],
    )  # fmt: skip
    return cached_jit(_one_step, signature)

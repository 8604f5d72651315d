# SPDX-License-Identifier: Apache-2.0
"""The whole search for solutions of B poses, in one call.

A problem is one pose and the joints that its distances refer to. Its starts are numbered: those
that are given come first, the others are uniform and a function of key and number. So an
answer depends neither on the other problems nor on how many threads share the work.

Starts come in rounds, each as large as all before it, until there are as many solutions as are
wanted or the budget is spent. The first round of many problems is refined together; those that need
more go on one by one. After each pass of starts a problem keeps the candidates that may still be
returned, in its pool.

Where one solution near a seed is wanted, the seed slides to the nearest solution that is connected
to it, and is the answer where that is near; else each start of the first round slides. Those of
later rounds do not: a slide may end where no step leads back to the pose.
"""

from typing import NamedTuple

import numpy as np
from numba import boolean, float64, types

from .counter_stream import write_uniform
from .descent import SLIDE_AFTERWARDS, SLIDE_AT_ONCE, STAY, work_buffer
from .jit import cached_jit, jit, linked_jit
from .layout import FRAME, unpack
from .refinement import COARSE_ITERATIONS, refine, write_frames
from .selection import choose

SEED, NOTHING = -1, -2  # in place of the number of a start


class Plan(NamedTuple):
    """What a search is asked for, in the order of the array that it takes."""

    seeded: int  # whether the references are seeds, which are starts as well
    sliding: int  # whether seeds and starts of the first round slide towards the references
    first: int  # starts of the first round
    own: int  # starts of the sampler's own; a round ends there
    largest: int  # starts of a later round at most
    budget: int  # starts after which no further round begins
    rounds: int  # at most; -1: any number; 0: the seeds alone, where they slide
    solutions: int  # M
    diverse: int  # whether solutions shall be far apart
    recombining: int  # whether parts that share no joint complete each other
    starts_per_pass: int  # starts that are refined together


class Weights(NamedTuple):
    """What is worth how much, in the order of the array that a search takes."""

    error: float  # in the cost, per m and per rad
    distance: float  # in the cost, per rad
    separation: float  # rad or m, the least difference of solutions
    near: float  # rad, a seed's solution that is so near is the nearest


@jit
def joint_distance(a, b, continuous):
    """Euclidean distance of configurations, the short way round for continuous joints."""
    square = 0.0
    for j in range(a.size):
        delta = a[j] - b[j]
        if continuous[j]:
            delta -= 2 * np.pi * np.rint(delta / (2 * np.pi))
        square += delta * delta
    return np.sqrt(square)


@jit
def _write_starts(q, first, given, key, limits):
    """Write starts number ``first`` and on to q (N, J), given ones (S, J) or uniform ones."""
    for n in range(q.shape[0]):
        if first + n < given.shape[0]:
            for j in range(q.shape[1]):
                q[n, j] = given[first + n, j]
        else:
            write_uniform(key, first + n, limits, q[n])


@linked_jit(
    types.UniTuple(float64[::1], 2)(
        float64[:, ::1], float64[:, :, ::1], float64[::1], boolean[::1], float64, float64
    )
)
def costs(q, errors, reference, continuous, of_error, of_distance):
    """Distances [rad] of candidates to joints (J,), and their costs.

    Args:
        q: (N, J) rad or m.
        errors: (N, T, 2) m and rad.
        reference: (J,).
        continuous: (J,) bool.
        of_error: what the sum of the errors counts in the cost.
        of_distance: what the distance counts.

    Returns:
        (N,) and (N,).
    """
    count = q.shape[0]
    distance, cost = np.empty(count), np.empty(count)
    for n in range(count):
        distance[n] = joint_distance(q[n], reference, continuous)
        error = 0.0
        for t in range(errors.shape[1]):
            error += errors[n, t, 0] + errors[n, t, 1]
        cost[n] = of_error * error + of_distance * distance[n]
    return distance, cost


@jit
def _settle(
    q, errors, valid, start, reference, continuous, active, plan, weights, b, result
):  # fmt: skip
    """Write the rows of problem b to return so far; returns which candidates, how many valid."""
    distance, cost = costs(q, errors, reference, continuous, weights.error, weights.distance)
    rows, num_valid = choose(
        q, cost, valid, continuous, plan.solutions, weights.separation, plan.diverse == 1
    )
    q_out, position, orientation, valid_out, distance_out, cost_out, start_out = result
    for m in range(rows.size):
        own = rows[m]
        for j in range(q.shape[1]):
            q_out[b, m, j] = q[own, j]
        for t in range(position.shape[2]):
            position[b, m, t] = 0.0
            orientation[b, m, t] = 0.0
        for g in range(active.size):
            position[b, m, active[g]] = errors[own, g, 0]
            orientation[b, m, active[g]] = errors[own, g, 1]
        valid_out[b, m] = valid[own]
        distance_out[b, m] = distance[own]
        cost_out[b, m] = cost[own]
        start_out[b, m] = start[own]
    return rows, num_valid


@jit
def _kept(pool, chosen, is_diverse, first, count):
    """A pool of the candidates that may still be returned, with room for ``count`` starts.

    Those are the chosen ones, and all valid ones if diverse. The room is behind them, for starts
    number ``first`` and on. Returns how many are kept as well.
    """
    q, errors, valid, start = pool
    keep = np.empty(q.shape[0], np.int64)
    is_chosen = np.zeros(q.shape[0], np.bool_)
    kept = 0
    for i in chosen:
        keep[kept] = i
        is_chosen[i] = True
        kept += 1
    if is_diverse:
        for i in range(q.shape[0]):
            if valid[i] and not is_chosen[i]:
                keep[kept] = i
                kept += 1
    size = kept + count
    more_q, more_errors = np.empty((size, q.shape[1])), np.empty((size, errors.shape[1], 2))
    more_valid, more_start = np.empty(size, np.bool_), np.empty(size, np.int64)
    for i in range(kept):
        own = keep[i]
        for j in range(q.shape[1]):
            more_q[i, j] = q[own, j]
        for g in range(errors.shape[1]):
            for k in range(2):
                more_errors[i, g, k] = errors[own, g, k]
        more_valid[i], more_start[i] = valid[own], start[own]
    for i in range(count):
        more_start[kept + i] = first + i
    return (more_q, more_errors, more_valid, more_start), kept


@jit
def _numbers(first, count):
    return np.arange(first, first + count)


@jit
def _plan(a):
    return Plan(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10])


@jit
def _weights(a):
    return Weights(a[0], a[1], a[2], a[3])


@cached_jit
def search(
    T_base_tip, reference, given, integers, floats32, floats64, plan_array, weights_array, keys
):
    """Search for solutions of B poses.

    Args:
        T_base_tip: (B, T, 4, 4) float64, rotations orthonormal.
        reference: (B, J) float64 rad or m, what distances refer to.
        given: (B, S, J) float32, the first starts of each problem.
        integers, floats32, floats64: the robot, see `layout.pack`.
        plan_array: int64, see `Plan`.
        weights_array: float64, see `Weights`.
        keys: (B,) uint64, of the uniform starts, see `counter_stream`.

    Returns:
        q (B, M, J), position and orientation errors (B, M, T), valid, distance, cost and number of
        the start (B, M), each row as in `IKResult`; and how many starts each problem took (B,).
    """
    plan, weights = _plan(plan_array), _weights(weights_array)
    coarse, fine = unpack(integers, floats32), unpack(integers, floats64)
    coarse_work, fine_work = work_buffer(coarse, floats32), work_buffer(fine, floats64)
    batch, num_tips, most = T_base_tip.shape[0], T_base_tip.shape[1], plan.solutions
    num_joints, num_active = reference.shape[1], fine.active.size
    active = fine.active
    continuous = np.empty(num_joints, np.bool_)
    for j in range(num_joints):
        continuous[j] = fine.continuous[j] == 1
    result = (
        np.full((batch, most, num_joints), np.nan),
        np.full((batch, most, num_tips), np.inf),
        np.full((batch, most, num_tips), np.inf),
        np.zeros((batch, most), np.bool_),
        np.full((batch, most), np.inf),
        np.full((batch, most), np.inf),
        np.full((batch, most), NOTHING),
    )
    used = np.zeros(batch, np.int64)
    frames = np.empty((batch, FRAME * num_active))
    write_frames(T_base_tip, active, frames)
    recombining, is_diverse = plan.recombining == 1, plan.diverse == 1
    sliding = SLIDE_AFTERWARDS if plan.sliding == 1 else STAY
    seeded = plan.seeded
    seeds = reference
    open_problems = np.arange(batch)
    num_open = batch
    if plan.sliding == 1:
        seeds = reference.copy()
        num_open = 0
        q = seeds.reshape((batch, 1, num_joints))
        errors = np.empty((batch, 1, num_active, 2))
        valid = np.empty((batch, 1), np.bool_)
        refine(
            q, frames, reference, errors, valid, coarse_work, fine_work, integers,
            floats32, floats64, SLIDE_AT_ONCE, recombining, COARSE_ITERATIONS,
        )  # fmt: skip
        for b in range(batch):
            near = valid[b, 0]
            near &= joint_distance(q[b, 0], reference[b], continuous) <= weights.near
            if near or plan.rounds == 0:
                _settle(
                    q[b], errors[b], valid[b], np.full(1, SEED), reference[b], continuous,
                    active, plan, weights, b, result,
                )  # fmt: skip
            else:
                open_problems[num_open] = b
                num_open += 1
    first_pass = min(plan.first, plan.starts_per_pass)
    rows = seeded + first_pass
    group = max(1, plan.starts_per_pass // rows)
    q = np.empty((min(group, num_open), rows, num_joints))
    errors = np.empty((q.shape[0], rows, num_active, 2))
    valid = np.empty((q.shape[0], rows), np.bool_)
    start = _numbers(-seeded, rows)
    for begin in range(0, num_open, group):
        size = min(group, num_open - begin)
        problems = open_problems[begin : begin + size]
        for i in range(size):
            b = problems[i]
            if seeded == 1:
                for j in range(num_joints):
                    q[i, 0, j] = seeds[b, j]
            _write_starts(q[i, seeded:], 0, given[b], keys[b], fine.limits)
            used[b] = first_pass
        refine(
            q[:size], frames[problems], reference[problems], errors[:size], valid[:size],
            coarse_work, fine_work, integers, floats32, floats64, sliding, recombining,
            COARSE_ITERATIONS,
        )  # fmt: skip
        for i in range(size):
            b = problems[i]
            chosen, num_valid = _settle(
                q[i], errors[i], valid[i], start, reference[b], continuous, active, plan, weights,
                b, result,
            )  # fmt: skip
            round_end, rounds = plan.first, 1
            pool = q[i], errors[i], valid[i], start
            while True:
                if used[b] == round_end:
                    if num_valid >= most or used[b] >= plan.budget or rounds == plan.rounds:
                        break
                    size_of_round = min(round_end, plan.largest)
                    if round_end < plan.own:
                        size_of_round = min(size_of_round, plan.own - round_end)
                    round_end += size_of_round
                    rounds += 1
                count = min(plan.starts_per_pass, round_end - used[b])
                pool, kept = _kept(pool, chosen, is_diverse, used[b], count)
                more_q, more_errors, more_valid, more_start = pool
                _write_starts(more_q[kept:], used[b], given[b], keys[b], fine.limits)
                own = slice(b, b + 1)
                refine(
                    more_q[kept:].reshape((1, count, num_joints)), frames[own], reference[own],
                    more_errors[kept:].reshape((1, count, num_active, 2)),
                    more_valid[kept:].reshape((1, count)), coarse_work,
                    fine_work, integers, floats32, floats64, sliding if rounds == 1 else STAY,
                    recombining, COARSE_ITERATIONS,
                )  # fmt: skip
                used[b] += count
                chosen, num_valid = _settle(
                    more_q, more_errors, more_valid, more_start, reference[b], continuous, active,
                    plan, weights, b, result,
                )  # fmt: skip
    return (*result, used)

# SPDX-License-Identifier: Apache-2.0
"""How well samples match the exact answer, and how many are valid after each step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..kernels.step_settings import StepSettings
from ..progress import tracked
from ..robot.robot import Robot
from ..solving.least_squares import iterate, pose_errors
from .distribution import coverage, mmd_squared, total_variation
from .posterior import SolutionCurve

COVERAGE_RADIUS = 0.2  # rad
LIKELY = 0.01  # probability of a branch; even exact samples, a hundred of them, miss rarer ones
STEPS = (0, 1, 2, 3, 5)
# What a table shows of `match`: metric, label.
MATCH_ROWS = (
    ("mmd_squared", "MMD^2 to the exact posterior"),
    ("mmd_squared_error", "standard error of it"),
    ("coverage", f"solution curve within {COVERAGE_RADIUS} rad of a sample"),
    ("branches_hit", f"branches hit, of those of {1e2 * LIKELY:g} % and more"),
    ("branch_total_variation", "total variation of branch masses"),
    ("samples", "samples per pose"),
)


@dataclass(frozen=True)
class Exactness:
    """Samples of each kind, its draws, against the exact answer; means over poses."""

    poses: int
    # kinds: exact (other samples of the posterior: the best that is possible), raw, refined, best,
    # diverse
    draws: dict[str, dict[str, float]]
    coverage_by_samples: dict[str, dict[int, float]]
    curve: SolutionCurve = field(repr=False, compare=False)  # of the first pose


def match(
    curves: Sequence[SolutionCurve],
    reference: Sequence[np.ndarray],
    draws: Sequence[np.ndarray],
) -> dict[str, float]:
    """Compare draws with the exact posteriors of their poses.

    Args:
        curves: B exact answers.
        reference: B draws (N, J) from the exact posteriors, independent of ``draws``.
        draws: B times (N_b, J) rad; a pose without two samples has no MMD^2.

    Returns:
        mmd_squared, mean over poses of the unbiased estimate, and mmd_squared_error, its standard
        error; coverage, share of the curve's length within `COVERAGE_RADIUS` of a sample;
        branches_hit, share of a pose's branches of at least `LIKELY` probability that are the
        nearest of a sample within that radius; branch_total_variation between the branches'
        masses and the shares of samples that are nearest to them (1 without samples); samples,
        mean number per pose.
    """
    rows, mmd = [], []
    for curve, exact, q in tracked(
        list(zip(curves, reference, draws, strict=True)), "poses against the exact answer"
    ):
        if len(q) > 1:
            mmd.append(mmd_squared(q, exact))
        masses = curve.branch_mass
        hit, distance_apart = np.zeros(len(masses), dtype=bool), 1.0
        if len(q):
            branch, distance = curve.nearest_branch(q)
            hit[branch[distance < COVERAGE_RADIUS]] = True
            shares = np.bincount(branch, minlength=len(masses)) / len(q)
            distance_apart = total_variation(shares, masses)
        covered = coverage(curve.middle, curve.length, q, COVERAGE_RADIUS)
        rows.append((covered, hit[masses >= min(LIKELY, masses[0])].mean(), distance_apart, len(q)))
    names = ("coverage", "branches_hit", "branch_total_variation", "samples")
    return {
        "mmd_squared": float(np.mean(mmd)) if mmd else np.nan,
        "mmd_squared_error": float(np.std(mmd) / np.sqrt(len(mmd))) if mmd else np.nan,
        **dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True)),
    }


def coverage_by_samples(
    curves: Sequence[SolutionCurve],
    draws: Sequence[np.ndarray],
    counts: Sequence[int],
    random: np.random.Generator,
) -> dict[int, float]:
    """Mean share of the curves that random choices of so many draws cover, by their number."""
    shuffled = [random.permutation(q) for q in draws]
    return {
        count: float(
            np.mean(
                [
                    coverage(curve.middle, curve.length, q[:count], COVERAGE_RADIUS)
                    for curve, q in zip(curves, shuffled, strict=True)
                ]
            )
        )
        for count in counts
    }


def after_steps(
    robot: Robot,
    q: np.ndarray,
    T_base_tip: np.ndarray,
    position_tolerance: float,
    orientation_tolerance: float,
    steps: Sequence[int] = STEPS,
    reference: Sequence[np.ndarray] = (),
) -> dict[int, dict[str, float]]:
    """What samples are after k damped least-squares steps in float64, and what the steps cost.

    `refine_lm` takes the same steps, the first ones in float32.

    Args:
        robot: whose kinematics and limits.
        q: (B, N, J) rad or m.
        T_base_tip: (B, T, 4, 4).
        position_tolerance: m.
        orientation_tolerance: rad.
        steps: k, ascending.
        reference: draws (N, J) from the exact posteriors of the first poses, where they are known.

    Returns:
        For each k position_error_mean, position_error_median [m], orientation_error_mean,
        orientation_error_median [rad], valid (share), step_time [s per sample], and mmd_squared
        where there is a reference.
    """
    q = np.clip(np.array(q, dtype=np.float64), robot.lower, robot.upper)
    todo, taken, spent, found = np.arange(q.shape[0] * q.shape[1]), 0, 0.0, {}
    for count in steps:
        if count > taken:
            started = time.perf_counter()
            # A step depends on nothing but q, so that k steps are the sum of their parts.
            iterate(
                robot, q, T_base_tip, todo, count - taken, 1e-3 * position_tolerance,
                1e-3 * orientation_tolerance, StepSettings(),
            )  # fmt: skip
            spent += time.perf_counter() - started
            taken = count
        position, angle = pose_errors(robot, q, T_base_tip)
        valid = (position <= position_tolerance) & (angle <= orientation_tolerance)
        found[count] = {
            "position_error_mean": float(position.mean()),
            "position_error_median": float(np.median(position)),
            "orientation_error_mean": float(angle.mean()),
            "orientation_error_median": float(np.median(angle)),
            "valid": float((valid.all(-1) & robot.within_limits(q)).mean()),
            "step_time": spent / len(todo),
        }
        if len(reference) and q.shape[1] > 1:
            distances = [mmd_squared(own, exact) for own, exact in zip(q, reference, strict=False)]
            found[count]["mmd_squared"] = float(np.mean(distances))
    return found

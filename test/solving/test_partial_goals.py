# SPDX-License-Identifier: Apache-2.0
"""Goals for some tips, and with axes that may be anything; judged by Pinocchio."""

import numpy as np
import pinocchio as pin
import pytest
import torch
from example_robots import ROBOTS, TORSO_TIPS
from oracles import Judge, reachable

import meanflow_ik_core as mik
from meanflow_ik_core import geometry
from meanflow_ik_core.bench.torch_step import lm_step
from meanflow_ik_core.kernels.step_settings import StepSettings
from meanflow_ik_core.solving.least_squares import iterate, pose_errors

AXES = ["x", "y", "z", "rx", "ry", "rz"]


def missed(reached: np.ndarray, target: np.ndarray, free: str) -> tuple[float, float]:
    """Distance and angle from a pose to the nearest that is asked for, by Pinocchio's algebra."""
    frees = free.split()
    delta = np.linalg.inv(target) @ reached
    kept = [i for i, name in enumerate(AXES[:3]) if name not in frees]
    turns = [i for i, name in enumerate(AXES[3:]) if name not in frees]
    angle = 0.0
    if len(turns) == 3:
        angle = float(np.linalg.norm(pin.log3(delta[:3, :3])))
    elif len(turns) == 2:
        axis = ({0, 1, 2} - set(turns)).pop()
        angle = float(np.arctan2(np.linalg.norm(delta[turns, axis]), delta[axis, axis]))
    elif len(turns) == 1:
        sine = abs(pin.Quaternion(delta[:3, :3]).coeffs()[turns[0]])
        angle = 2 * float(np.arcsin(min(1.0, sine)))
    return float(np.linalg.norm(delta[kept, 3])), angle


FREE = ["", "rx", "ry", "rz", "rx ry", "rx rz", "ry rz", "rx ry rz", "x", "x y", "z rz",
        "x y z", "x y z rz", "y rx ry rz", "x z rx rz"]  # fmt: skip


@pytest.mark.parametrize("free", FREE)
def test_solutions_are_exact_in_what_is_asked_and_errors_are_honest(torso_solver, free):
    robot, judge = torso_solver.robot, Judge(torso_solver.robot)
    targets = reachable(robot, 10, 0)
    tip = robot.tips[1]
    result = torso_solver.solve(targets, 64, 8, seed=0, free_axes={tip: free})
    assert result.valid[:, 0].all()
    for b, m in np.ndindex(result.valid.shape):
        q = result.joint_positions[b, m]
        if not np.isfinite(q).all():
            continue
        reached = judge.poses(q)
        wanted = [missed(reached[0], targets[b, 0], ""), missed(reached[1], targets[b, 1], free)]
        np.testing.assert_allclose(
            np.stack((result.position_error[b, m], result.orientation_error[b, m]), 1),
            wanted, rtol=1e-6, atol=2e-8,
        )  # fmt: skip
        if result.valid[b, m]:
            assert np.max(wanted) < 1e-5
            assert robot.within_limits(q)


@pytest.mark.parametrize("tip", TORSO_TIPS)
def test_one_hand_of_two_is_as_accurate_and_the_other_goes_anywhere(torso_solver, tip):
    robot, judge = torso_solver.robot, Judge(torso_solver.robot)
    index = robot.tips.index(tip)
    targets = reachable(robot, 10, 1)
    full = torso_solver.solve(targets, 64, 8, seed=0)
    result = torso_solver.solve(targets[:, index], 64, 8, seed=0, tips=[tip], select="diverse")
    assert result.valid.all()
    assert (result.position_error[:, :, 1 - index] == 0).all()
    assert (result.orientation_error[:, :, 1 - index] == 0).all()
    spread = []
    for b in range(10):
        reached = np.stack([judge.poses(q) for q in result.joint_positions[b]])
        for pose in reached[:, index]:
            assert max(missed(pose, targets[b, index], "")) < 1e-5
        spread.append(np.linalg.norm(np.ptp(reached[:, 1 - index, :3, 3], axis=0)))
    assert np.median(spread) > 0.5
    worst = [
        np.maximum(r.position_error, r.orientation_error)[..., index][r.valid]
        for r in (full, result)
    ]
    assert np.median(worst[1]) < 10 * np.median(worst[0]) + 1e-10


def test_targets_come_in_the_order_of_tips(torso_solver):
    targets = reachable(torso_solver.robot, 5, 2)
    straight = torso_solver.solve(targets, 64, 4, seed=0)
    turned = torso_solver.solve(targets[:, ::-1], 64, 4, seed=0, tips=TORSO_TIPS[::-1])
    np.testing.assert_array_equal(turned.joint_positions, straight.joint_positions)


def test_a_learned_sampler_turns_about_the_free_axis_by_itself(learned):
    robot, judge = learned.robot, Judge(learned.robot)
    targets = reachable(robot, 20, 3)
    free = {robot.tips[0]: "rz"}
    raw = learned.sample(targets, 100, seed=0, free_axes=free)
    result = learned.solve(targets, 64, 16, seed=0, free_axes=free, select="diverse")
    assert set(np.unique(result.origin[result.valid])) <= {"meanflow", "uniform"}
    assert (result.origin[result.valid] == "meanflow").mean() > 0.5
    missing = [
        max(missed(judge.poses(q)[0], targets[b, 0], "rz")) for b in range(20) for q in raw[b]
    ]
    assert np.median(missing) < 0.3  # not every turn can be reached
    for b in range(20):
        angles = []
        for q in result.joint_positions[b, result.valid[b]]:
            reached = judge.poses(q)[0]
            assert max(missed(reached, targets[b, 0], "rz")) < 1e-5
            delta = targets[b, 0, :3, :3].T @ reached[:3, :3]
            angles.append(np.arctan2(delta[1, 0], delta[0, 0]))
        assert np.ptp(angles) > 1.0


def test_a_sampler_that_needs_complete_goals_leaves_partial_ones_to_the_uniform(learned):
    targets = reachable(learned.robot, 5, 4)
    free = {learned.robot.tips[0]: "rx ry rz"}
    result = learned.solve(targets, 32, 4, seed=0, free_axes=free)
    assert result.valid.all()
    assert (result.origin == "uniform").all()
    with pytest.raises(mik.OptionError):
        learned.sample(targets, 4, free_axes=free)


def test_each_target_has_its_tolerance(torso_solver):
    targets = reachable(torso_solver.robot, 10, 5)
    targets[:, 1, :3, 3] += (0.0, 0.0, 4.0)  # beyond reach
    assert not torso_solver.solve(targets, 64, 4, seed=0).valid.any()
    judge = Judge(torso_solver.robot)
    for tips, tolerance in ((None, (1e-4, 9.0)), (TORSO_TIPS[::-1], (9.0, 1e-4))):
        ordered = targets if tips is None else targets[:, ::-1]
        result = torso_solver.solve(
            ordered, 64, 4, seed=0, tips=tips,
            position_tolerance=tolerance, orientation_tolerance=tolerance,
        )  # fmt: skip
        for b, m in np.argwhere(result.valid):
            position, turn = judge.errors(result.joint_positions[b, m], targets[b])
            assert max(position[0], turn[0]) <= 1e-4
            assert position[1] > 1e-4


def test_bad_partial_goals_are_refused_by_name(torso_solver):
    left, right = TORSO_TIPS
    targets = reachable(torso_solver.robot, 2, 6)
    one = targets[:, 0]
    for error, message, arguments in (
        (mik.LinkError, "'nose'.*left_tool, right_hand", dict(tips=["nose"])),
        (mik.LinkError, "'left_tool' is named twice", dict(tips=[left, left])),
        (mik.LinkError, "tips is empty", dict(tips=[])),
        (mik.LinkError, "'nose'.*left_tool", dict(tips=[left], free_axes={"nose": "rz"})),
        (mik.LinkError, "'right_hand'.*left_tool", dict(tips=[left], free_axes={right: "rz"})),
        (mik.OptionError, "'roll'.*x y z rx ry rz", dict(tips=[left], free_axes={left: "roll"})),
        (mik.OptionError, "nothing is asked", dict(tips=[left], free_axes={left: " ".join(AXES)})),
        (mik.OptionError, "free_axes is 'rz'", dict(tips=[left], free_axes="rz")),
        (mik.OptionError, "adam", dict(tips=[left], refinement="adam")),
        (mik.OptionError, "position_tolerance", dict(tips=[left], position_tolerance=(1, 2))),
        (mik.OptionError, "position_tolerance", dict(tips=[left], position_tolerance=(0.0,))),
        (mik.OptionError, "position_tolerance", dict(tips=[left], position_tolerance="far")),
    ):
        with pytest.raises(error, match=message):
            torso_solver.solve(one, 4, 2, **arguments)
    with pytest.raises(mik.TargetError, match="targets for right_hand"):
        torso_solver.solve(targets, 4, 2, tips=[right])


def weights_of(robot, seed: int) -> np.ndarray:
    """Axis weights, a third of them 0, and something asked for."""
    rng = np.random.default_rng(seed)
    weights = rng.choice([0.0, 0.5, 1.0], (robot.num_tips, 6))
    weights[0, 0] = 1.0
    return weights


def states(robot, count: int, seed: int):
    rng = np.random.default_rng(seed)
    q = rng.uniform(robot.lower, robot.upper, (count, 4, robot.num_joints))
    q = np.where(rng.random(q.shape) < 0.2, robot.upper, q)
    q = np.where(robot.continuous, 0.5 * q, q)
    return q, robot.forward(rng.uniform(robot.lower, robot.upper, (count, robot.num_joints)))


@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize("seed", range(6))
def test_the_step_in_torch_is_the_step_of_the_kernel_with_free_axes(name, seed):
    robot = ROBOTS[name]()
    q, targets = states(robot, 5, seed)
    weights = weights_of(robot, seed)
    settings = StepSettings(axis_weights=weights)
    moved = q.copy()
    iterate(robot, moved, targets, np.arange(20), 1, 1e-15, 1e-15, settings)
    repeated = torch.from_numpy(targets).repeat_interleave(4, 0)
    stepped, *_ = lm_step(robot, torch.from_numpy(q).flatten(0, 1), repeated, settings)
    np.testing.assert_allclose(moved.reshape(20, -1), stepped.numpy(), rtol=0, atol=1e-7)
    ours = pose_errors(robot, q, targets, weights)
    theirs = geometry.pose_errors(
        robot.forward(torch.from_numpy(q)).flatten(0, 1), repeated, torch.from_numpy(weights)
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.reshape(20, -1), b.numpy(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("free", ["rx", "rz", "rx ry", "ry rz", "x", "z rz"])
def test_steps_converge_quadratically_with_free_axes(panda, free):
    weights = np.array([[name not in free.split() for name in AXES]], float)
    q, targets = states(panda, 50, 7)
    errors = []
    for steps in range(3, 18):
        moved = q.copy()
        settings = StepSettings(axis_weights=weights)
        iterate(panda, moved, targets, np.arange(200), steps, 1e-15, 1e-15, settings)
        errors.append(np.maximum(*pose_errors(panda, moved, targets, weights)).max(-1))
    now, soon = np.stack(errors[:-2]), np.stack(errors[2:])
    near = (now > 1e-5) & (now < 1e-3)
    assert near.sum() > 20
    # others crawl along limits or singularities
    assert (soon[near] < 1e-7).mean() > 0.8

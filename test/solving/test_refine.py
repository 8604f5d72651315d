# SPDX-License-Identifier: Apache-2.0
"""What refinement promises, judged by Pinocchio; Adam against finite differences."""

import numpy as np
import pinocchio as pin
import pytest
import torch
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.bench.near_limits import near_limit_poses
from meanflow_ik_core.cuda.search import DeviceSearch
from meanflow_ik_core.kernels.descent import STAY
from meanflow_ik_core.kernels.entry import compile_all
from meanflow_ik_core.kernels.refinement import COARSE_ITERATIONS
from meanflow_ik_core.solving.goal import Goal
from meanflow_ik_core.solving.refine import Refined, refine_lm
from meanflow_ik_core.solving.refinement import Refinement
from meanflow_ik_core.solving.robot_arrays import packed
from meanflow_ik_core.solving.tensor_refine import refine_adam


def by_generated_c(
    robot, q0, targets, position_tolerance=1e-5, orientation_tolerance=1e-5,
    max_iterations=COARSE_ITERATIONS, **weights,
) -> Refined:  # fmt: skip
    """What runs on a GPU, on the CPU."""
    arrays = packed(robot, position_tolerance, orientation_tolerance, **weights)
    search = DeviceSearch(robot, torch.device("cpu"))
    q, errors, valid = search.refined(
        q0, targets, q0[:, 0], arrays, STAY, True, max_iterations
    )  # fmt: skip
    return Refined(q, errors[..., 0], errors[..., 1], valid)


def by_adam(robot, q0, targets, position_tolerance=1e-5, orientation_tolerance=1e-5) -> Refined:
    goal = Goal(targets, q0[:, 0], False, None, position_tolerance, orientation_tolerance)
    return Refinement("adam").refined(robot, q0, goal)


LM = {"kernel": refine_lm, "generated": by_generated_c}
ALL = {"lm": refine_lm, "generated": by_generated_c, "adam": by_adam}


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    compile_all()


@pytest.fixture(scope="module", params=["panda", "torso"])
def robot(request) -> mik.Robot:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=LM)
def refine(request):
    return LM[request.param]


def draw(robot, problems: int, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform starts (B, N, J) and reachable targets (B, T, 4, 4) made by Pinocchio."""
    rng = np.random.default_rng(seed)
    q = rng.uniform(robot.lower, robot.upper, (problems, samples, robot.num_joints))
    judge = Judge(robot)
    poses = [judge.poses(row) for row in rng.uniform(robot.lower, robot.upper, q[:, 0].shape)]
    return q, np.stack(poses)


def test_every_reachable_pose_is_solved_from_random_starts(robot, refine):
    q0, targets = draw(robot, 100, 100, 0)
    result, judge = refine(robot, q0, targets), Judge(robot)
    assert result.converged.any(1).all()
    for b in range(len(targets)):
        for q in result.q[b, result.converged[b]][:5]:
            assert judge.accepts(q, targets[b])
    worst = np.maximum(result.position_error, result.orientation_error)[result.converged]
    assert np.median(worst) < 1e-9


def test_every_pose_that_needs_a_joint_at_its_limit_is_solved(panda):
    targets, _ = near_limit_poses(panda, 20, seed=3)
    q0 = np.random.default_rng(1).uniform(panda.lower, panda.upper, (20, 1000, 7))
    result, judge = refine_lm(panda, q0, targets[:, None]), Judge(panda)
    for b in range(20):
        assert judge.accepts(result.q[b, result.converged[b].argmax()], targets[b][None])


@pytest.mark.parametrize("method", ALL)
def test_errors_are_honest_and_nothing_leaves_the_limits(robot, method):
    q0, targets = draw(robot, 5, 20, 2)
    targets[::2, :, :3, 3] += 0.05
    judge, tolerance = Judge(robot), 1e-3
    result = ALL[method](robot, q0, targets, tolerance, tolerance)
    assert robot.within_limits(result.q).all()
    for b, n in np.ndindex(q0.shape[:2]):
        position, orientation = judge.errors(result.q[b, n], targets[b])
        np.testing.assert_allclose(result.position_error[b, n], position, atol=1e-9)
        np.testing.assert_allclose(result.orientation_error[b, n], orientation, atol=1e-6)
        within = max(position.max(), orientation.max()) <= tolerance
        assert result.converged[b, n] == within


def test_an_unreachable_pose_converges_nowhere(robot, refine):
    q0, targets = draw(robot, 10, 50, 3)
    targets[:5, :, :3, 3] *= 20
    result = refine(robot, q0, targets)
    assert not result.converged[:5].any()
    assert result.position_error[:5].min() > 0.1
    assert result.converged[5:].any()


def test_a_start_that_is_not_finite_comes_back_with_infinite_errors(robot, refine):
    q0, targets = draw(robot, 3, 10, 4)
    expected = refine(robot, q0, targets)
    broken = q0.copy()
    broken[0, 2, 1], broken[1, 5, 0], broken[2, 0, 3] = np.nan, np.inf, -np.inf
    result = refine(robot, broken, targets)
    finite = np.isfinite(broken).all(-1)
    assert (~finite).sum() == 3
    np.testing.assert_array_equal(result.q[~finite], broken[~finite])
    assert np.isinf(result.position_error[~finite]).all()
    assert np.isinf(result.orientation_error[~finite]).all()
    assert not result.converged[~finite].any()
    assert (result.converged[finite] == expected.converged[finite]).mean() > 0.9


def test_the_batch_does_not_matter_and_the_starts_are_left_alone(robot):
    q0, targets = draw(robot, 30, 101, 5)
    kept = q0.copy()
    together = refine_lm(robot, q0, targets)
    np.testing.assert_array_equal(q0, kept)
    for b in (0, 13, 29):
        alone = refine_lm(robot, q0[b : b + 1], targets[b : b + 1])
        np.testing.assert_array_equal(alone.q[0], together.q[b])
        np.testing.assert_array_equal(alone.converged[0], together.converged[b])
        one = refine_lm(robot, q0[b : b + 1, 100:], targets[b : b + 1])
        np.testing.assert_array_equal(one.q[0, 0], together.q[b, 100])


def test_generated_c_and_kernel_solve_the_same_starts(robot):
    q0, targets = draw(robot, 10, 50, 6)
    kernel, other = refine_lm(robot, q0, targets), by_generated_c(robot, q0, targets)
    assert (kernel.converged == other.converged).mean() > 0.98
    both = kernel.converged & other.converged
    assert np.median(np.abs(kernel.q - other.q)[both]) < 1e-6


def test_weights_say_which_error_gives_way(panda):
    q0, targets = draw(panda, 10, 30, 9)
    targets[..., :3, 3] *= 1.5
    for refine in LM.values():
        heavy = refine(panda, q0, targets, max_iterations=60, position_weight=10.0)
        light = refine(panda, q0, targets, max_iterations=60, position_weight=0.1)
        assert np.median(heavy.position_error) < np.median(light.position_error)
        assert np.median(heavy.orientation_error) > np.median(light.orientation_error)


def test_each_tip_has_its_tolerance(torso, refine):
    q0, targets = draw(torso, 20, 50, 10)
    targets[:, 1, :3, 3] += 0.03
    weights = {"position_weight": np.array([1.0, 0]), "orientation_weight": np.array([1.0, 0])}
    tolerance = np.array([1e-5, 10.0])
    loose = refine(torso, q0, targets, tolerance, tolerance, **weights)
    assert not refine(torso, q0, targets, **weights).converged.any()
    assert loose.converged.sum() > 20
    errors = np.maximum(loose.position_error, loose.orientation_error)[loose.converged]
    assert (errors[:, 0] <= 1e-5).all()
    assert (errors[:, 1] > 1e-5).any()


@pytest.mark.parametrize("method", ["lm", "adam"])
def test_wrong_shapes_are_refused_by_name(panda, method):
    q0, targets = draw(panda, 2, 3, 11)
    for starts, goals in ((q0[0], targets), (q0[..., :6], targets), (q0, targets[:1])):
        with pytest.raises(mik.OptionError, match="shape"):
            ALL[method](panda, starts, goals)


def document_loss(robot, q: np.ndarray, targets: np.ndarray) -> float:
    """Mean squared position error + 0.1 (1 - <quat, target quat>^2), summed over the tips."""
    total = 0.0
    for T, goal in zip(Judge(robot).poses(q), targets, strict=True):
        quats = [pin.Quaternion(pose[:3, :3]).coeffs() for pose in (T, goal)]
        total += np.mean((T[:3, 3] - goal[:3, 3]) ** 2) + 0.1 * (1 - (quats[0] @ quats[1]) ** 2)
    return total


def test_the_first_step_of_adam_goes_down_the_finite_difference_gradient(robot):
    q0, targets = draw(robot, 4, 1, 12)
    q0 = 0.9 * q0 + 0.05 * (robot.lower + robot.upper)
    goals = torch.from_numpy(targets)[:, None]
    stepped = refine_adam(robot, torch.from_numpy(q0), goals, steps=1, lr=0.01).numpy()
    for b in range(4):
        for j in range(robot.num_joints):
            shift = 1e-6 * np.eye(robot.num_joints)[j]
            up = document_loss(robot, q0[b, 0] + shift, targets[b])
            down = document_loss(robot, q0[b, 0] - shift, targets[b])
            slope = (up - down) / 2e-6
            if abs(slope) > 1e-6:  # Adam's first step has the length of the learning rate
                np.testing.assert_allclose(
                    stepped[b, 0, j] - q0[b, 0, j], -0.01 * np.sign(slope), rtol=0.01
                )


def test_adam_comes_closer_and_its_steps_do_not_depend_on_the_batch(robot):
    q0, _ = draw(robot, 3, 40, 13)
    near = robot.forward(q0[:, 0])
    q0 = np.clip(q0[:, :1] + 0.2 * np.tanh(q0), robot.lower, robot.upper)
    starts, goals = torch.from_numpy(q0), torch.from_numpy(near)[:, None]
    done = refine_adam(robot, starts, goals, steps=30)
    alone = refine_adam(robot, starts[:1, :1], goals[:1], steps=30)
    torch.testing.assert_close(alone[0, 0], done[0, 0], rtol=0, atol=1e-12)
    before = [document_loss(robot, q0[b, n], near[b]) for b in range(3) for n in range(40)]
    after = [document_loss(robot, done[b, n].numpy(), near[b]) for b in range(3) for n in range(40)]
    assert np.median(after) < 0.2 * np.median(before)
    assert not torch.equal(done, starts)
    assert starts.equal(torch.from_numpy(q0))

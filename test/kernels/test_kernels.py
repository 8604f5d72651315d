# SPDX-License-Identifier: Apache-2.0
"""The compiled step against Pinocchio and numpy, and what running many at once must not change."""

import platform
import re
import threading

import numpy as np
import pinocchio as pin
import pytest
import torch
from example_robots import ROBOTS
from numba import njit
from oracles import Judge

from meanflow_ik_core.bench.torch_step import lm_step
from meanflow_ik_core.kernels import entry, simd
from meanflow_ik_core.kernels.forward import sine_cosine
from meanflow_ik_core.kernels.step_settings import StepSettings
from meanflow_ik_core.solving.least_squares import iterate, pose_errors

NEVER = 1e-15  # a tolerance that no sample meets
SETTINGS = StepSettings(position_weight=3.0, orientation_weight=0.5)
DTYPES = (np.float32, np.float64)


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    entry.compile_all()


@pytest.fixture(params=ROBOTS)
def robot(request):
    return ROBOTS[request.param]()


@njit(nogil=True)
def sines(work):
    s, c = sine_cosine(simd.load(work, 0))
    simd.store(work, 1, s)
    simd.store(work, 2, c)


def draw(robot, problems: int, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts (B, N, J), a third of all joints at a limit, and reachable targets (B, T, 4, 4)."""
    rng = np.random.default_rng(seed)
    q = rng.uniform(robot.lower, robot.upper, (problems, samples, robot.num_joints))
    pick = rng.integers(6, size=q.shape)
    q = np.where(pick == 0, robot.lower, np.where(pick == 1, robot.upper, q))
    q = np.where(robot.continuous & (pick < 2), 0.5 * q, q)
    targets = robot.forward(rng.uniform(robot.lower, robot.upper, (problems, robot.num_joints)))
    return q, targets


def run(robot, q, targets, iterations, tolerance=NEVER, dtype=np.float64, settings=SETTINGS):
    """q after so many steps, and which samples converged."""
    q = q.copy()
    todo = np.arange(q.shape[0] * q.shape[1])
    outcome = iterate(robot, q, targets, todo, iterations, tolerance, tolerance, settings, dtype)
    done = outcome == entry.CONVERGED
    assert (outcome[~done] == entry.FAILED).all()
    return q, done


def numpy_step(
    robot, judge: Judge, q: np.ndarray, targets: np.ndarray, settings: StepSettings
) -> np.ndarray:
    """The damped step of q (J,) with the kinematics and the logarithm of Pinocchio."""
    poses, jacobian = judge.poses(q), judge.jacobian(q)
    weights = np.repeat([settings.position_weight, settings.orientation_weight], 3)
    error = []
    for T, goal in zip(poses, targets, strict=True):
        log = pin.log3(goal[:3, :3] @ T[:3, :3].T)
        angle = np.linalg.norm(log)
        turn = 2 * np.sin(angle / 2) * log / angle
        error.append(np.concatenate((goal[:3, 3] - T[:3, 3], turn)) * weights)
    e = np.concatenate(error)
    J = np.concatenate(jacobian * weights[:, None])
    pull = J.T @ e
    held = ((q >= robot.upper) & (pull > 0)) | ((q <= robot.lower) & (pull < 0))
    J[:, held & ~robot.continuous] = 0
    damping = settings.damping_factor * e @ e + settings.damping_floor
    step = np.linalg.solve(J.T @ J + damping * np.eye(robot.num_joints), J.T @ e)
    step *= min(1.0, settings.max_step / np.abs(step).max())
    stepped = np.clip(q + step, robot.lower, robot.upper)
    return np.where(robot.continuous, q + step, stepped)


@pytest.mark.parametrize("settings", [SETTINGS, StepSettings(), StepSettings(1e-3, 1e-4, 0.2)])
def test_one_step_is_the_damped_least_squares_step_with_blocked_joints_held(robot, settings):
    q, targets = draw(robot, 5, 8, 0)
    stepped, _ = run(robot, q, targets, 1, settings=settings)
    judge = Judge(robot)
    for b, n in np.ndindex(q.shape[:2]):
        expected = numpy_step(robot, judge, q[b, n], targets[b], settings)
        np.testing.assert_allclose(stepped[b, n], expected, rtol=0, atol=1e-8)
    single, _ = run(robot, q, targets, 1, dtype=np.float32, settings=settings)
    assert np.median(np.abs(single - stepped)) < 1e-5


def test_the_step_in_torch_is_the_step_of_the_kernel(robot):
    q, targets = draw(robot, 5, 20, 1)
    repeated = torch.from_numpy(targets).repeat_interleave(20, 0)
    for _ in range(4):
        by_torch, *_ = lm_step(robot, torch.from_numpy(q).flatten(0, 1), repeated, SETTINGS)
        q, _ = run(robot, q, targets, 1)
        difference = np.abs(by_torch.numpy() - q.reshape(by_torch.shape))
        assert difference.max() < 1e-8


def test_forward_kinematics_agree_with_pinocchio(robot):
    q, _ = draw(robot, 100, 1, 2)
    judge = Judge(robot)
    targets = np.stack([judge.poses(row) for row in q[:, 0]])
    distance, angle = pose_errors(robot, q, targets)
    assert distance.max() < 1e-12
    assert angle.max() < 1e-12


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 0.1, 2.0, 3.0, np.pi - 1e-9, np.pi])
def test_reported_errors_are_the_exact_distance_and_angle(robot, angle):
    rng = np.random.default_rng(3)
    q, _ = draw(robot, 50, 1, 3)
    targets = robot.forward(q[:, 0])
    for target in targets.reshape(-1, 4, 4):
        axis = rng.normal(size=3)
        target[:3, :3] = pin.exp3(angle * axis / np.linalg.norm(axis)) @ target[:3, :3]
    shift = rng.normal(size=(*targets.shape[:2], 3))
    targets[..., :3, 3] += shift
    distance, measured = pose_errors(robot, q, targets)
    np.testing.assert_allclose(measured, angle, rtol=0, atol=1e-12)
    np.testing.assert_allclose(distance[:, 0], np.linalg.norm(shift, axis=-1), atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_half_a_turn_away_is_no_solution_and_no_trap(panda, dtype):
    q, _ = draw(panda, 20, 50, 4)
    targets = panda.forward(q[:, 0])
    targets[..., :3, 1:3] *= -1
    moved, done = run(panda, q[:, :1], targets, 0, 1e-3, dtype)
    assert not done.any()
    moved, done = run(panda, q, targets, 30, 1e-3, dtype)
    assert np.isfinite(moved).all()
    distance, angle = pose_errors(panda, moved, targets)
    assert (np.maximum(distance, angle)[done] < 1.01e-3).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_sine_and_cosine_are_exact_to_rounding(dtype):
    grid = np.linspace(-20, 20, 4001)
    angles = np.concatenate((grid, np.arange(-8, 9) * np.pi / 4, [0.0, 1e-20, 100.0]))
    angles = np.resize(angles, (-(-len(angles) // simd.LANES), simd.LANES)).astype(dtype)
    work = np.empty((3, simd.LANES), dtype)
    for row in angles:
        work[0] = row
        sines(work)
        exact = row.astype(np.longdouble)
        for measured, function in zip(work[1:], (np.sin, np.cos), strict=True):
            assert np.abs(measured - function(exact)).max() < 1.1 * np.finfo(dtype).eps


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86 assembly")
def test_the_kernels_are_simd_code():
    sines.compile("void(float32[:, ::1])")
    code = "".join(sines.inspect_asm().values())
    packed = len(re.findall(r"\bv?(?:mul|add|sub|fn?m[a-z]+\d+)p[sd]\b", code))
    scalar = len(re.findall(r"\bv?(?:mul|add|sub|fn?m[a-z]+\d+)s[sd]\b", code))
    assert packed > 20
    assert scalar == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_end_within_the_limits_wherever_they_start(robot, dtype):
    q, targets = draw(robot, 10, 40, 5)
    q[:, ::2] *= 3
    for iterations in (0, 1, 3, 15):
        moved, _ = run(robot, q, targets, iterations, 1e-6, dtype)
        assert robot.within_limits(moved, 1e-6).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sample_does_not_depend_on_the_others(robot, dtype):
    q, targets = draw(robot, 3, 37, 6)
    together, done = run(robot, q, targets, 12, 1e-4, dtype)
    assert 0 < done.mean() < 1
    again, _ = run(robot, q, targets, 12, 1e-4, dtype)
    np.testing.assert_array_equal(again, together)
    for b, n in np.ndindex(q.shape[:2]):
        alone, alone_done = run(robot, q[b : b + 1, n : n + 1], targets[b : b + 1], 12, 1e-4, dtype)
        np.testing.assert_array_equal(alone[0, 0], together[b, n])
        assert alone_done[0, 0] == done[b, n]


def test_only_the_samples_to_do_are_moved(panda):
    q, targets = draw(panda, 4, 200, 7)
    moved, todo = q.copy(), np.arange(0, 800, 2)
    outcome = iterate(panda, moved, targets, todo, 15, 1e-3, 1e-3, SETTINGS, np.float32)
    assert (outcome[:, 1::2] == entry.OPEN).all()
    assert (outcome[:, ::2] != entry.OPEN).all()
    assert (outcome == entry.CONVERGED).sum(1).min() >= 10
    np.testing.assert_array_equal(moved[:, 1::2], q[:, 1::2])


def test_a_start_that_is_not_a_number_spoils_no_other(panda):
    q, targets = draw(panda, 1, 40, 8)
    expected, _ = run(panda, q, targets, 10, 1e-4)
    broken = q.copy()
    broken[0, 3, 2] = np.nan
    moved, done = run(panda, broken, targets, 10, 1e-4)
    others = np.arange(40) != 3
    np.testing.assert_array_equal(moved[:, others], expected[:, others])
    assert not done[0, 3]


def test_all_robots_use_the_kernels_compiled_at_load():
    before = [entry.refine.signatures, entry.evaluate.signatures]
    for make in ROBOTS.values():
        robot = make()
        q, targets = draw(robot, 2, 3, 9)
        for dtype in DTYPES:
            run(robot, q, targets, 2, 1e-3, dtype)
        pose_errors(robot, q, targets)
    assert [entry.refine.signatures, entry.evaluate.signatures] == before


def test_other_threads_run_while_a_kernel_does(panda):
    q, targets = draw(panda, 400, 200, 10)
    moved, todo = q.copy(), np.arange(400 * 200)
    work = (panda, moved, targets, todo, 50, NEVER, NEVER, SETTINGS)
    thread = threading.Thread(target=iterate, args=work)
    thread.start()
    seen = set()
    while thread.is_alive():
        seen.add(int((moved[:, ::100] != q[:, ::100]).any(-1).sum()))
    # Who waits for the kernel sees either no sample moved, or all.
    assert any(0 < count < 800 for count in seen)

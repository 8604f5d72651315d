# SPDX-License-Identifier: Apache-2.0
"""Results say why a target has no solution, or fewer than were asked for."""

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
from oracles import Judge, reachable

import meanflow_ik_core as mik
from meanflow_ik_core import Status

MIDDLE = np.array([0.1, -0.4, 0.2, -2.0, 0.3, 1.6, 0.8])
FOLDED = np.array([0, 1.7, 0, -3.0, 0, 0.0, 0])  # the panda touches itself

FLAT = """<robot name="flat"><link name="base"/><link name="a"/><link name="b"/><link name="c"/>
<link name="tip"/>
<joint name="1" type="continuous"><parent link="base"/><child link="a"/><axis xyz="0 0 1"/></joint>
<joint name="2" type="continuous"><parent link="a"/><child link="b"/><origin xyz="0.4 0 0"/>
<axis xyz="0 0 1"/></joint>
<joint name="3" type="continuous"><parent link="b"/><child link="c"/><origin xyz="0.3 0 0"/>
<axis xyz="0 0 1"/></joint>
<joint name="end" type="fixed"><parent link="c"/><child link="tip"/><origin xyz="0.1 0 0"/></joint>
</robot>"""


@pytest.fixture(scope="module")
def target(panda) -> np.ndarray:
    return Judge(panda).poses(MIDDLE)


def asked(solver: mik.IKSolver, target: np.ndarray, **options) -> tuple[Status, str]:
    result = solver.solve(target[None], seed=0, **options)
    return Status(result.status[0]), result.explain()


def boxed(panda: mik.Robot, half: float) -> mik.IKSolver:
    """Solves for a Panda whose joints stay so near to `MIDDLE`, rad."""
    robot = replace(panda, lower=MIDDLE - half, upper=MIDDLE + half)
    return mik.load_solver(robot, sampler="uniform")


def test_as_many_solutions_as_asked_for_are_said_to_be_there(uniform, target):
    assert asked(uniform, target, max_solutions=5) == (Status.SOLVED, "5 solutions")


def test_fewer_are_counted_with_the_starts_that_found_no_other(uniform, target):
    status, text = asked(uniform, target, max_solutions=5000)
    assert status == Status.FEWER_THAN_ASKED
    assert "of the 5000 asked for: 1024 starts found no other that differs by 0.01" in text
    status, text = asked(uniform, target, max_solutions=5000, max_rounds=1, num_samples=64)
    assert "64 starts (as many as max_rounds allows)" in text


def test_what_is_proven_beyond_reach_is_so_by_as_much_as_is_said(uniform, target):
    far = target.copy()
    for metres in (1.0, 2.5):
        far[0, :3, 3] = (metres, 0, 0.333)  # from the shoulder, where the first axes meet
        result = uniform.solve(far[None], seed=0)
        assert result.status[0] == Status.BEYOND_REACH
        amount = float(result.explain().split(" is ")[1].split(" m or more")[0])
        # the stretched arm is 0.855 m long, by its data sheet
        assert metres - 0.865 < amount <= metres - 0.855
        assert amount <= result.position_error[0, 0, 0] + 5e-4


@pytest.mark.parametrize("name", ["panda", "dual_panda"])
def test_nothing_that_is_solved_is_said_to_be_beyond_reach(name):
    robot = mik.load_robot(name)
    targets = reachable(robot, 200)
    result = mik.load_solver(robot, sampler="uniform").solve(targets, 64, 2, max_rounds=1, seed=0)
    assert not (result.status == Status.BEYOND_REACH).any()


def test_of_several_tips_the_one_that_is_out_of_reach_is_named():
    robot = mik.load_robot("dual_panda")
    targets = reachable(robot, 1)[0]
    targets[1, 0, 3] += 3.0
    status, text = asked(mik.load_solver(robot, sampler="uniform"), targets)
    assert status == Status.BEYOND_REACH and "right_panda_link8" in text


def test_a_position_without_the_orientation_says_how_near_it_comes(tmp_path):
    """An arm that turns about z only cannot tilt."""
    (tmp_path / "flat.urdf").write_text(FLAT)
    solver = mik.load_solver(tmp_path / "flat.urdf", sampler="uniform")
    target = solver.robot.forward(np.array([0.3, 0.8, -0.5]))
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]]
    status, text = asked(solver, target @ tilt)
    assert status == Status.ORIENTATION
    assert text.startswith("tip reaches the position but not with this orientation, in 1024 starts")
    assert text.endswith("found there is 0.4 rad off")


def test_a_solution_that_further_starts_find_is_said_to_be_there(uniform):
    result = uniform.solve(reachable(uniform.robot, 200), 4, 1, seed=0, max_rounds=1)
    missed = np.flatnonzero(~result.valid[:, 0])
    assert len(missed) and (result.status[missed] == Status.NOT_FOUND).all()
    for problem in missed.tolist():
        assert "; further starts found one" in result.explain(problem)


def test_a_pose_that_joints_reach_outside_their_limits_alone_names_the_joint(panda, target):
    corners = itertools.product((-0.05, 0.05), repeat=2)
    solver = boxed(panda, 0.02)
    for first, last in corners:
        q = MIDDLE + np.array([first, 0, 0, 0, 0, 0, last])
        status, text = asked(solver, Judge(panda).poses(q))
        assert status == Status.OUTSIDE_LIMITS
        beyond = float(text.split("panda_joint")[1].split()[1])
        assert 0.0 < beyond <= 0.05


def test_a_pose_that_touching_arms_reach_is_told_from_one_that_none_reaches(uniform, panda):
    folded = Judge(panda).poses(FOLDED)
    status, text = asked(uniform, folded, avoid_self_collision=True)
    assert status == Status.SELF_COLLISION and "touches the robot itself" in text
    assert asked(uniform, folded)[0] in (Status.SOLVED, Status.FEWER_THAN_ASKED)


def test_a_pose_inside_an_obstacle_is_told_from_one_that_none_reaches(uniform, panda, target):
    world = mik.World(panda)
    pose = np.eye(4)
    pose[:3, 3] = target[0, :3, 3]
    world.add_sphere("ball", 0.1, pose=pose)
    status, text = asked(uniform, target, world=world, max_solutions=4)
    assert status == Status.WORLD and "touches an obstacle" in text


def test_time_that_is_used_up_is_said_with_the_starts_that_there_were(uniform, panda):
    poses = reachable(panda, 400)
    result = uniform.solve(poses, 64, 64, seed=0, timeout=1e-4)
    late = np.flatnonzero(result.status == Status.TIME_USED_UP)
    assert len(late) > 300
    assert "used up after 0 starts; no configuration was looked at" in result.explain(late[-1])
    fewer = uniform.solve(poses[:1], 64, 5000, seed=0, timeout=1e-3)
    assert fewer.status[0] == Status.FEWER_THAN_ASKED
    assert "the time was used up after " in fewer.explain()


def test_free_axes_ask_for_nothing_that_could_be_out_of_reach(uniform, target):
    far = target.copy()
    far[0, :3, 3] += 5.0 * far[0, :3, 0]
    free = {"panda_link8": "x"}
    assert asked(uniform, far, free_axes=free)[0] == Status.SOLVED


def test_nothing_is_found_out_before_it_is_asked(uniform, target):
    far = target.copy()
    far[0, :3, 3] = (5, 0, 0)
    result = uniform.solve(far[None], seed=0)
    assert "_findings" not in vars(result)
    assert result.status[0] == Status.BEYOND_REACH and "_findings" in vars(result)


def test_a_result_that_was_sent_to_another_process_says_the_same(uniform, target):
    far = np.stack((target, target))
    far[1, 0, :3, 3] = (5, 0, 0)
    result = uniform.solve(far, max_solutions=3, seed=0)
    sent = pickle.loads(pickle.dumps(result))
    assert sent.status.tolist() == [Status.SOLVED, Status.BEYOND_REACH]
    assert [sent.explain(b) for b in (0, 1)] == [result.explain(b) for b in (0, 1)]


def test_it_costs_the_same_whether_a_target_is_alone_or_among_others(uniform, panda):
    """What is said of a target depends on the others in nothing."""
    poses = reachable(panda, 4)
    poses[1, 0, :3, 3] *= 1.2
    poses[2, 0, :3, 3] = (0.75, 0, 0.4)
    together = uniform.solve(poses, seed=0)
    for b in range(len(poses)):
        assert uniform.solve(poses[b : b + 1], seed=0).explain() == together.explain(b)

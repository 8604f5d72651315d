# SPDX-License-Identifier: Apache-2.0
"""Solutions free of a world, judged by Pinocchio and Coal pair by pair."""

import coal
import numpy as np
import pytest
from oracles import Judge, solutions_within_limits
from world_judge import WorldJudge

import meanflow_ik_core as mik
from meanflow_ik_core.collision.world_distance import WorldDistance
from meanflow_ik_core.evaluation.closed_form import ClosedForm

KEEP = np.array((0.4, 0.3, -0.2, -1.8, 0.1, 2.0, 0.5))


def clutter(robot: mik.Robot, seed: int, keep: np.ndarray):
    """Balls where solutions are, a configuration (J,) staying free; for the judge as well."""
    rng = np.random.default_rng(seed)
    world, judged, judge = mik.World(robot), {}, WorldJudge(robot)
    while len(judged) < 12:
        q = robot.lower + rng.random(robot.num_joints) * (robot.upper - robot.lower)
        moving = np.flatnonzero(judge.moves)
        T = np.eye(4)
        T[:3, 3] = judge.shape_poses(q)[rng.choice(moving)].translation + rng.normal(size=3) * 0.05
        ball = coal.Sphere(0.09), T
        if T[2, 3] > 0.25 and judge.distance(keep, {"it": ball}) > 0.02:
            name = f"ball{len(judged)}"
            judged[name] = ball
            world.add_sphere(name, 0.09, xyz=T[:3, 3])
    return world, judged, judge


def free_start(solver: mik.IKSolver, seed: int) -> np.ndarray:
    robot, rng = solver.robot, np.random.default_rng(seed)
    while True:
        unit = 0.2 + 0.6 * rng.random(robot.num_joints)
        q = robot.lower + unit * (robot.upper - robot.lower)
        if not solver.self_collision.in_collision(q[None])[0]:
            return q


@pytest.mark.parametrize("select", ["best", "diverse"])
@pytest.mark.parametrize(
    "name, sampler", [("panda", "uniform"), ("panda", "meanflow"), ("dual_panda", "uniform")]
)
def test_valid_rows_are_exact_and_free_and_others_say_why(name, sampler, select, request):
    robot = request.getfixturevalue(name)
    solver = mik.load_solver(robot, sampler=sampler)
    pose_judge = Judge(robot)
    rows = solved = 0
    for seed in range(4):
        keep = free_start(solver, seed)
        world, judged, judge = clutter(robot, seed, keep)
        target = robot.forward(keep)[None]
        result = solver.solve(
            target, max_solutions=8, seed=0, select=select, world=world, avoid_self_collision=True
        )
        valid = result.valid[0]
        solved += valid.any()
        for q in result.joint_positions[0, valid]:
            position, angle = pose_judge.errors(q, target[0])
            assert position.max() <= 1e-5 and angle.max() <= 1e-5
            assert not judge.touching(q, judged)
            assert not solver.self_collision.in_collision(q[None])[0]
            rows += 1
        errors = np.maximum(result.position_error[0], result.orientation_error[0]).max(-1)
        for row in np.flatnonzero((errors <= 1e-5) & ~valid):
            names = {(contact.link, contact.other) for contact in result.touches[0][row]}
            assert names >= judge.touching(result.joint_positions[0, row], judged)
            assert names
        assert all(not result.touches[0][row] for row in np.flatnonzero(valid))
        assert result.world_clearance.shape == result.valid.shape
        assert (result.world_clearance[0, valid] > -0.01).all()
    assert solved >= 3 and rows >= 12


def test_there_are_more_free_rows_than_rejection_leaves(panda):
    solver = mik.load_solver(panda, sampler="uniform")
    world, judged, judge = clutter(panda, 5, KEEP)
    target = panda.forward(KEEP)[None]
    many = dict(max_solutions=100, num_samples=1000, seed=0, select="diverse")
    plain = solver.solve(target, **many)
    free = sum(not judge.touching(q, judged) for q in plain.joint_positions[0, plain.valid[0]])
    assert 0 < free < 70
    assert solver.solve(target, world=world, **many).valid.sum() > 1.3 * free


def test_a_goal_inside_an_obstacle_has_no_valid_row_and_says_why(panda):
    solver = mik.load_solver(panda, sampler="uniform")
    target = panda.forward(KEEP)[None]
    world = mik.World(panda)
    world.add_sphere("ball", 0.1, xyz=target[0, 0, :3, 3])
    result = solver.solve(target, seed=0, max_solutions=4, world=world)
    assert not result.valid.any()
    assert any(contact.other == "ball" for contact in result.touches[0][0])


def test_a_far_world_changes_no_nearest_solution(panda):
    solver = mik.load_solver(panda, sampler="uniform")
    world = mik.World(panda)
    world.add_sphere("ball", 0.1, xyz=(9, 0, 0))
    near = solver.solve(
        panda.forward(KEEP)[None], seed=0, max_solutions=1, seed_state=KEEP, world=world
    )
    assert near.valid.all() and near.distance[0, 0] < 1e-3


def test_nearly_all_free_solutions_that_differ_are_found_where_they_are_few(panda):
    solver, closed_form = mik.load_solver(panda, sampler="uniform"), ClosedForm(panda)
    balls, judge = {}, WorldJudge(panda)
    target, rng, world = panda.forward(KEEP)[None], np.random.default_rng(0), mik.World(panda)
    known = solutions_within_limits(closed_form, target[0, 0], 500)
    free = np.ones(len(known), bool)
    while free.sum() > 120:  # balls at elbows, until few solutions are left
        ball = {"ball": (coal.Sphere(0.05), np.eye(4))}
        q = known[rng.choice(np.flatnonzero(free))]
        ball["ball"][1][:3, 3] = judge.shape_poses(q)[judge.links.index("panda_link4")].translation
        left = free.copy()
        left[free] = [not judge.touching(q, ball) for q in known[free]]
        if left.sum() > 40:
            free, name = left, f"ball{len(balls)}"
            balls[name] = ball["ball"]
            world.add_sphere(name, 0.05, xyz=balls[name][1][:3, 3])
    different: list[np.ndarray] = []
    for q in known[free]:
        if all(np.abs(q - other).max() >= 0.01 for other in different):
            different.append(q)
    result = solver.solve(
        target, world=world, max_solutions=200, num_samples=1000, seed=0, select="diverse"
    )
    rows = result.joint_positions[result.valid]
    assert len(different) < 150 and len(rows) >= 0.95 * len(different)
    assert not any(judge.touching(q, balls) for q in rows)


@pytest.mark.parametrize("solutions", [1, 5])
def test_the_answer_of_a_problem_does_not_depend_on_the_others(panda, solutions):
    solver = mik.load_solver(panda, sampler="uniform")
    q = np.stack([free_start(solver, seed) for seed in range(4)])
    world, _, _ = clutter(panda, 5, q[0])
    targets = panda.forward(q)
    together = solver.solve(targets, seed=0, max_solutions=solutions, world=world)
    for row in range(4):
        alone = solver.solve(targets[row : row + 1], seed=0, max_solutions=solutions, world=world)
        assert np.array_equal(
            alone.joint_positions[0], together.joint_positions[row], equal_nan=True
        )


@pytest.mark.parametrize(
    "options",
    [
        dict(free_axes={"panda_link8": "rx ry rz"}),
        dict(objectives=[{"name": "clearance", "towards": "world", "margin": 0.1}]),
        dict(objectives=[{"name": "clearance", "towards": "all"}, "manipulability"]),
        dict(timeout=0.2),
        dict(max_rounds=1),
    ],
    ids=str,
)
def test_rows_are_free_whatever_else_is_asked(panda, options):
    solver = mik.load_solver(panda, sampler="uniform")
    world, judged, judge = clutter(panda, 5, KEEP)
    result = solver.solve(
        panda.forward(KEEP)[None], seed=0, max_solutions=6, world=world, **options
    )
    assert result.valid.any()
    assert not any(judge.touching(q, judged) for q in result.joint_positions[result.valid])


def test_clearance_towards_the_world_moves_solutions_away(panda):
    solver = mik.load_solver(panda, sampler="uniform")
    world, _, _ = clutter(panda, 5, KEEP)
    target = panda.forward(KEEP)[None]
    away = {"name": "clearance", "towards": "world", "margin": 0.15, "weight": 100.0}
    plain = solver.solve(target, seed=0, max_solutions=4, world=world)
    moved = solver.solve(target, seed=0, max_solutions=4, world=world, objectives=[away])
    assert moved.world_clearance[moved.valid].mean() > plain.world_clearance[plain.valid].mean()
    with pytest.raises(mik.OptionError, match="no world is given"):
        solver.solve(target, objectives=[away])
    with pytest.raises(mik.OptionError, match="it is one of self, world, all"):
        solver.solve(target, objectives=[{"name": "clearance", "towards": "wall"}])


def test_another_robots_world_is_refused(panda, dual_panda):
    solver = mik.load_solver("panda", sampler="uniform")
    with pytest.raises(mik.WorldError, match="dual_panda"):
        solver.solve(np.eye(4)[None], world=mik.World(dual_panda))
    with pytest.raises(mik.WorldError, match="must be a World"):
        solver.solve(np.eye(4)[None], world="table")  # type: ignore


def test_a_seed_in_which_an_attached_object_touches_is_warned_of_once(caplog):
    solver = mik.load_solver("panda", sampler="uniform")
    T_base_tip = np.asarray(solver.robot.forward(KEEP))
    can = T_base_tip[0] @ solver.robot.tip_offset("panda_hand_tcp")[1]
    world = mik.World(solver.robot)
    world.add_cylinder("can", 0.02, 0.1, pose=can)
    world.add_sphere("table", 0.02, pose=can)
    world.attach("can", "panda_hand", q=KEEP)
    with caplog.at_level("WARNING"):
        solver.solve(T_base_tip, world=world, seed=0)
        assert not caplog.messages
        for _ in range(2):
            solver.solve(T_base_tip, seed_state=KEEP, world=world, seed=0)
            # another state of the world, and the same contact
            world.add_sphere("elsewhere", 0.1, xyz=(0, 0, 3), replace=True)
    (said,) = caplog.messages
    assert said.startswith("touching in the seed state: can and table by 40.0 mm; where")


def test_many_contacts_of_a_seed_are_one_line(caplog):
    solver = mik.load_solver("panda", sampler="uniform")
    T_base_tip = np.asarray(solver.robot.forward(KEEP))
    can = T_base_tip[0] @ solver.robot.tip_offset("panda_hand_tcp")[1]
    world = mik.World(solver.robot)
    for number in range(20):
        world.add_sphere(f"can{number}", 0.01, pose=can)
        world.attach(f"can{number}", "panda_hand", q=KEEP)
        world.add_sphere(f"table{number}", 0.02 if number else 0.03, pose=can)
    with caplog.at_level("WARNING"):
        solver.solve(T_base_tip, seed_state=KEEP, world=world, seed=0)
    (said,) = caplog.messages
    assert "and table0 by 40.0 mm" in said and "and 397 more" in said and len(said) < 290


def test_clearances_of_some_rows_are_those_of_all_and_no_other_row_is_looked_at(
    uniform, monkeypatch
):
    world = mik.World(uniform.robot)
    world.add_sphere("ball", 0.2, xyz=(0.4, 0.3, 0.4))
    targets = uniform.robot.forward(
        uniform.robot.random_configurations(3, np.random.default_rng(5))
    )
    result = uniform.solve(
        targets, max_solutions=30, seed=0, world=world, avoid_self_collision=True
    )
    assert result.clearance is not None and result.world_clearance is not None
    asked, exact = [], WorldDistance.of

    def counted(self, q, *arguments, **options):
        asked.append(len(q))
        return exact(self, q, *arguments, **options)

    monkeypatch.setattr(WorldDistance, "of", counted)
    some = np.zeros(result.valid.shape, bool)
    some[:, ::4] = True
    own, around = result.clearances(some)
    assert asked == [some.sum()]
    np.testing.assert_array_equal(own, result.clearance[some])
    np.testing.assert_array_equal(around, result.world_clearance[some])

# SPDX-License-Identifier: Apache-2.0
"""What objectives do to samples and solutions: better by the objective, exact as before."""

import numpy as np
import pytest
import torch
from example_robots import draw
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.collision.self_collision import SelfCollision
from meanflow_ik_core.objectives import build_objectives
from meanflow_ik_core.solving.goal import Guidance
from meanflow_ik_core.solving.guidance import _descended
from meanflow_ik_core.solving.null_space import improve
from meanflow_ik_core.solving.refine import refine_lm

READY = (0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785)
ELBOW = {"name": "link_point", "link": "panda_link4", "position": (0.0, 0.6, 0.4)}
SPECS = {
    "posture": {"name": "posture", "posture": READY},
    "manipulability": "manipulability",
    "joint_limits": "joint_limits",
    "clearance": {"name": "clearance", "margin": 0.15},
    "link_point": ELBOW,
    "link_direction": {"name": "link_direction", "link": "panda_link4", "direction": (0, 0, 1)},
    "custom": {"name": "custom", "function": lambda q, robot: (q[..., 0] - 1) ** 2},
}


def spec_for(robot: mik.Robot, name: str):
    """The specification with the robot's own links and joints."""
    spec = SPECS[name]
    if robot.name == "panda" or isinstance(spec, str):
        return spec
    links = [link for link in robot.frames if link.endswith(spec.get("link", "nothing"))]
    spec = {**spec, **({"link": links[0]} if links else {})}
    return {**spec, "posture": READY + READY} if name == "posture" else spec


def exact(robot: mik.Robot):
    return lambda starts, T_base_tip: refine_lm(robot, starts.numpy(), T_base_tip)


@pytest.mark.parametrize("robot_name", ["panda", "dual_panda"])
@pytest.mark.parametrize("name", SPECS)
def test_the_null_space_keeps_poses_exact_and_lowers_the_value(name, robot_name):
    robot = mik.load_robot(robot_name)
    q = draw(robot, 40)
    T_base_tip = robot.forward(q)
    objectives = build_objectives([spec_for(robot, name)], robot)
    better = improve(robot, objectives, q.numpy(), T_base_tip.numpy(), q.numpy(), exact(robot))
    assert better.q.shape == (40, 1, robot.num_joints)
    found = better.q[:, 0]
    assert better.converged.all() and robot.within_limits(found).all()
    judge = Judge(robot)
    assert all(judge.accepts(*row) for row in zip(found, T_base_tip.numpy(), strict=True))
    before, after = objectives[0].value(q), objectives[0].value(torch.from_numpy(found))
    assert (after <= before + 1e-6).all()
    assert after.mean() < before.mean() - 0.02 * before.std()


def test_without_a_null_space_nothing_moves(torso):
    q = draw(torso, 20)
    objectives = build_objectives(["posture"], torso)
    better = improve(
        torso, objectives, q.numpy(), torso.forward(q).numpy(), 0 * q.numpy(), exact(torso)
    )
    assert np.abs(better.q[:, 0] - q.numpy()).max() < 1e-4
    assert better.converged.all()


def test_axes_that_are_not_asked_for_are_free_to_the_null_space(panda):
    q = draw(panda, 20)
    T_base_tip = panda.forward(q).numpy()
    given = np.array([[True, True, True, False, False, False]])

    def position_only(starts, poses):
        return refine_lm(
            panda, starts.numpy(), poses, orientation_tolerance=np.inf, orientation_weight=0.0
        )

    objectives = build_objectives([SPECS["posture"]], panda)
    values = []
    for free in (None, given):
        better = improve(
            panda, objectives, q.numpy(), T_base_tip, q.numpy(), position_only, 10, free
        )
        found = torch.from_numpy(better.q[:, 0])
        reached = panda.forward(found)[:, 0, :3, 3].numpy()
        assert np.linalg.norm(reached - T_base_tip[:, 0, :3, 3], axis=-1).max() < 1e-5
        values.append(objectives[0].value(found).mean().item())
    assert values[1] < values[0] - 1


def test_joints_stay_within_limits_where_the_objective_pulls_beyond(panda):
    q = draw(panda, 60, seed=2)
    spec = {"name": "custom", "function": lambda q, robot: q[..., 3]}  # downwards without end
    better = improve(
        panda, build_objectives([spec], panda), q.numpy(), panda.forward(q).numpy(), q.numpy(),
        exact(panda), 20,
    )  # fmt: skip
    assert panda.within_limits(better.q).all() and better.converged.all()
    at_limit = (better.q[:, 0] < panda.lower + 1e-6) | (better.q[:, 0] > panda.upper - 1e-6)
    assert at_limit.any()


@pytest.mark.parametrize("name", SPECS)
def test_solutions_are_better_and_as_exact(learned, name):
    robot, judge = learned.robot, Judge(learned.robot)
    T_base_tip = robot.forward(draw(robot, 5, seed=4)).numpy()
    plain = learned.solve(T_base_tip, 64, 8, READY, seed=1)
    result = learned.solve(
        T_base_tip, 64, 8, READY, seed=1, objectives=[SPECS[name]], distance_weight=0.0
    )
    assert result.valid[:, 0].all()
    assert (result.valid.sum(1) >= plain.valid.sum(1)).all()
    for problem in range(5):
        for q in result.joint_positions[problem][result.valid[problem]]:
            assert judge.accepts(q, T_base_tip[problem])
    (objective,) = build_objectives([SPECS[name]], robot)
    before = objective.value(torch.from_numpy(plain.joint_positions[:, 0]))
    after = objective.value(torch.from_numpy(result.joint_positions[:, 0]))
    assert (after <= before + 1e-6).all() and after.mean() < before.mean()
    np.testing.assert_allclose(result.objective_values[:, 0, 0], after.numpy(), rtol=1e-9)


def test_the_cost_holds_the_weighted_values_and_orders_the_rows(learned):
    robot = learned.robot
    T_base_tip = robot.forward(draw(robot, 3, seed=5)).numpy()
    specs = [{"name": "joint_limits", "weight": 3.0}, {"name": "manipulability", "weight": 0.5}]
    result = learned.solve(T_base_tip, 64, 8, READY, seed=1, objectives=specs)
    assert result.objective_values.shape == (3, 8, 2)
    error = (result.position_error + result.orientation_error).sum(-1)
    expected = 1000 * error + result.distance + result.objective_values @ (3.0, 0.5)
    np.testing.assert_allclose(result.cost, expected, rtol=1e-9)
    for problem in range(3):
        cost = result.cost[problem][result.valid[problem]]
        assert (np.diff(cost) >= 0).all()


def test_what_was_not_asked_for_is_not_there(learned):
    T_base_tip = learned.robot.forward(np.array([READY]))
    plain = learned.solve(T_base_tip, 16, 2, seed=0)
    assert plain.objective_values is None and plain.clearance is None
    checked = learned.solve(T_base_tip, 16, 2, seed=0, avoid_self_collision=True)
    assert checked.clearance.shape == (1, 2) and (checked.clearance[checked.valid] > -0.02).all()


def test_rows_without_a_candidate_have_no_values(learned):
    T_base_tip = learned.robot.forward(np.array([READY]))
    result = learned.solve(
        T_base_tip, 4, 2000, seed=0, objectives=["clearance"], distance_weight=0.0
    )
    empty = np.isnan(result.joint_positions).any(-1)
    assert empty.any()
    assert (
        np.isnan(result.objective_values[empty]).all() and np.isnan(result.clearance[empty]).all()
    )
    assert np.isinf(result.cost[empty]).all()


@pytest.mark.parametrize("name", ["manipulability", "posture", "custom"])
def test_objectives_of_few_joints_take_rows_without_a_candidate(name):
    robot = mik.load_robot(mik.load_robot("panda").urdf_path, tips=["panda_link3"])
    seen = []

    def function(q, robot):
        seen.append(bool(torch.isfinite(q).all()))
        return q[..., 0]

    spec = {"name": name, **({"function": function} if name == "custom" else {})}
    q = draw(robot, 3, seed=3).numpy()
    solver = mik.load_solver(robot, sampler="uniform")
    result = solver.solve(robot.forward(q), 4, 2000, seed=0, objectives=[spec])
    empty = np.isnan(result.joint_positions).any(-1)
    assert result.valid.any(-1).all() and empty.any() and all(seen)
    np.testing.assert_array_equal(np.isnan(result.objective_values[..., 0]), empty)


@pytest.mark.parametrize("name", ["meanflow", "uniform"])
def test_no_target_at_all_is_no_error(name, learned, uniform):
    used = learned if name == "meanflow" else uniform
    result = used.solve(np.zeros((0, 4, 4)), 8, 3, objectives=["posture", "clearance"])
    assert result.objective_values.shape == (0, 3, 2) and result.clearance.shape == (0, 3)
    for options in ({"guidance_steps": 0}, {"guidance_steps": 1}):
        q = used.sample(np.zeros((0, 4, 4)), 5, objectives=["posture"], **options)
        assert q.shape == (0, 5, used.robot.num_joints)


def test_a_step_acts_in_the_ranking(uniform):
    wish = {"name": "custom", "function": lambda q, robot: q[..., 0] > 0, "weight": 100.0}
    target = uniform.robot.forward(np.array([READY]))
    result = uniform.solve(
        target, 32, 200, seed=0, objectives=[wish], guidance_choices=1, max_rounds=1
    )
    behind = result.joint_positions[0, result.valid[0], 0] > 0
    np.testing.assert_array_equal(result.objective_values[0, result.valid[0], 0], behind)
    assert behind.any() and not behind.all() and (np.diff(behind.astype(int)) >= 0).all()


def test_the_diverse_choice_is_kept_in_number_and_exactness(learned):
    T_base_tip = learned.robot.forward(draw(learned.robot, 3, seed=6)).numpy()
    result = learned.solve(
        T_base_tip, 64, 16, READY, seed=1, select="diverse", objectives=["manipulability"]
    )
    plain = learned.solve(T_base_tip, 64, 16, READY, seed=1, select="diverse")
    assert (result.valid.sum(1) >= plain.valid.sum(1)).all()
    judge = Judge(learned.robot)
    for problem in range(3):
        rows = result.joint_positions[problem][result.valid[problem]]
        assert all(judge.accepts(q, T_base_tip[problem]) for q in rows)
        gap = np.abs(rows[:, None] - rows).max(-1) + np.eye(len(rows))
        assert gap.min() >= 0.01


def test_no_step_ends_in_self_collision(learned):
    robot = learned.robot
    T_base_tip = robot.forward(draw(robot, 20, seed=8)).numpy()
    # draws the elbow into the base
    spec = {"name": "link_point", "link": "panda_link4", "position": (0, 0, 0), "weight": 10.0}
    result = learned.solve(
        T_base_tip, 64, 8, READY, seed=1, objectives=[spec], avoid_self_collision=True
    )
    assert result.valid.any(1).sum() > 10
    assert not SelfCollision(robot).in_collision(result.joint_positions[result.valid]).any()


def test_a_hopeless_target_stays_without_solution(learned):
    T_base_tip = np.eye(4)[None].copy()
    T_base_tip[0, 0, 3] = 3.0
    result = learned.solve(T_base_tip, 32, 4, READY, seed=0, objectives=["manipulability"])
    assert not result.valid.any() and np.isfinite(result.position_error[0, 0]).all()


def test_a_robot_with_several_tips_takes_objectives(torso):
    solver, judge = mik.load_solver(torso, sampler="uniform"), Judge(torso)
    T_base_tip = torso.forward(draw(torso, 4, seed=3)).numpy()
    specs = ["posture", "manipulability", "joint_limits", "clearance"]
    result = solver.solve(T_base_tip, 128, 4, seed=0, objectives=specs)
    assert result.objective_values.shape == (4, 4, 4) and result.valid[:, 0].all()
    for problem in range(4):
        for q in result.joint_positions[problem][result.valid[problem]]:
            assert judge.accepts(q, T_base_tip[problem])


@pytest.mark.parametrize("name", ["posture", "manipulability", "joint_limits", "link_point"])
@pytest.mark.parametrize(("choices", "steps"), [(4, 0), (1, 3)])
def test_guided_samples_are_better_and_still_aim_at_the_target(learned, name, choices, steps):
    robot = learned.robot
    T_base_tip = robot.forward(draw(robot, 20, seed=9))
    (objective,) = build_objectives([SPECS[name]], robot)
    results = []
    for specs in ([], [SPECS[name]]):
        q = learned.sample(
            T_base_tip, 32, seed=0, objectives=specs, guidance_choices=choices,
            guidance_steps=steps,
        ).double()  # fmt: skip
        assert q.shape == (20, 32, 7) and robot.within_limits(q.numpy(), 1e-6).all()
        error = (robot.forward(q) - T_base_tip[:, None])[..., :3, 3].norm(dim=-1)
        results.append((objective.value(q), error.mean().item()))
    (plain, plain_error), (guided, guided_error) = results
    assert guided.mean() < plain.mean() - 0.1 * plain.std()
    assert guided_error < 1.25 * plain_error


def test_guidance_repeats_with_its_seed(learned):
    T_base_tip = learned.robot.forward(np.array([READY]))
    drawn = [learned.sample(T_base_tip, 8, seed=seed, objectives=["posture"]) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 1e-3


def test_samples_come_near_the_current_joints_on_request(learned, uniform):
    robot = learned.robot
    q = draw(robot, 10, seed=1)
    T_base_tip = robot.forward(q).numpy()
    for which in (learned, uniform):
        far = which.sample(T_base_tip, 64, seed=0)
        near = which.sample(T_base_tip, 64, seed=0, near=q.numpy())
        distance = [np.linalg.norm(x - q.numpy()[:, None], axis=-1).mean() for x in (far, near)]
        assert distance[1] < 0.85 * distance[0]
    with pytest.raises(mik.SeedError, match="near"):
        learned.sample(T_base_tip, 4, near=np.full(7, 9.0))


def test_uniform_starts_are_chosen_among_more(uniform):
    T_base_tip = uniform.robot.forward(np.array([READY]))
    (objective,) = build_objectives(["joint_limits"], uniform.robot)
    plain = torch.from_numpy(uniform.sample(T_base_tip, 100, seed=0))
    chosen = torch.from_numpy(uniform.sample(T_base_tip, 100, seed=0, objectives=["joint_limits"]))
    assert chosen.shape == plain.shape
    assert objective.value(chosen).mean() < 0.8 * objective.value(plain).mean()


def test_steps_keep_the_noise_as_probable_as_it_was(learned):
    robot = learned.robot
    T_base_tip = robot.forward(draw(robot, 3))
    joints = learned._samplers["meanflow"].map_from_noise(T_base_tip)
    noise = torch.randn(3, 16, 7, generator=torch.Generator().manual_seed(0))
    goals = build_objectives(["manipulability"], robot)
    moved = _descended(noise, joints, goals, Guidance(1, 5))
    torch.testing.assert_close(moved.norm(dim=-1), noise.norm(dim=-1), rtol=1e-4, atol=1e-4)
    assert (moved - noise).norm(dim=-1).min() > 0.1
    satisfied = build_objectives([{"name": "clearance", "margin": 1e-6}], robot)
    free = satisfied[0].value(joints(noise)) == 0
    still = _descended(noise, joints, satisfied, Guidance(1, 1))
    torch.testing.assert_close(still[free], noise[free])


@pytest.mark.parametrize(("poses", "count"), [(3, 6000), (50, 200)])
def test_every_sample_of_a_large_batch_is_guided(uniform, poses, count):
    """More samples than are held in memory at once."""
    T_base_tip = uniform.robot.forward(draw(uniform.robot, poses)).numpy()
    plain, guided = (
        uniform.sample(T_base_tip, count, seed=0, objectives=objectives, near=near)
        for objectives, near in (([], None), (["posture"], READY))
    )
    assert guided.shape == (poses, count, 7)
    assert len(np.unique(guided.reshape(-1, 7), axis=0)) == poses * count
    parts = np.stack(np.split(np.linalg.norm(guided - READY, axis=-1), 20, axis=1))
    assert parts.mean((1, 2)).max() < 0.9 * np.linalg.norm(plain - READY, axis=-1).mean()


@pytest.mark.parametrize(
    "options",
    [{"guidance_choices": 0}, {"guidance_steps": -1}, {"guidance_choices": 1.5}],
)
def test_bad_options_of_guidance_are_refused(learned, options):
    T_base_tip = learned.robot.forward(np.array([READY]))
    with pytest.raises(mik.OptionError, match=next(iter(options)).split("_")[1]):
        learned.sample(T_base_tip, 4, objectives=["posture"], **options)
    with pytest.raises(mik.OptionError, match="objective_steps"):
        learned.solve(T_base_tip, 4, objectives=["posture"], objective_steps=-1)


@pytest.mark.parametrize("sampler", ["meanflow", "uniform"])
def test_axes_left_free_give_objectives_room(sampler, learned, uniform):
    which = learned if sampler == "meanflow" else uniform
    robot = which.robot
    q = draw(robot, 6, seed=12)
    T_base_tip = robot.forward(q).numpy()
    lowest = []
    for free_axes in (None, {"panda_link8": "rx ry rz"}):
        result = which.solve(
            T_base_tip, 64, 4, READY, seed=0, objectives=[SPECS["posture"]], free_axes=free_axes,
            distance_weight=0.0,
        )  # fmt: skip
        assert result.valid[:, 0].all()
        reached = robot.forward(result.joint_positions[:, 0])[:, 0, :3, 3]
        assert np.linalg.norm(reached - T_base_tip[:, 0, :3, 3], axis=-1).max() < 1e-5
        lowest.append(result.objective_values[:, 0, 0])
    assert (lowest[1] < lowest[0] + 1e-6).all() and lowest[1].mean() < lowest[0].mean() - 1


def test_an_arm_without_a_target_is_where_the_objective_wants_it(dual_panda):
    solver = mik.load_solver(dual_panda, sampler="uniform")
    q = draw(dual_panda, 3, seed=2)
    T_base_tip = dual_panda.forward(q).numpy()
    ready = np.array(READY + READY)
    spec = {"name": "posture", "posture": ready.tolist()}
    result = solver.solve(
        T_base_tip[:, :1], 64, 2, seed=0, tips=dual_panda.tips[:1], objectives=[spec],
        objective_steps=30, distance_weight=0.0,
    )  # fmt: skip
    assert result.valid[:, 0].all()
    judge = Judge(dual_panda)
    arm = np.abs(dual_panda.jacobian(ready)[1]).max(0) > 0  # joints that move the second tip
    for problem in range(3):
        best = result.joint_positions[problem, 0]
        position, angle = judge.errors(best, T_base_tip[problem])
        assert position[0] < 1e-5 and angle[0] < 1e-5
        np.testing.assert_allclose(best[arm], ready[arm], atol=0.02)

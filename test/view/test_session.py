# SPDX-License-Identifier: Apache-2.0
"""What the viewer asks and answers, without a browser."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.view.export import as_csv, as_json
from meanflow_ik_core.view.session import Session, joined, tool_centres


@pytest.fixture
def session():
    return Session(mik.load_solver("panda", sampler="uniform"))


def wish(session, **change):
    session.wishes = replace(session.wishes, **change)


def test_a_target_is_for_the_tools_centre_where_the_robot_names_one(session):
    assert session.robot.tips == ("panda_hand_tcp",)
    both = mik.load_robot("dual_panda")
    assert tool_centres(both) == ["left_panda_hand_tcp", "right_panda_hand_tcp"]
    assert tool_centres(mik.load_robot(session.robot.urdf_path, tips=["panda_link5"])) == []


def test_arms_reach_the_target_and_the_best_is_the_solid_one(session):
    session.targets[0, :3, 3] = (0.45, 0.1, 0.35)
    answer = session.solve()
    assert answer.valid.all() and len(answer.joint_positions) == 12
    judge = Judge(session.robot)
    for q in answer.joint_positions:
        assert np.abs(judge.poses(q) - session.targets).max() < 2e-5
    assert np.array_equal(session.current, answer.joint_positions[0])


def test_the_solid_arm_stays_near_while_the_target_moves(session):
    session.solve()
    for _ in range(20):
        before = session.current
        session.targets[0, 1, 3] += 0.01
        session.solve()
        assert np.abs(session.current - before).max() < 0.2


def test_a_target_out_of_reach_shows_the_nearest_arm_and_says_why(session):
    session.targets[0, :3, 3] = (2.0, 0.0, 0.3)
    answer = session.solve()
    assert not answer.valid.any() and len(answer.joint_positions) == 1
    assert answer.position_error.min() > 0.5 and "reach" in answer.sentence
    with pytest.raises(mik.SeedError, match="from the target"):
        session.self_motions()


def test_wishes_are_met(session):
    wish(session, arms=5, free_axes={"panda_hand_tcp": "rz"}, select="best")
    answer = session.solve()
    assert len(answer.joint_positions) == 5 and answer.orientation_error.max() < 1e-4
    turned = session.robot.forward(answer.joint_positions)[:, 0, :3, 0]
    assert np.abs(turned - session.targets[0, :3, 0]).max() > 0.01
    wish(session, free_axes={"panda_hand_tcp": "up"})
    with pytest.raises(mik.OptionError, match="'up'"):
        session.solve()


def test_more_arms_cover_more_of_the_set(session):
    shares = []
    for arms in (2, 16, 64):
        wish(session, arms=arms)
        share, known = session.coverage(session.solve().joint_positions)
        shares.append(share)
        assert known > 300
    assert 0 < shares[0] < shares[1] < shares[2] <= 1
    assert session.coverage(np.empty((0, 7)))[0] == 0


def test_the_solver_keeps_its_sampler_after_the_coverage_is_measured():
    solver = mik.load_solver("panda")
    session = Session(solver)
    assert session.samplers == ["meanflow", "uniform"]
    session.coverage(session.solve().joint_positions)
    session.solve()
    assert solver.sampler == "meanflow"


def test_obstacles_are_avoided(session):
    free = session.solve().joint_positions
    elbow = session.robot.arrays.node_poses(free[:1])[0, 3, :3, 3]
    session.world.add_sphere("ball", 0.06, xyz=elbow)
    assert session.world.in_collision(free).any()
    around = session.solve()
    assert around.valid.any() and not session.world.in_collision(around.joint_positions).any()
    (walk,) = session.self_motions()
    assert not session.world.in_collision(walk.joint_positions).any()


def test_the_arm_follows_the_target_no_faster_than_it_may(session):
    session.solve()
    start = session.current
    session.targets[0, :3, 3] += (0.1, 0.1, 0.0)
    fastest = session.wishes.speed * session.robot.velocity_limit / 60
    for _ in range(600):
        before = session.current
        step = session.follow(1 / 60)
        assert (np.abs(session.current - before) <= fastest * 1.001).all()
        if step.status.value == "reached":
            break
    assert step.status.value == "reached" and np.abs(session.current - start).max() > 0.05


def test_the_arm_that_follows_stops_before_an_obstacle(session):
    session.solve()
    session.targets[0, :3, 3] += (0.0, 0.3, 0.0)
    session.world.add_box("wall", (1.0, 0.02, 1.0), xyz=(0.6, 0.25, 0.5))
    for _ in range(400):
        step = session.follow(1 / 60)
        assert not session.world.in_collision(session.current)
    assert step.status.value != "reached"


def test_exports_hold_the_solutions(session):
    answer = session.solve()
    content = json.loads(as_json(session, answer))
    assert content["robot"] == "panda" and content["tips"] == ["panda_hand_tcp"]
    assert np.array_equal(content["joint_positions"], answer.joint_positions)
    rows = list(csv.DictReader(io.StringIO(as_csv(session, answer).decode())))
    assert len(rows) == len(answer.joint_positions)
    assert float(rows[0]["panda_joint4"]) == answer.joint_positions[0, 3]
    assert rows[0]["valid"] == "1"


def test_a_world_of_another_robot_is_refused(session):
    with pytest.raises(mik.WorldError, match="another robot"):
        Session(session.solver, world=mik.World(mik.load_robot("dual_panda")))
    with pytest.raises(mik.LinkError, match="nowhere"):
        Session(session.solver, ["nowhere"])


def test_arms_keep_their_places():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(8, 7))
    order = rng.permutation(8)
    assert np.array_equal(joined(before, before[order] + 1e-3), order)
    # five new ones, into places of which some are empty: each gets its own
    before[3:] = np.nan
    places = joined(before, rng.normal(size=(5, 7)))
    assert len(set(places.tolist())) == 5

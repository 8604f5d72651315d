# SPDX-License-Identifier: Apache-2.0
"""Obstacles: what touches is what Coal says of each pair, and bad input is refused by name."""

import gc
import pickle
import threading
import weakref
from copy import copy as copied

import coal
import numpy as np
import pinocchio as pin
import pytest
import torch
from oracles import Judge
from world_judge import WorldJudge, cube, furnished, pose, solutions

import meanflow_ik_core as mik
from meanflow_ik_core.collision import sphere_bodies

HELD = {"panda_finger_joint1": 0.03}


@pytest.mark.parametrize("margin", [0.0, 0.02])
@pytest.mark.parametrize("name", ["panda", "dual_panda", "torso"])
def test_what_touches_is_what_coal_says_of_each_pair(name, margin, request):
    robot = request.getfixturevalue(name)
    world, obstacles = furnished(robot, 1, margin)
    judge = WorldJudge(robot)
    q = solutions(robot, 150)
    expected = [judge.touching(row, obstacles, margin) for row in q]
    assert world.in_collision(q).tolist() == [bool(pairs) for pairs in expected]
    found = [{(link, other) for link, other, _ in contacts} for contacts in world.contacts(q)]
    assert found == expected
    assert len({other for pairs in expected for _, other in pairs}) > 5


def test_padding_of_object_world_and_link_add_up(panda):
    robot = mik.load_robot("panda")
    robot.padding.clear()
    robot.padding["panda_hand"] = 0.03
    world = mik.World(robot, padding=0.02)
    q = 0.5 * (robot.lower + robot.upper)
    hand = WorldJudge(robot)
    ball = {"ball": (coal.Sphere(0.02), np.eye(4))}
    place = hand.shape_poses(q)[hand.links.index("panda_hand")]
    for gap, touches in ((0.0595, True), (0.0605, False)):
        T = np.eye(4)
        # the hand's box is 0.05 thick along x
        T[:3, 3] = place.act(np.array((0.025 + gap + 0.02, 0.09, 0)))
        ball["ball"] = (ball["ball"][0], T)
        assert abs(hand.distance(q, ball) - gap) < 1e-6
        world.add_sphere("ball", 0.02, xyz=T[:3, 3], padding=0.01, replace=True)
        assert world.in_collision(q) == touches
    contact = world.contacts(q)
    assert contact == []


def test_a_moved_obstacle_counts_at_once_and_a_snapshot_stays(panda):
    world = mik.World(panda)
    q = solutions(panda, 200)
    world.add_box("box", (0.2, 0.2, 0.2), xyz=(0.4, 0, 0.4))
    before, here = world.snapshot(), world.in_collision(q)
    world.move("box", xyz=(-0.4, 0.1, 0.6))
    other = mik.World(panda)
    other.add_box("box", (0.2, 0.2, 0.2), xyz=(-0.4, 0.1, 0.6))
    there = other.in_collision(q)
    assert (here != there).any()
    for _ in range(2):
        assert world.in_collision(q).tolist() == there.tolist()
        assert before.in_collision(q).tolist() == here.tolist()
    gaps = world.distance(q)
    assert np.abs(gaps - other.distance(q)).max() < 1e-12


def test_a_copy_goes_its_own_way(panda):
    world = mik.World(panda)
    world.add_sphere("ball", 0.2, xyz=(0.4, 0, 0.4))
    for copy in (world.copy(), copied(world)):
        copy.remove("ball")
        copy.add_sphere("other", 0.1)
        assert world.names() == ["ball"] and copy.names() == ["other"]
    assert world.copy().in_collision(solutions(panda, 50)).any()


def test_allowed_pairs_do_not_count_until_they_are_forbidden(panda):
    world, obstacles = furnished(panda, 2)
    q = solutions(panda, 100, 3)
    judge = WorldJudge(panda)
    expected = [judge.touching(row, obstacles) for row in q]

    def found():
        return [{(link, other) for link, other, _ in contacts} for contacts in world.contacts(q)]

    world.allow("panda_hand", "*")
    without = [{pair for pair in pairs if pair[0] != "panda_hand"} for pairs in expected]
    assert without != expected and found() == without
    assert world.in_collision(q).tolist() == [bool(pairs) for pairs in without]
    world.forbid("panda_hand", "wall")
    wall = [{p for p in pairs if p[0] != "panda_hand" or p[1] == "wall"} for pairs in expected]
    assert found() == wall
    world.forbid("panda_hand", "*")
    assert found() == expected


def test_held_joints_stand_where_they_are_held(panda):
    world, obstacles = furnished(panda, 4)
    q = solutions(panda, 300, 5)
    world.hold(HELD)
    judge = WorldJudge(panda, HELD)
    expected = [bool(judge.touching(row, obstacles)) for row in q]
    assert world.in_collision(q).tolist() == expected


@pytest.mark.parametrize("name, arm", [("panda", ""), ("dual_panda", "left_")])
def test_the_fingers_are_open_unless_they_are_held_elsewhere(name, arm):
    robot = mik.load_robot(name)
    world, q = mik.World(robot), 0.5 * (robot.lower + robot.upper)
    tip, T_tip_tcp = robot.tip_offset(f"{arm}panda_hand_tcp")
    world.add_sphere("ball", 0.03, pose=np.asarray(robot.forward(q))[tip] @ T_tip_tcp)
    assert not world.in_collision(q)
    world.hold({f"{arm}panda_finger_joint1": 0.02})
    fingers = {f"{arm}panda_leftfinger", f"{arm}panda_rightfinger"}
    assert {contact.link for contact in world.contacts(q)} == fingers


@pytest.mark.parametrize("name", ["panda", "dual_panda"])
def test_a_hold_moves_what_is_built_to_where_it_would_be_built(name):
    robot = mik.load_robot(name)
    arm = robot.joint_names[0].removesuffix("panda_joint1")
    world, obstacles = furnished(robot, 4)
    world.add_box("tool", (0.01, 0.01, 0.1))
    world.attach("tool", f"{arm}panda_leftfinger", pose=pose_at(0, 0, 0.05))
    q = solutions(robot, 40, 5)
    world.distance(q), world.in_collision(q), world.on_robot(np.zeros((1, 3)), q[0])
    structure = world.snapshot().structure
    for opening in (0.0, 0.03, 0.04):
        held = {f"{arm}panda_finger_joint1": opening}
        world.hold(held)
        judge = WorldJudge(robot, held)
        touching = [set(judge.touching(row, obstacles)) for row in q]
        found = [
            {(link, other) for link, other, _ in contacts if link != "tool"}
            for contacts in world.contacts(q)
        ]
        assert found == touching
        anew = pickle.loads(pickle.dumps(world))  # without what is built
        np.testing.assert_allclose(world.distance(q), anew.distance(q), atol=1e-6)
        assert world.in_collision(q).tolist() == anew.in_collision(q).tolist()
        clearance, fresh = (w.snapshot().own_clearance.distance(q) for w in (world, anew))
        np.testing.assert_allclose(clearance, fresh, atol=1e-6)
        points = np.random.default_rng(0).uniform((-0.8, -0.8, -0.3), (0.8, 0.8, 1.3), (2000, 3))
        assert (world.on_robot(points, q[0]) == anew.on_robot(points, q[0])).all()
    # A snapshot stays what it was.
    assert structure.held == {} and structure.check.own.kinematics.held == robot.held


def pose_at(x, y, z):
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


def test_an_attached_object_moves_with_its_link(panda):
    world, obstacles = furnished(panda, 6)
    q = solutions(panda, 150, 7)
    judge = WorldJudge(panda)
    start = q[0]
    T_base_link = judge._judge.link(start, "panda_hand").homogeneous
    T_link_part = np.eye(4)
    T_link_part[:3, 3] = 0.01, 0.02, 0.15
    world.add_box("held", (0.04, 0.05, 0.2), pose=T_base_link @ T_link_part)
    world.attach("held", "panda_hand", q=start, touch_links=["panda_leftfinger"])
    shape = coal.Box(0.04, 0.05, 0.2)
    hits = []
    for row in q:
        T = judge._judge.link(row, "panda_hand").homogeneous @ T_link_part
        place = coal.Transform3s(T[:3, :3], T[:3, 3])
        hits.append(
            {
                ("held", name)
                for name, (geometry, T_obstacle) in obstacles.items()
                if coal.collide(
                    shape, place, geometry,
                    coal.Transform3s(T_obstacle[:3, :3], T_obstacle[:3, 3]),
                    coal.CollisionRequest(), coal.CollisionResult(),
                )
            }
        )  # fmt: skip
    found = [{(a, b) for a, b, _ in c if a == "held"} for c in world.contacts(q)]
    assert found == hits and any(hits)
    # it touches the arm itself where that is looked at, but what moves with it
    scene, rows = world.snapshot(), panda.random_configurations(300, np.random.default_rng(2))
    with_it = {"panda_link7", "panda_hand", "panda_leftfinger", "panda_rightfinger"}
    for row, contacts in zip(rows, scene.contacts(rows, True), strict=True):
        T = judge._judge.link(row, "panda_hand").homogeneous @ T_link_part
        expected = {link for link, _ in judge.touching(row, {"held": (shape, T)})} - with_it
        found = {c.link for c in contacts if c.other == "held"} - {"panda_link0"}
        assert found == expected
        hits.append(expected)
    assert len({link for links in hits[len(q) :] for link in links}) > 2
    collides = np.array([bool(contacts) for contacts in scene.contacts(rows, True)])
    assert (scene.in_collision(rows, True) == collides).all()
    with pytest.raises(mik.WorldError, match="attached to 'panda_hand'"):
        world.move("held", xyz=(0, 0, 0))
    world.detach("held", q[1])
    expected = judge._judge.link(q[1], "panda_hand").homogeneous @ T_link_part
    assert np.abs(world.obstacle("held").pose - expected).max() < 1e-9


def test_what_is_attached_leaves_nothing_on_the_disk(panda, monkeypatch):
    q, fits, fit = solutions(panda, 3), [], sphere_bodies.fit_spheres
    first = mik.World(panda)
    first.add_sphere("ball", 0.1, xyz=(0.4, 0.0, 0.4))
    first.add_sphere("knob", 0.02)
    first.attach("knob", "panda_hand", pose=np.eye(4))
    first.distance(q)  # the robot's own spheres are kept in files

    def counted(*arguments):
        fits.append(arguments)
        return fit(*arguments)

    monkeypatch.setattr(sphere_bodies, "fit_spheres", counted)
    write = sphere_bodies.cached_file
    monkeypatch.setattr(sphere_bodies, "cached_file", lambda name, _: write(name, pytest.fail))
    sphere_bodies._RECENT._kept.clear()
    for _ in range(2):
        world = first.copy()
        world.remove("knob")
        world.add_mesh("wedge", vertices=0.1 * np.eye(4)[:, :3], triangles=[[0, 1, 2], [0, 1, 3]])
        world.attach("wedge", "panda_hand", pose=np.eye(4))
        world.distance(q)
    assert len(fits) == 1


@pytest.mark.parametrize("name", ["panda", "dual_panda"])
def test_distances_are_those_of_coal_to_some_millimetres(name, request):
    robot = request.getfixturevalue(name)
    world, obstacles = furnished(robot, 12)
    world.remove("cloud")  # Coal's distances to octrees take seconds
    del obstacles["cloud"]
    world.remove("part")  # inside a surface there is no distance to compare
    del obstacles["part"]
    judge = WorldJudge(robot)
    q = solutions(robot, 400, 9)
    exact = np.array([judge.distance(row, obstacles) for row in q])
    near = exact > -0.02  # deeper, spheres and shapes mean different things
    found = world.distance(q)
    assert near.sum() > 20
    assert np.abs(found - exact)[near].max() < 0.015
    assert np.abs(found - exact)[near].mean() < 0.004


@pytest.mark.parametrize("kind", ["part", "hull", "cloud"])
def test_distances_to_meshes_and_clouds_are_those_to_a_box(panda, kind):
    vertices, triangles = cube(0.4)
    T = pose(np.random.default_rng(0), panda)
    boxes, world = mik.World(panda), mik.World(panda)
    boxes.add_box("box", (0.4, 0.4, 0.4), pose=T)
    if kind == "cloud":
        axis = np.arange(-0.195, 0.2, 0.01)
        points = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
        world.add_points("it", points, 0.01, pose=T)
    else:
        world.add_mesh("it", vertices=vertices, triangles=triangles, convex=kind == "hull", pose=T)
    q = solutions(panda, 300, 1)
    expected, found = boxes.distance(q), world.distance(q)
    outside = (
        expected > 0 if kind == "part" else expected > -0.2 if kind == "hull" else expected > 0
    )
    assert outside.sum() > 100
    assert np.abs(found - expected)[outside].max() < 0.012


def test_distances_of_tensors_have_the_gradients_of_differences(panda):
    world, _ = furnished(panda, 10)
    q = solutions(panda, 100, 11)
    tensor = torch.tensor(q, requires_grad=True)
    gaps = world.distance(tensor)
    assert np.abs(gaps.detach().numpy() - world.distance(q)).max() < 1e-12
    gaps.sum().backward()
    step = 1e-6 * np.eye(7)
    slopes = [(world.distance(q + h) - world.distance(q - h)) / 2e-6 for h in step]
    wrong = np.abs(np.stack(slopes, -1) - tensor.grad.numpy()).max(-1) > 1e-4
    assert wrong.mean() < 0.03  # where another pair becomes the nearest
    assert world.distance(tensor.detach().float()).dtype == torch.float32
    assert world.in_collision(tensor.detach()).tolist() == world.in_collision(q).tolist()


def test_an_empty_world_is_far_away_and_nan_touches(panda):
    world = mik.World(panda)
    q = solutions(panda, 3)
    assert not world.in_collision(q).any() and world.contacts(q) == [[], [], []]
    assert np.isinf(world.distance(q)).all()
    world.add_sphere("ball", 0.1)
    q[1, 2] = np.nan
    assert np.isnan(world.distance(q)).tolist() == [False, True, False]
    assert world.in_collision(q)[1]


def test_threads_may_change_a_world_that_others_ask(panda):
    world = mik.World(panda)
    q = solutions(panda, 40)
    world.add_sphere("ball", 0.2, xyz=(0.4, 0, 0.4))
    answers = set()
    for x in (0.4, -0.4):
        world.move("ball", xyz=(x, 0, 0.4))
        answers.add(tuple(world.in_collision(q).tolist()))
    assert len(answers) == 2
    seen: set = set()
    failures: list = []

    def ask():
        try:
            for _ in range(60):
                seen.add(tuple(world.in_collision(q).tolist()))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(200):
        world.move("ball", xyz=(0.4 if turn % 2 else -0.4, 0, 0.4))
    for thread in threads:
        thread.join()
    assert not failures and seen <= answers


def test_a_world_can_be_pickled(panda):
    world, _ = furnished(panda, 1)
    q = solutions(panda, 30)
    expected = world.in_collision(q).tolist()
    copy = pickle.loads(pickle.dumps(world))
    assert copy.in_collision(q).tolist() == expected


def refusals(world: mik.World):
    """Calls that are refused, and what the message says."""
    nan = float("nan")
    vertices, triangles = cube(0.1)
    return {
        "duplicate": (lambda: world.add_sphere("ball", 0.1), "exists already.*replace=True"),
        "unknown": (lambda: world.remove("bal"), "unknown obstacle 'bal'.*did you mean 'ball'"),
        "shape": (lambda: world.add_shape("new", coal.Sphere(1)), "take that of an obstacle"),
        "unknown move": (lambda: world.move("x"), "unknown obstacle 'x'"),
        "name": (lambda: world.add_sphere("*", 0.1), "must be text"),
        "link's name": (lambda: world.add_sphere("panda_hand", 0.1), "name of a link"),
        "zero size": (lambda: world.add_box("a", (1, 0, 1)), "size of .*must be positive"),
        "infinite": (lambda: world.add_sphere("a", float("inf")), "radius of .*finite"),
        "negative": (lambda: world.add_cylinder("a", 0.1, -1), "length of .*positive"),
        "text": (lambda: world.add_sphere("a", "0.1"), "radius of .*'0.1'"),
        "padding": (lambda: world.add_sphere("a", 0.1, padding=-0.1), "padding of .*at least 0"),
        "world's padding": (lambda: mik.World(world.robot, -1), "padding of the world"),
        "option": (lambda: world.add_sphere("a", 0.1, color=1), "got color="),
        "not rigid": (lambda: world.move("ball", 2 * np.eye(4)), "not rigid"),
        "nan pose": (lambda: world.move("ball", np.full((4, 4), nan)), "not rigid"),
        "mirror": (lambda: world.move("ball", np.diag((1, 1, -1, 1.0))), "not rigid"),
        "pose shape": (lambda: world.move("ball", np.eye(3)), r"shape \(3, 3\)"),
        "quaternion": (lambda: world.move("ball", quat_xyzw=(0, 0, 0, 1.01)), "length 1.01"),
        "both": (lambda: world.move("ball", np.eye(4), xyz=(0, 0, 0)), "one of the two"),
        "normal": (lambda: world.add_half_space("a", (0, 0, 0)), "must have a length"),
        "no triangles": (lambda: world.add_mesh("a", vertices=vertices, triangles=[]), "triangles"),
        "nan mesh": (
            lambda: world.add_mesh("a", vertices=vertices * nan, triangles=triangles),
            "not finite",
        ),
        "triangle": (lambda: world.add_mesh("a", vertices=vertices, triangles=[[0, 1, 9]]), "name"),
        "flat": (
            lambda: world.add_mesh(
                "a", vertices=vertices * (1, 1, 0), triangles=triangles, convex=True
            ),
            "cannot be convex",
        ),
        "no mesh": (lambda: world.add_mesh("a"), "either a file or vertices"),
        "no file": (lambda: world.add_mesh("a", "nowhere.stl"), "no file that exists"),
        "scale": (lambda: world.add_mesh("a", "nowhere.stl", scale=0), "scale of .*positive"),
        "resolution": (lambda: world.add_points("a", np.zeros((1, 3))), "has no resolution"),
        "no points": (lambda: world.add_points("a", np.zeros((0, 3)), 0.1), "has no points"),
        "cells": (
            lambda: world.add_points("a", np.random.default_rng(0).random((300000, 3)), 1e-3),
            "200000 are the most",
        ),
        "far points": (lambda: world.add_points("a", [[1e5, 0, 0]], 0.01), "reach"),
        "attach cloud": (lambda: world.attach("cloud", "panda_hand", pose=np.eye(4)), "cannot be"),
        "attach wall": (lambda: world.attach("wall", "panda_hand", pose=np.eye(4)), "cannot be"),
        "attach link": (lambda: world.attach("ball", "hand", pose=np.eye(4)), "unknown link"),
        "attach how": (lambda: world.attach("ball", "panda_hand"), "either q= or pose="),
        "touch links": (
            lambda: world.attach("ball", "panda_hand", pose=np.eye(4), touch_links=["finger"]),
            "unknown link 'finger'",
        ),
        "detach": (lambda: world.detach("ball", np.zeros(7)), "not attached"),
        "allow link": (lambda: world.allow("hand", "ball"), "unknown link 'hand'"),
        "allow object": (lambda: world.allow("panda_hand", "bal"), "unknown obstacle"),
        "hold solved": (lambda: world.hold({"panda_joint1": 0.0}), "is solved for"),
        "hold unknown": (lambda: world.hold({"finger": 0.0}), "unknown joint"),
        "hold nan": (lambda: world.hold({"panda_finger_joint1": nan}), "must be finite"),
        "hold beyond": (
            lambda: world.hold({"panda_finger_joint1": 0.08}),
            r"at 0\.08; its limits are \[0, 0\.04\]",
        ),
        "hold far": (lambda: world.hold({"panda_finger_joint1": 1e300}), "1e\\+300; it must be"),
        "far": (lambda: world.move("ball", xyz=(1e300, 0, 0)), "xyz of .* 100000 at most"),
        "far pose": (lambda: world.move("ball", pose_at(0, 1e300, 0)), "1e\\+300 m away"),
        "huge": (lambda: world.add_sphere("a", 10**400), "radius of .* 100000 at most"),
        "q shape": (lambda: world.in_collision([0.0]), r"q has shape \(1,\)"),
        "q text": (lambda: world.distance("q"), "q is no array"),
        "q complex": (lambda: world.in_collision([1j] * 7), "they are complex"),
        "cap": (lambda: world.distance(np.zeros(7), cap=-1), "cap of distance is -1"),
        "robot": (lambda: mik.World("panda"), "must be a Robot"),  # type: ignore
    }  # fmt: skip


@pytest.mark.parametrize("which", list(refusals(None)))  # type: ignore
def test_bad_input_is_refused_by_name(panda, which):
    world, _ = furnished(panda, 1)
    names = world.names()
    call, message = refusals(world)[which]
    with pytest.raises(mik.WorldError, match=message):
        call()
    assert world.names() == names


def test_a_robots_file_pads_links(tmp_path):
    path = tmp_path / "padded.yaml"
    text = (mik.load_robot("panda").urdf_path).as_posix()
    head = f"urdf: {text}\nbase: panda_link0\ntips: [panda_link8]\n"
    path.write_text(head + "padding: {panda_hand: 0.02}\n")
    assert dict(mik.load_robot(path).padding) == {"panda_hand": 0.02}
    for wrong, error in (("{hand: 0.02}", mik.LinkError), ("{panda_hand: -1}", mik.RobotError)):
        path.write_text(head + f"padding: {wrong}\n")
        with pytest.raises(error, match="padding"):
            mik.load_robot(path)


def test_points_on_the_robot_are_those_near_its_shapes_and_what_it_carries(panda):
    world = mik.World(panda)
    world.add_box("carried", (0.04, 0.04, 0.3), xyz=(0, 0, 0))
    T_hand_carried = np.eye(4)
    T_hand_carried[2, 3] = 0.2
    world.attach("carried", "panda_hand", pose=T_hand_carried)
    random = np.random.default_rng(0)
    judge = Judge(panda)
    shapes = judge.shapes(pin.GeometryType.COLLISION)
    for q in panda.random_configurations(3, random):
        points = random.uniform((-0.9, -0.9, -0.2), (0.9, 0.9, 1.3), (3000, 3))
        poses = [coal.Transform3s(T[:3, :3], T[:3, 3]) for T in judge.shape_poses(shapes, q)]
        hand = judge.link(q, "panda_hand").homogeneous @ T_hand_carried
        bodies = [item.geometry for item in shapes.geometryObjects] + [coal.Box(0.04, 0.04, 0.3)]
        poses.append(coal.Transform3s(hand[:3, :3], hand[:3, 3]))
        gap = np.array([
            min(
                coal.distance(
                    body, pose, coal.Sphere(1e-6), coal.Transform3s(np.eye(3), point),
                    coal.DistanceRequest(), coal.DistanceResult(),
                )
                for body, pose in zip(bodies, poses, strict=True)
            )
            for point in points
        ])  # fmt: skip
        found = world.on_robot(points, q, margin=0.03)
        assert found[gap < 0.02].all() and (gap < 0.02).sum() > 20
        assert not found[gap > 0.06].any()


def test_contacts_of_joints_that_are_not_finite_are_refused(panda):
    with pytest.raises(mik.WorldError, match="not finite"):
        mik.World(panda).contacts(np.full(panda.num_joints, np.nan))


@pytest.mark.parametrize("question", ["in_collision", "contacts", "distance"])
def test_joints_that_no_robot_has_are_refused_by_name(panda, question):
    world = mik.World(panda)
    world.add_sphere("ball", 0.1, xyz=(0.4, 0, 0.4))
    q = solutions(panda, 3)
    q[1, 4] = 1e300
    with pytest.raises(mik.WorldError, match=r"panda_joint5 = 1e\+300; a joint is at most 100000"):
        getattr(world, question)(q)
    getattr(world, question)(np.full(7, 1e5))


def test_a_joint_held_a_little_beyond_its_limit_is_at_it(panda, tmp_path):
    world = mik.World(panda)
    for given, held in ((0.043, 0.04), (-0.001, 0.0), (0.02, 0.02)):
        world.hold({"panda_finger_joint1": given})
        assert world.held() == {"panda_finger_joint1": held}
    world.save(tmp_path / "world.yaml")
    text = (tmp_path / "world.yaml").read_text().replace("0.02", "0.043")
    (tmp_path / "world.yaml").write_text(text)
    assert mik.World.load(tmp_path / "world.yaml", panda).held() == {"panda_finger_joint1": 0.04}


def test_answers_have_the_shape_of_the_question(panda):
    world = mik.World(panda)
    world.add_sphere("ball", 0.1, xyz=(0.4, 0, 0.4))
    q = solutions(panda, 6)
    for shape in ((6,), (2, 3), (1, 6)):
        for answer in (
            world.in_collision(q.reshape(*shape, 7)),
            world.distance(q.reshape(*shape, 7)),
        ):
            assert answer.shape == shape
    assert world.in_collision(q[0]).shape == world.distance(q[0]).shape == ()


def test_shapes_of_the_robot_are_read_once_whatever_worlds_follow(monkeypatch):
    robot, read, exact = mik.load_robot("panda"), [], sphere_bodies.triangles_from_shape

    def noted(shape):
        read.append(shape)
        return exact(shape)

    monkeypatch.setattr(sphere_bodies, "triangles_from_shape", noted)
    q = robot.random_configurations(4, np.random.default_rng(0))
    for number in range(3):
        world = mik.World(robot)
        world.add_box("box", (0.1, 0.2, 0.3), xyz=(0.5, 0.1 * number, 0.3))
        assert np.isfinite(world.distance(q)).all()
        before = len(read)
        world.add_sphere("ball", 0.1, xyz=(0.2, 0.5, 0.3))
        assert np.isfinite(world.distance(q)).all()
        assert len(read) == before > 0


def test_a_robot_goes_with_all_that_was_found_out_of_it():
    robot = mik.load_robot("panda")
    solver, world = mik.load_solver(robot, sampler="uniform"), mik.World(robot)
    world.add_sphere("ball", radius=0.1, xyz=(0.0, 0.0, 100.0))
    world.hold({"panda_finger_joint1": 0.02})
    far = robot.forward(robot.lower)
    far[0, 0, 3] = 5.0
    for target in (robot.forward(0.5 * (robot.lower + robot.upper)), far):
        result = solver.solve(target, num_samples=64, world=world)
        result.explain(0)
    assert robot._kept and not pickle.loads(pickle.dumps(robot))._kept
    gone = weakref.ref(robot)
    del robot, solver, world, result, target, far
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", ["panda", "dual_panda"])
def test_floor_and_walls_together_are_all_seen(name, request):
    robot = request.getfixturevalue(name)
    world, judge, judged = mik.World(robot), WorldJudge(robot), {}
    walls = {"floor": ((0, 0, 1), -0.05), "wall": ((1, 0, 0), -0.6), "side": ((0.6, 0.8, 0), -0.7)}
    for wall, (normal, offset) in walls.items():
        world.add_half_space(wall, normal, offset)
        judged[wall] = coal.Halfspace(np.array(normal, float), offset), np.eye(4)
    q = robot.random_configurations(300, np.random.default_rng(1))
    touching = [bool(judge.touching(row, judged)) for row in q]
    assert 0 < sum(touching) < len(q)
    scene = world.snapshot()
    assert scene.in_collision(q).tolist() == touching
    assert [bool(scene.in_collision(row[None])[0]) for row in q] == touching


def test_grippers_are_held_open_whatever_a_follower_with_wrong_limits_says():
    pr2 = mik.load_robot("pr2")
    world = mik.World(pr2)
    world.hold({"r_gripper_l_finger_joint": 0.4})
    assert world.snapshot().structure.check.own.kinematics.held["r_gripper_l_finger_joint"] == 0.4
    with pytest.raises(mik.WorldError, match="r_gripper_l_finger_joint"):
        world.hold({"r_gripper_l_finger_joint": 0.7})


def test_a_shape_is_used_again_elsewhere(panda):
    world, q = mik.World(panda), panda.random_configurations(60, np.random.default_rng(3))
    world.add_box("box", (0.3, 0.3, 0.2), xyz=(0.4, 0.2, 0.4))
    world.add_shape("again", world.obstacle("box").shape, xyz=(0.3, -0.3, 0.5), padding=0.01)
    other = mik.World(panda)
    other.add_box("box", (0.3, 0.3, 0.2), xyz=(0.4, 0.2, 0.4))
    other.add_box("again", (0.3, 0.3, 0.2), xyz=(0.3, -0.3, 0.5), padding=0.01)
    assert world.in_collision(q).tolist() == other.in_collision(q).tolist()
    assert world.in_collision(q).any() and not world.in_collision(q).all()

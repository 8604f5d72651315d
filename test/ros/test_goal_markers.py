# SPDX-License-Identifier: Apache-2.0
"""What a viewer shows of one goal after the other, over restarts and lost messages."""

import numpy as np
import pinocchio as pin
from builtin_interfaces.msg import Time
from meanflow_ik_ros.msg import IKSolution
from oracles import Judge
from sensor_msgs.msg import JointState
from viewer import Viewer
from visualization_msgs.msg import Marker

import meanflow_ik_core as mik
from meanflow_ik_ros.markers.goal_markers import LEGEND_LINES, GoalMarkers
from meanflow_ik_ros.markers.shapes import rank_colour
from meanflow_ik_ros.tools.raytrace import Camera
from meanflow_ik_ros.tools.render import render, write_picture

STAMP = Time(sec=3, nanosec=4)


def solutions(robot: mik.Robot, count: int, valid: bool = True) -> list[IKSolution]:
    """Random arms, `count` of them; how far away they are is their rank."""
    random = np.random.default_rng(count)
    q = random.uniform(robot.lower, robot.upper, (count, robot.num_joints))
    return [
        IKSolution(
            joint_state=JointState(name=list(robot.joint_names), position=row.tolist()),
            distance=float(rank),
            valid=valid,
        )
        for rank, row in enumerate(q)
    ]


def goal_of(found: list[IKSolution], robot: mik.Robot) -> np.ndarray:
    """(T, 4, 4) that the first one reaches."""
    return robot.forward(np.array(found[0].joint_state.position)) if found else np.eye(4)[None]


def show(goal_markers: GoalMarkers, found: list[IKSolution], robot: mik.Robot, **changes):
    settings = {"count": 12, "opacity": 0.25, "lifetime_s": 0.0, "viewers": 1, **changes}
    return goal_markers.update(found, goal_of(found, robot), STAMP, **settings)


def arms(count: int) -> set[str]:
    return {f"candidate_{rank:03d}" for rank in range(count)}


def test_one_goal_after_the_other_moves_what_stays_and_drops_only_what_is_too_many(panda):
    goal_markers, viewer = GoalMarkers(panda), Viewer()
    viewer.take(goal_markers.start())
    for before, count in [(0, 5), (5, 5), (5, 8), (8, 3), (3, 0), (0, 8)]:
        viewer.take(show(goal_markers, solutions(panda, count), panda))
        assert viewer.namespaces("candidate") == arms(count)
        if before:  # the first goal that a viewer sees starts over
            assert {ns for ns, _ in viewer.dropped} <= arms(before) - arms(count) | {"legend"}
            assert {ns for ns, _ in viewer.built} <= arms(count) - arms(before) | {"legend"}
        if before == count:
            assert not viewer.dropped and not viewer.built


def test_a_viewer_that_misses_arrays_shows_the_last_goal_only(panda):
    goal_markers, viewer = GoalMarkers(panda), Viewer()
    arrays = [show(goal_markers, solutions(panda, count), panda) for count in (2, 9, 6, 4, 1)]
    for index in (1, 4):
        viewer.take(arrays[index])
    assert viewer.namespaces("candidate") == arms(1)
    assert len(viewer.texts()) == 2


def test_what_an_earlier_run_drew_goes_at_the_start_and_with_the_first_goal(panda):
    for first_array_is_lost in (False, True):
        viewer = Viewer()
        viewer.take(show(GoalMarkers(panda), solutions(panda, 9), panda))
        second = GoalMarkers(panda)
        start = second.start()
        if not first_array_is_lost:
            viewer.take(start)
            assert not viewer.shown
        viewer.take(show(second, solutions(panda, 2), panda))
        assert viewer.namespaces("candidate") == arms(2)


def test_a_viewer_that_comes_between_two_goals_is_cleared_by_the_next(panda):
    stale = Viewer()
    stale.take(show(GoalMarkers(panda), solutions(panda, 9), panda))
    second = GoalMarkers(panda)
    show(second, solutions(panda, 3), panda, viewers=0)  # latched, but replaced by the next
    latched = show(second, solutions(panda, 4), panda, viewers=0)
    stale.take(latched)
    assert stale.namespaces("candidate") == arms(4)
    another = Viewer()
    another.take(show(GoalMarkers(panda), solutions(panda, 9), panda))
    show(second, solutions(panda, 2), panda, viewers=1)
    another.take(show(second, solutions(panda, 2), panda, viewers=2))
    assert another.namespaces("candidate") == arms(2)


def test_every_marker_says_its_frame_stamp_and_lifetime(panda):
    array = show(GoalMarkers(panda), solutions(panda, 3), panda, lifetime_s=2.25)
    assert array.markers[0].action == Marker.DELETEALL
    for marker in array.markers:
        assert (marker.header.frame_id, marker.header.stamp) == ("panda_link0", STAMP)
    for marker in array.markers[1:]:
        assert (marker.lifetime.sec, marker.lifetime.nanosec) == (2, 250_000_000)
        assert marker.frame_locked
        assert marker.scale.z > 0
        assert np.isclose(
            np.linalg.norm([getattr(marker.pose.orientation, axis) for axis in "xyzw"]), 1
        )
    for marker in show(GoalMarkers(panda), solutions(panda, 3), panda).markers:
        assert (marker.lifetime.sec, marker.lifetime.nanosec) == (0, 0)


def test_count_and_opacity_are_of_the_arms_only(panda):
    viewer = Viewer()
    viewer.take(show(GoalMarkers(panda), solutions(panda, 9), panda, count=4, opacity=0.5))
    assert viewer.namespaces() == arms(4) | {"goal", "legend"}
    for (ns, _), marker in viewer.shown.items():
        assert marker.color.a == (0.5 if ns.startswith("candidate") else 1.0)
    viewer.take(show(GoalMarkers(panda), solutions(panda, 9), panda, count=0))
    assert viewer.namespaces() == {"goal", "legend"}


def test_the_legend_names_each_arm_in_its_colour(panda):
    viewer = Viewer()
    viewer.take(show(GoalMarkers(panda), solutions(panda, 9), panda, count=3))
    assert viewer.texts() == [
        "3 of 9 solutions", "1: 0.00 rad away", "2: 1.00 rad away", "3: 2.00 rad away",
    ]  # fmt: skip
    heights = []
    for row in range(4):
        line = viewer.shown["legend", row]
        assert line.type == Marker.TEXT_VIEW_FACING
        colour = (line.color.r, line.color.g, line.color.b)
        arm = viewer.shown.get((f"candidate_{row - 1:03d}", 0))
        if arm is not None:
            assert colour == (arm.color.r, arm.color.g, arm.color.b) == rank_colour(row - 1, 3)
        heights.append(line.pose.position.z)
        assert line.scale.z > 0.01
    gaps = -np.diff(heights)
    assert (gaps > viewer.shown["legend", 0].scale.z).all(), "the lines overlap"


def test_the_legend_of_many_arms_stays_short(panda):
    viewer = Viewer()
    viewer.take(show(GoalMarkers(panda), solutions(panda, 40), panda, count=30))
    assert len(viewer.texts()) == 1 + LEGEND_LINES
    assert viewer.texts()[0] == "30 of 40 solutions"


def test_near_misses_are_not_drawn_and_the_legend_says_so(panda):
    viewer = Viewer()
    viewer.take(show(GoalMarkers(panda), solutions(panda, 5, valid=False), panda))
    assert viewer.namespaces() == {"goal", "legend"}
    assert viewer.texts() == ["no solution"]


def test_the_goal_of_each_tip_is_drawn_where_it_is(torso):
    found = solutions(torso, 2)
    viewer = Viewer()
    viewer.take(show(GoalMarkers(torso), found, torso))
    poses = Judge(torso).poses(np.array(found[0].joint_state.position))
    assert sorted(id for ns, id in viewer.shown if ns == "goal") == list(range(6))
    for tip, pose in enumerate(poses):
        for axis in range(3):
            rod = viewer.shown["goal", 3 * tip + axis]
            place, turn = rod.pose.position, rod.pose.orientation
            end = (
                np.array([place.x, place.y, place.z])
                - 0.5
                * rod.scale.z
                * (pin.Quaternion(turn.w, turn.x, turn.y, turn.z).matrix()[:, 2])
            )
            np.testing.assert_allclose(end, pose[:3, 3], atol=1e-9)
            direction = pin.Quaternion(turn.w, turn.x, turn.y, turn.z).matrix()[:, 2]
            np.testing.assert_allclose(direction, pose[:3, axis], atol=1e-9)
    assert torso.base == rod.header.frame_id


def test_the_picture_shows_the_middle_of_every_visual_and_the_texts(panda, tmp_path):
    from matplotlib import image

    viewer = Viewer()
    viewer.take(show(GoalMarkers(panda), solutions(panda, 3), panda, opacity=0.6))
    camera = Camera(eye=(3.2, -2.4, 1.6), centre=(0.0, 0.1, 0.4), width=420, height=360)
    shown, empty = (
        render(array, camera, reach=1e-6) for array in (viewer.seen(), type(viewer.seen())())
    )
    changed = np.abs(shown - empty).max(-1) > 0.02
    for (ns, _), marker in viewer.shown.items():
        if ns == "legend":
            continue
        place = marker.pose.position
        column, row = camera.pixels(np.array([place.x, place.y, place.z])).astype(int)
        assert 0 <= column < 420 and 0 <= row < 360
        assert changed[row, column], ns

    write_picture(viewer.seen(), tmp_path / "all.png", camera=camera)
    pixels = image.imread(tmp_path / "all.png")[..., :3]
    assert pixels.shape == (360, 420, 3)
    for row in range(4):
        line = viewer.shown["legend", row]
        place = np.array([getattr(line.pose.position, axis) for axis in "xyz"])
        column, pixel_row = camera.pixels(place).astype(int)
        height = camera.focal_length() * line.scale.z / camera.depth(place)
        rows = slice(int(pixel_row - height), int(pixel_row + height))
        inside = pixels[rows, column - 20 : column + 20]
        nearest = np.abs(inside - (line.color.r, line.color.g, line.color.b)).max(-1).min()
        assert nearest < 0.12, line.text

# SPDX-License-Identifier: Apache-2.0
"""Arms drawn for RViz, judged by Pinocchio's own reading of the URDF's visuals."""

import numpy as np
import pinocchio as pin
import pytest
from builtin_interfaces.msg import Time
from drawn import SHAPES, expected_markers, matrix_of
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

import meanflow_ik_core as mik
from meanflow_ik_ros.markers.shapes import arm_markers, axes_markers, rank_colour
from meanflow_ik_ros.markers.visuals import RobotVisuals, read_visuals
from meanflow_ik_ros.tools.raytrace import Camera
from meanflow_ik_ros.tools.render import render

STAMP = Time(sec=3, nanosec=4)
HEADER = Header(stamp=STAMP, frame_id="panda_link0")


@pytest.fixture(scope="module")
def visuals(panda) -> RobotVisuals:
    return RobotVisuals(panda)


@pytest.mark.parametrize("name", ["panda", "torso"])
def test_every_visual_is_where_pinocchio_puts_it(request, name):
    robot = request.getfixturevalue(name)
    q = np.random.default_rng(0).uniform(robot.lower, robot.upper, (20, robot.num_joints))
    visuals = RobotVisuals(robot)
    markers = list(arm_markers(visuals, q, 0.5, HEADER))
    per_arm = len(visuals.visuals)
    assert len(markers) == 20 * per_arm
    for rank, configuration in enumerate(q):
        expected = expected_markers(robot, configuration)
        drawn = markers[rank * per_arm :][:per_arm]
        assert len(expected) == per_arm
        unmatched = list(drawn)
        for kind, scale, pose in expected:
            # Pinocchio sorts the links in its own order.
            match = next(
                marker
                for marker in unmatched
                if marker.type == kind
                and np.allclose([marker.scale.x, marker.scale.y, marker.scale.z], scale)
                and np.allclose(matrix_of(marker), pose, atol=1e-12)
            )
            unmatched.remove(match)
        assert not unmatched


def test_each_candidate_has_its_namespace_colour_and_opacity(visuals, panda):
    q = [panda.lower, panda.upper, panda.lower]
    markers = list(arm_markers(visuals, q, 0.25, HEADER))
    keys = [(marker.ns, marker.id) for marker in markers]
    assert len(set(keys)) == len(keys)
    colours = {}
    for marker in markers:
        assert marker.header.frame_id == "panda_link0"
        assert marker.header.stamp == STAMP
        assert marker.color.a == 0.25
        colour = (marker.color.r, marker.color.g, marker.color.b)
        assert colours.setdefault(marker.ns, colour) == colour
    assert len(set(colours.values())) == 3
    best, last = colours["candidate_000"], colours["candidate_002"]
    assert best == rank_colour(0, 3)
    assert best.index(max(best)) == 1 and last.index(max(last)) == 0  # green, red


def test_a_mesh_keeps_its_uri_and_scale(tmp_path):
    urdf = tmp_path / "meshes.urdf"
    urdf.write_text(
        """<robot name="meshes"><link name="a">
        <visual><geometry><mesh filename="package://arm/a.dae"/></geometry></visual>
        <visual><origin xyz="1 2 3"/><geometry>
        <mesh filename="b.stl" scale="1 2 3"/></geometry></visual></link></robot>"""
    )
    first, second = read_visuals(urdf)
    assert (first.kind, first.mesh) == (Marker.MESH_RESOURCE, "package://arm/a.dae")
    assert first.scale == (1.0, 1.0, 1.0)
    assert second.mesh == (tmp_path / "b.stl").as_uri()
    assert second.scale == (1.0, 2.0, 3.0)
    np.testing.assert_array_equal(second.T_link_visual[:3, 3], [1, 2, 3])


def test_meshes_are_drawn_by_uri_in_the_colour_of_the_rank(tmp_path):
    urdf = tmp_path / "crane.urdf"
    urdf.write_text(
        """<robot name="crane"><link name="rail"/><link name="hook">
        <visual><origin xyz="0 0 0.5" rpy="0 0 1"/><geometry>
        <mesh filename="package://crane/hook.dae" scale="0.001 0.001 0.001"/></geometry></visual>
        <visual><geometry><sphere radius="0.1"/></geometry></visual></link>
        <joint name="lift" type="prismatic"><parent link="rail"/><child link="hook"/>
        <axis xyz="0 0 1"/><limit lower="0" upper="2" velocity="1" effort="1"/></joint></robot>"""
    )
    robot = mik.load_robot(urdf, tips=["hook"])
    markers = list(arm_markers(RobotVisuals(robot), [[0.25], [1.5]], 0.5, HEADER))
    assert [(marker.ns, marker.id) for marker in markers] == [
        ("candidate_000", 0), ("candidate_000", 1), ("candidate_001", 0), ("candidate_001", 1),
    ]  # fmt: skip
    for rank, (mesh, ball) in enumerate((markers[:2], markers[2:])):
        assert (mesh.type, ball.type) == (Marker.MESH_RESOURCE, Marker.SPHERE)
        assert (mesh.mesh_resource, ball.mesh_resource) == ("package://crane/hook.dae", "")
        assert not mesh.mesh_use_embedded_materials  # else the mesh's own colours would show
        assert (mesh.scale.x, mesh.scale.y, mesh.scale.z) == (0.001, 0.001, 0.001)
        assert (mesh.color.r, mesh.color.g, mesh.color.b) == rank_colour(rank, 2)
        expected = pin.SE3(pin.rpy.rpyToMatrix(0.0, 0.0, 1.0), np.array([0, 0, 0.75 + 1.25 * rank]))
        np.testing.assert_allclose(matrix_of(mesh), expected.homogeneous, atol=1e-12)


def test_an_unknown_visual_is_refused_by_name(tmp_path):
    urdf = tmp_path / "capsule.urdf"
    urdf.write_text(
        '<robot name="r"><link name="a"><visual><geometry><capsule radius="1" length="1"/>'
        "</geometry></visual></link></robot>"
    )
    with pytest.raises(mik.RobotError, match=r"link 'a'.*capsule.*box, cylinder, sphere or mesh"):
        read_visuals(urdf)


def silhouette(marker: Marker, camera: Camera) -> np.ndarray:
    """(height, width) bool: where the picture of one red marker differs from the empty one."""
    from visualization_msgs.msg import MarkerArray

    image = render(MarkerArray(markers=[marker]), camera, reach=1e-6)
    empty = render(MarkerArray(), camera, reach=1e-6)
    return np.abs(image - empty).max(-1) > 0.02


def marker_of(kind: int, scale, pose: pin.SE3, alpha: float = 1.0) -> Marker:
    marker = Marker(type=kind, action=Marker.ADD)
    place, turn = marker.pose.position, marker.pose.orientation
    place.x, place.y, place.z = pose.translation.tolist()
    turn.x, turn.y, turn.z, turn.w = pin.Quaternion(pose.rotation).coeffs().tolist()
    marker.scale.x, marker.scale.y, marker.scale.z = scale
    marker.color.r, marker.color.a = 1.0, alpha
    return marker


def surface_points(kind: int, count: int, random: np.random.Generator) -> np.ndarray:
    """(count, 3) points that cover the surface of the shape with half extents 1."""
    points = random.normal(size=(count, 3))
    if kind == Marker.CUBE:
        faces = [(axis, side) for axis in range(3) for side in (-1.0, 1.0)]
        flat = random.uniform(-1, 1, (6, count // 6, 2))
        return np.concatenate(
            [np.insert(flat[i], axis, side, axis=1) for i, (axis, side) in enumerate(faces)]
        )
    if kind == Marker.SPHERE:
        return points / np.linalg.norm(points, axis=-1, keepdims=True)
    angle = random.uniform(0, 2 * np.pi, count)
    on_cap = np.arange(count) % 2 == 0
    radius = np.where(on_cap, np.sqrt(random.uniform(0, 1, count)), 1.0)
    height = np.where(on_cap, np.sign(points[:, 2]), random.uniform(-1, 1, count))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], -1)


@pytest.mark.parametrize("kind", list(SHAPES.values()), ids=list(SHAPES))
def test_the_picture_shows_a_shape_where_its_points_project_to(kind):
    random = np.random.default_rng(8)
    camera = Camera(eye=(1.2, -0.7, 0.8), centre=(0.1, 0.0, 0.3), width=120, height=100)
    pose = pin.SE3(pin.exp3(random.normal(size=3)), np.array([0.1, 0.05, 0.3]))
    scale = np.array((0.3, 0.3, 0.4) if kind == Marker.CYLINDER else (0.3, 0.2, 0.4))
    points = surface_points(kind, 300_000, random)
    column, row = camera.pixels(0.5 * points * scale @ pose.rotation.T + pose.translation).T
    hits, _, _ = np.histogram2d(row, column, bins=(100, 120), range=((0, 100), (0, 120)))
    # The outline crosses pixels that the shape covers in part: those are not judged.
    covered, untouched = hits > 40, hits == 0
    shown = silhouette(marker_of(kind, scale.tolist(), pose), camera)
    interior = covered[1:-1, 1:-1].copy()
    for d_row, d_column in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        interior &= np.roll(covered, (d_row, d_column), (0, 1))[1:-1, 1:-1]
    assert interior.sum() > 300
    assert shown[1:-1, 1:-1][interior].all()
    assert not shown[untouched].any()


def test_the_picture_honours_opacity_order_and_deletion():
    from visualization_msgs.msg import MarkerArray

    camera = Camera(eye=(2.0, 0.0, 0.3), centre=(0.0, 0.0, 0.3), width=60, height=60)
    near = marker_of(Marker.SPHERE, (0.3, 0.3, 0.3), pin.SE3(np.eye(3), np.array([0.4, 0, 0.3])))
    far = marker_of(Marker.SPHERE, (0.6, 0.6, 0.6), pin.SE3(np.eye(3), np.array([-0.5, 0, 0.3])))
    near.ns, far.ns = "near", "far"
    near.color.r, near.color.b = 0.0, 1.0

    def middle(*markers) -> np.ndarray:
        return render(MarkerArray(markers=list(markers)), camera, reach=1e-6)[30, 30]

    empty, blue, red = middle(), middle(near), middle(far)
    assert blue.argmax() == 2 and red.argmax() == 0
    np.testing.assert_allclose(middle(near, far), blue)
    np.testing.assert_allclose(middle(far, near), blue)
    near.color.a = 0.25
    np.testing.assert_allclose(middle(near, far), 0.25 * blue + 0.75 * red, atol=1e-6)
    np.testing.assert_allclose(middle(near, Marker(action=Marker.DELETEALL)), empty)


def test_axes_are_rods_along_the_axes_of_the_frame():
    pose = pin.SE3(pin.exp3(np.array([0.3, -0.8, 0.5])), np.array([0.1, 0.2, 0.3])).homogeneous
    for axis, rod in enumerate(axes_markers(pose, 0.2, "goal", HEADER)):
        drawn = matrix_of(rod)
        np.testing.assert_allclose(drawn[:3, 2], pose[:3, axis], atol=1e-12)
        np.testing.assert_allclose(drawn[:3, 3], pose[:3, 3] + 0.1 * pose[:3, axis], atol=1e-12)
        assert rod.scale.z == 0.2

# SPDX-License-Identifier: Apache-2.0
"""All links stand where Pinocchio's own mimic joints put them."""

import numpy as np
import pinocchio as pin
import pytest
from example_robots import ROBOTS

import meanflow_ik_core as mik
from meanflow_ik_core.robot.pinocchio_model import PinocchioModel


def poses_by_pinocchio(robot: mik.Robot, q: np.ndarray, links: list[str]) -> np.ndarray:
    """(L, 4, 4) of q (J,), by a model that knows which joints mimic."""
    model = pin.buildModelFromUrdf(str(robot.urdf_path), mimic=True)
    data, full = model.createData(), pin.neutral(model)
    for name, value in {**dict(zip(robot.joint_names, q, strict=True)), **robot.held}.items():
        joint = model.joints[model.getJointId(name)]
        turned = (np.cos(value), np.sin(value))
        full[joint.idx_q : joint.idx_q + joint.nq] = value if joint.nq == 1 else turned
    pin.framesForwardKinematics(model, data, full)
    base, *frames = (model.getFrameId(name, pin.FrameType.BODY) for name in (robot.base, *links))
    return np.array([(data.oMf[base].actInv(data.oMf[frame])).homogeneous for frame in frames])


@pytest.mark.parametrize("name", ROBOTS)
def test_every_link_is_where_pinocchio_puts_it(name):
    robot = ROBOTS[name]()
    model = PinocchioModel(robot)
    links = [f.name for f in model.model.frames if f.type == pin.FrameType.BODY]
    q = robot.random_configurations(20, 0).numpy()
    expected = [poses_by_pinocchio(robot, row, links) for row in q]
    np.testing.assert_allclose(model.link_poses(q, links), expected, rtol=0, atol=1e-12)


def test_what_mimics_a_joint_at_rest_keeps_its_offset(tmp_path):
    joint = (
        '<joint name="{0}" type="{1}"><parent link="a"/><child link="{0}"/><axis xyz="0 1 0"/>'
        '<limit lower="-2" upper="2" velocity="1" effort="1"/>{2}</joint><link name="{0}"/>'
    )
    path = tmp_path / "hand.urdf"
    path.write_text(
        '<robot name="hand"><link name="a"/>'
        + joint.format("arm", "revolute", "")
        + joint.format("thumb", "revolute", "")
        + joint.format("finger", "revolute", '<mimic joint="thumb" offset="0.5"/>')
        + joint.format("wheel", "continuous", '<mimic joint="thumb" offset="0.5"/>')
        + "</robot>"
    )
    robot = mik.load_robot(path, tips=["arm"])
    poses = PinocchioModel(robot).link_poses(np.zeros((1, 1)), ["finger", "wheel"])
    expected = np.tile(pin.utils.rotate("y", 0.5), (1, 2, 1, 1))
    np.testing.assert_allclose(poses[..., :3, :3], expected, rtol=0, atol=1e-12)

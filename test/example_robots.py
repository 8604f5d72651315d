# SPDX-License-Identifier: Apache-2.0
"""Robots to test with: the shipped ones, and one with everything that is rare."""

import importlib.util
from importlib import metadata
from pathlib import Path

import pytest
import torch

import meanflow_ik_core as mik
from meanflow_ik_core.robot import packages

TORSO = Path(__file__).parent / "robots" / "torso_two_arms.urdf"
TORSO_TIPS = ["left_tool", "right_hand"]
JOINTS = {
    "panda": 7, "dual_panda": 14, "dual_ur10": 12, "baxter": 14, "tiago_pro": 15, "pr2": 15,
    "talos": 16, "g1_upper": 17, "g1": 29,
}  # fmt: skip
OWN = ("panda", "dual_panda")
needs_robots = pytest.mark.skipif(
    importlib.util.find_spec("pinocchio") is None
    or not any(d.name == packages.EXAMPLE_ROBOT_DATA for d in metadata.distributions()),
    reason="needs the extra robots",
)
NAMES = [name if name in OWN else pytest.param(name, marks=needs_robots) for name in JOINTS]


def draw(robot: mik.Robot, count: int, seed: int = 0) -> torch.Tensor:
    """(count, J) random configurations, float64."""
    return robot.random_configurations(count, torch.Generator().manual_seed(seed))


def torso_robot(**options) -> mik.Robot:
    return mik.load_robot(TORSO, tips=TORSO_TIPS, **options)


ROBOTS = {
    "panda": lambda: mik.load_robot("panda"),
    "panda_tcp": lambda: mik.load_robot(
        mik.load_robot("panda").urdf_path, base="panda_link0", tips=["panda_hand_tcp"]
    ),
    "torso_two_arms": torso_robot,
    "base_on_a_moving_link": lambda: mik.load_robot(
        TORSO, base="left_fore", tips=["right_hand", "left_tool", "pedestal"]
    ),
    "held": lambda: torso_robot(held={"lift": 0.2, "left_elbow": 0.7, "turn": -2.0}),
}


def urdf_with_joint(tmp_path: Path, joint: str, more: str = "") -> Path:
    path = tmp_path / "robot.urdf"
    path.write_text(
        '<robot name="r"><link name="a"/><link name="b"/><link name="c"/>'
        f'{joint}<joint name="second" type="fixed"><parent link="b"/><child link="c"/></joint>'
        f"{more}</robot>"
    )
    return path

# SPDX-License-Identifier: Apache-2.0
"""Choose among hundreds of grasps of a can: which are reachable, and which are the most dexterous.

A can may be grasped from any side and at several heights. Each grasp is a pose of the hand. One
call solves them all; the best is the one farthest from singularities and joint limits.
"""

import numpy as np

import meanflow_ik_core as mik

CAN = np.array([0.55, -0.2, 0.15])  # m, the middle of the can
HEIGHTS = np.linspace(-0.04, 0.04, 5)  # m
ANGLES = np.linspace(-np.pi, np.pi, 48, endpoint=False)  # rad, about the can


def side_grasps() -> np.ndarray:
    """Poses (B, 4, 4) of panda_hand_tcp: z points at the can's axis, the fingers close across."""
    grasps = np.tile(np.eye(4), (len(HEIGHTS), len(ANGLES), 1, 1))
    grasps[..., :3, 2] = np.stack([np.cos(ANGLES), np.sin(ANGLES), 0 * ANGLES], -1)
    grasps[..., :3, 0] = 0, 0, 1
    grasps[..., :3, 1] = np.cross(grasps[..., :3, 2], grasps[..., :3, 0])
    grasps[..., :3, 3] = CAN
    grasps[..., 2, 3] += HEIGHTS[:, None]
    return grasps.reshape(-1, 4, 4)


solver = mik.load_solver("panda")
grasps = side_grasps()
result = solver.solve(
    grasps, max_solutions=4, tips=["panda_hand_tcp"], avoid_self_collision=True, seed=0,
    objectives=["manipulability", "joint_limits"],
)  # fmt: skip

reachable = result.valid[:, 0]
print(f"{reachable.sum()} of {len(grasps)} grasps are reachable")

cost = np.where(reachable, result.objective_values[:, 0].sum(-1), np.inf)
for grasp in np.argsort(cost)[:5]:
    approach = np.degrees(np.arctan2(*grasps[grasp, 1::-1, 2]))
    print(f"from {approach:6.1f} deg at z = {grasps[grasp, 2, 3]:.2f} m: cost {cost[grasp]:.2f}")
print("joints of the best:", np.round(result.joint_positions[cost.argmin(), 0], 3))

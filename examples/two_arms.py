# SPDX-License-Identifier: Apache-2.0
"""Two arms hold one box from both sides, free of self-collision."""

import numpy as np

import meanflow_ik_core as mik

BOX = np.array([0.45, 0.0, 0.4])  # m, the middle of the box
HALF = np.array([0.0, 0.15, 0.0])  # m, from there to the left hand

solver = mik.load_solver("dual_panda")
hands = ["left_panda_hand_tcp", "right_panda_hand_tcp"]

# The z axis of each hand points at the box, its x axis up.
targets = np.tile(np.eye(4), (2, 1, 1))
targets[0, :3, :3] = np.transpose([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
targets[1, :3, :3] = np.transpose([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
targets[:, :3, 3] = BOX + HALF, BOX - HALF

options = {"tips": hands, "max_solutions": 32, "seed": 0}
anyhow = solver.solve(targets[None], select="diverse", **options)
touching = solver.self_collision.in_collision(anyhow.joint_positions[0][anyhow.valid[0]])
print(f"{touching.sum()} of {len(touching)} solutions touch the robot itself")

free = solver.solve(targets[None], avoid_self_collision=True, select="diverse", **options)
print(f"without these: {free.explain()}, {1e3 * sum(free.timing.values()):.0f} ms")
for name, q in zip(solver.robot.joint_names, free.joint_positions[0, 0], strict=True):
    print(f"  {name:20s} {q:7.3f} rad")
print(f"links keep {100 * free.clearance[0, 0]:.1f} cm from each other")

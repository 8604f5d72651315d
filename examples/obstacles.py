# SPDX-License-Identifier: Apache-2.0
"""Keep the elbow off a wall, and draw from the front which solutions are free and which touch."""

import sys
from pathlib import Path

import numpy as np

import meanflow_ik_core as mik

try:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
except ImportError as error:
    raise SystemExit(f"{error}: pip install '.[demo]'") from None

PICTURE = Path(sys.argv[1] if len(sys.argv) > 1 else "obstacles.png")
WALL, SIZE = np.array([0.3, 0.25, 0.5]), np.array([0.8, 0.02, 1.0])  # m

solver = mik.load_solver("panda")
robot = solver.robot
world = mik.World(robot, padding=0.01)
world.add_box("wall", size=SIZE, xyz=WALL)

target = np.diag([1.0, -1.0, -1.0, 1.0])  # the hand points down
target[:3, 3] = 0.5, 0.0, 0.4
options = {"select": "diverse", "max_solutions": 60, "seed": 0}

anyhow = solver.solve(target[None], **options)
found = anyhow.joint_positions[0][anyhow.valid[0]]
touching = world.in_collision(found)
print(f"{touching.sum()} of {len(found)} solutions touch the wall")

free = solver.solve(target[None], world=world, avoid_self_collision=True, **options)
print(f"with the world: {free.explain()}")
print(f"the best keeps {100 * free.world_clearance[0, 0]:.1f} cm from the wall")

figure = Figure(figsize=(5, 5), layout="constrained")
axes = figure.subplots()


def draw(q: np.ndarray, colour: str) -> None:
    """The arm from joint to joint, from the front."""
    nodes = robot.arrays.node_poses(q[None])[0, :, :3, 3]
    axes.plot(*np.vstack([np.zeros(3), nodes, target[:3, 3]])[:, 1:].T, color=colour, alpha=0.4)


for q in found[touching]:
    draw(q, "tab:red")
for q in free.joint_positions[0][free.valid[0]]:
    draw(q, "tab:green")
axes.add_patch(Rectangle((WALL - SIZE / 2)[1:], *SIZE[1:], color="tab:brown"))
axes.set(xlabel="y [m]", ylabel="z [m]", aspect="equal", title="free (green), touching (red)")
figure.savefig(PICTURE, dpi=80)
print(f"picture: {PICTURE}")

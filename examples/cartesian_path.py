# SPDX-License-Identifier: Apache-2.0
"""Draw a circle with the tool, with joints that never jump, and plot how they move."""

import sys
from pathlib import Path

import numpy as np

import meanflow_ik_core as mik

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise SystemExit(f"{error}: pip install '.[demo]'") from None

PICTURE = Path(sys.argv[1] if len(sys.argv) > 1 else "cartesian_path.png")
WAYPOINTS, SECONDS = 200, 8.0

solver = mik.load_solver("panda", sampler="uniform")

angle = np.linspace(0, 2 * np.pi, WAYPOINTS)
circle = np.tile(np.eye(4), (WAYPOINTS, 1, 1))
circle[:, :3, :3] = np.diag([1.0, -1.0, -1.0])
circle[:, 0, 3] = 0.45 + 0.15 * np.cos(angle)
circle[:, 1, 3] = 0.15 * np.sin(angle)
circle[:, 2, 3] = 0.3

times = np.linspace(0, SECONDS, WAYPOINTS)
path = mik.solve_path(solver, circle, times=times, avoid_self_collision=True, seed=0)
if not path.valid:
    raise SystemExit(path.message)

speed = np.gradient(path.joint_positions, times, axis=0)
share = np.abs(speed / solver.robot.velocity_limit).max()
print(f"largest error {1e6 * path.position_error.max():.3f} um")
print(f"largest step of a joint {path.largest_step:.4f} rad; {100 * share:.0f} % of its speed")

figure = Figure(figsize=(7, 4), layout="constrained")
axes = figure.subplots()
axes.plot(times, path.joint_positions, label=[f"joint {j + 1}" for j in range(7)])
axes.set_xlabel("time [s]")
axes.set_ylabel("[rad]")
axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.2))
figure.savefig(PICTURE, dpi=80)
print(f"joints over time: {PICTURE}")

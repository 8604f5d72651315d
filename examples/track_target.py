# SPDX-License-Identifier: Apache-2.0
"""Follow a target that moves, 250 times a second, as a teleoperated arm does.

The target swings to the side, farther than the arm reaches. The joints stay within the speed limits
of the URDF, wait as near as they can, and follow again when the target comes back.
"""

import time
from collections import Counter

import numpy as np

import meanflow_ik_core as mik

RATE = 250  # Hz
SECONDS = 10.0

solver = mik.load_solver("panda", sampler="uniform")
q = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.6, 0.7])
tracker = solver.tracker(q, dt=1 / RATE)

home = solver.robot.forward(q)[0]
became, farthest, spent = Counter(), 0.0, 0.0
for t in np.arange(0, SECONDS, 1 / RATE):
    target = home.copy()
    target[1, 3] += 0.7 * np.sin(2 * np.pi * t / SECONDS)  # m
    began = time.perf_counter()
    step = tracker.step(target)
    spent += time.perf_counter() - began
    became[step.status.name] += 1
    farthest = max(farthest, float(step.position_error.max()))

print(dict(became))
print(
    f"at most {1000 * farthest:.0f} mm away, at the end {1000 * step.position_error.max():.3f} mm"
)
print(f"{1e6 * spent / RATE / SECONDS:.0f} us a step")

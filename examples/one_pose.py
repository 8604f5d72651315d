# SPDX-License-Identifier: Apache-2.0
"""Many different joint configurations that put the Panda's flange at one pose."""

import numpy as np

import meanflow_ik_core as mik

solver = mik.load_solver("panda")

target = np.diag([1.0, -1.0, -1.0, 1.0])  # the flange looks down
target[:3, 3] = 0.4, 0.1, 0.5  # m, in panda_link0

result = solver.solve(target[None], max_solutions=8, select="diverse", seed=0)

print(result.explain())
for q, valid, error in zip(
    result.joint_positions[0], result.valid[0], result.position_error[0, :, 0], strict=True
):
    if valid:
        print(np.round(q, 3), f"off by {1e6 * error:.3f} um")

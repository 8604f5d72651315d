# SPDX-License-Identifier: Apache-2.0
"""What the damped least-squares step depends on, compiled or in torch."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StepSettings:
    """What one damped least-squares step depends on besides the poses."""

    damping_factor: float = 1e-2  # damping per squared weighted error
    damping_floor: float = 1e-9  # at least; more where the arithmetic's rounding asks for it
    max_step: float = 1.5  # rad or m, of the joint that moves most
    position_weight: float | np.ndarray = 1.0  # per m; scalar or (T,)
    orientation_weight: float | np.ndarray = 1.0  # per rad; scalar or (T,)
    # Of x, y, z and turns about x, y, z of each target's frame: (T, 6) factors to the weights
    # above. Where one is 0 the tip is free: its error is no error. None: 1 everywhere.
    axis_weights: np.ndarray | None = None

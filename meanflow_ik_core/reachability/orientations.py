# SPDX-License-Identifier: Apache-2.0
"""Orientations that are spread over all rotations."""

import numpy as np

from ..geometry import matrix_from_quat_xyzw

# The constants of the spirals: phi^2 = 2 and psi^4 = psi + 4.
_PHI, _PSI = 2**0.5, 1.533751168755204288118041


def spread_orientations(count: int, seed: int = 0) -> np.ndarray:
    """Orientations at nearly even distances on a super-Fibonacci spiral (Alexa, CVPR 2022).

    Args:
        count: O.
        seed: of a rotation that turns the whole set.

    Returns:
        (O, 3, 3).
    """
    place = np.arange(count) + 0.5
    share, angle = place / count, 2 * np.pi * place
    one, other = np.sqrt(share), np.sqrt(1 - share)
    spiral = np.stack(
        (
            one * np.sin(angle / _PHI),
            one * np.cos(angle / _PHI),
            other * np.sin(angle / _PSI),
            other * np.cos(angle / _PSI),
        ),
        -1,
    )
    turn = np.random.default_rng(seed).normal(size=4)
    return matrix_from_quat_xyzw(turn) @ matrix_from_quat_xyzw(spiral)

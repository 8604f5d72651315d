# SPDX-License-Identifier: Apache-2.0
"""Stay away from singular postures (Yoshikawa 1985)."""

import torch
from torch import Tensor

from ..errors import LinkError
from ..robot import Robot
from ..urdf import listing
from . import Objective, number


class Manipulability(Objective):
    """Minus the logarithm of sqrt(det J J^T), summed over tips; lengths in units of ``length``.

    Where a tip has fewer than six degrees of freedom, the product of so many singular values
    stands in for the root of the determinant.

    Args:
        robot: whose Jacobian.
        weight: see `Objective`.
        tip: only of this tip; None: of every tip.
        length: m that count as much as a radian.

    Raises:
        LinkError: there is no such tip.
        OptionError: the length is not positive.
    """

    def __init__(
        self, robot: Robot, weight: float = 1.0, tip: str | None = None, length: float = 1.0
    ):
        super().__init__(robot, weight)
        if tip is not None and tip not in robot.tips:
            raise LinkError(
                f"tip {tip!r} of objective 'manipulability' is none of {robot.name!r}; "
                f"tips are {listing(robot.tips, str(tip))}"
            )
        self._tips = list(range(robot.num_tips)) if tip is None else [robot.tips.index(tip)]
        self._length = number("manipulability", "length", length, above=0.0)
        # fewer than 6 where the joints of a tip cannot move it in every direction
        some = robot.random_configurations(4, torch.Generator().manual_seed(0))
        jacobian = robot.jacobian(some)[:, self._tips]
        self._rank = int(torch.linalg.matrix_rank(jacobian).amax(0).amin())

    def value(self, q: Tensor) -> Tensor:
        jacobian = self.robot.jacobian(q)[..., self._tips, :, :]
        scaled = jacobian * q.new_tensor([1 / self._length] * 3 + [1.0] * 3)[:, None]
        if self._rank < 6:
            singular = torch.linalg.svdvals(scaled)[..., : self._rank]
            return -singular.clamp(min=torch.finfo(q.dtype).eps).log().sum((-1, -2))
        least = 10 * torch.finfo(q.dtype).eps  # keeps the logarithm finite at a singularity
        gram = scaled @ scaled.transpose(-1, -2)
        gram = gram + least * torch.eye(6, dtype=q.dtype, device=q.device)
        # of a Cholesky factor, whose gradient is finite where a determinant's is 0 / 0
        factor = torch.linalg.cholesky_ex(gram).L.diagonal(dim1=-2, dim2=-1)
        return -factor.log().sum((-1, -2))


OBJECTIVE = Manipulability

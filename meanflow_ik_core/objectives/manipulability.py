# SPDX-License-Identifier: Apache-2.0
"""Stay away from singular postures (Yoshikawa 1985)."""

import torch
from torch import Tensor

from ..errors import LinkError
from ..robot.robot import Robot
from ..robot.urdf import listing
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
        self._length = number("manipulability", "length", length, above=0.0)
        tips = list(range(robot.num_tips)) if tip is None else [robot.tips.index(tip)]
        # fewer than 6 where the joints of a tip cannot move it in every direction
        some = robot.random_configurations(4, 0)
        ranks = torch.linalg.matrix_rank(robot.jacobian(some)).amax(0).tolist()
        self._full = [index for index in tips if ranks[index] == 6]
        self._low = [(index, ranks[index]) for index in tips if ranks[index] < 6]

    def value(self, q: Tensor) -> Tensor:
        scale = q.new_tensor([1 / self._length] * 3 + [1.0] * 3)[:, None]
        jacobian = scale * self.robot.jacobian(q)
        value = self._of_full_rank(jacobian[..., self._full, :, :])
        for tip, rank in self._low:
            singular = torch.linalg.svdvals(jacobian[..., tip, :, :])[..., :rank]
            value = value - singular.clamp(min=torch.finfo(q.dtype).eps).log().sum(-1)
        return value

    @staticmethod
    def _of_full_rank(jacobian: Tensor) -> Tensor:
        """The sum (...) over tips of (..., T, 6, J)."""
        least = 10 * torch.finfo(jacobian.dtype).eps  # a finite logarithm at a singularity
        gram = jacobian @ jacobian.transpose(-1, -2)
        gram = gram + least * torch.eye(6, dtype=jacobian.dtype, device=jacobian.device)
        # of a Cholesky factor, whose gradient is finite where a determinant's is 0 / 0
        factor = torch.linalg.cholesky_ex(gram).L.diagonal(dim1=-2, dim2=-1)
        return -factor.log().sum((-1, -2))


OBJECTIVE = Manipulability

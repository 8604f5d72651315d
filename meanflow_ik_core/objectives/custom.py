# SPDX-License-Identifier: Apache-2.0
"""Any Python function of configurations."""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import OptionError
from ..robot.robot import Robot
from . import Objective


class Custom(Objective):
    """What a function of (q, robot) returns.

    Args:
        robot: handed to the function.
        function: q (..., J) as a torch tensor, and the robot, to values (...), in operations of
            torch so that there are gradients; or its name, "module:function".
        weight: see `Objective`.

    Raises:
        OptionError: it is no function, cannot be imported, or returns something else.
    """

    def __init__(
        self, robot: Robot, function: Callable[[Tensor, Robot], Tensor] | str, weight: float = 1.0
    ):
        super().__init__(robot, weight)
        self._function = _imported(function) if isinstance(function, str) else function
        if not callable(self._function):
            raise OptionError(f"function of objective 'custom' is {function!r}; it is no function")

    def value(self, q: Tensor) -> Tensor:
        result = self._function(q, self.robot)
        if not isinstance(result, Tensor) or result.shape != q.shape[:-1]:
            what = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else repr(result)
            raise OptionError(
                f"function of objective 'custom' returned {what} for q of shape {tuple(q.shape)}; "
                f"it must return a tensor of shape {tuple(q.shape[:-1])}"
            )
        result = result.to(q.dtype)
        if q.requires_grad and torch.is_grad_enabled() and not result.requires_grad:
            return result + 0 * q.sum(-1)  # a constant, or a step: it acts in the ranking only
        return result


def _imported(name: str) -> Callable[[Tensor, Robot], Tensor]:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(
            f"function {name!r} of objective 'custom' cannot be imported: {error}; "
            "it is named module:function"
        ) from error


OBJECTIVE = Custom

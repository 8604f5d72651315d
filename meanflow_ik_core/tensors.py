# SPDX-License-Identifier: Apache-2.0
"""Tensors of torch that a caller hands over; who has none need not import torch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from torch import Tensor


def is_tensor(given: Any) -> TypeGuard[Tensor]:
    """Whether something is a tensor, which it can be only where torch has been imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(given, torch.Tensor)


def array_from(given: Any) -> Any:
    """The array of a tensor, without gradients; anything else as it is."""
    return given.detach().cpu().numpy() if is_tensor(given) else given

# SPDX-License-Identifier: Apache-2.0
"""Tensors and devices of torch, which is imported only where a caller brings or names them."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeGuard

from .errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

INSTALL_TORCH = "pip install '.[train]'"


def imported_torch() -> Any:
    """torch where it has been imported, else None.

    While another thread imports it, its module is there without its content.
    """
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "Tensor") else None


def is_tensor(given: Any) -> TypeGuard[Tensor]:
    """Whether something is a tensor, which it can be only where torch has been imported."""
    torch = imported_torch()
    return torch is not None and isinstance(given, torch.Tensor)


def array_from(given: Any) -> Any:
    """The array of a tensor, without gradients; anything else as it is."""
    if not is_tensor(given):
        return given
    if given.device.type != "cuda":
        return given.detach().cpu().numpy()
    # In memory that a GPU copies to by itself, which is several times as fast.
    host = sys.modules["torch"].empty(given.shape, dtype=given.dtype, pin_memory=True)
    return host.copy_(given.detach()).numpy()


def of_kind(example: Any, found: Any) -> Any:
    """An array or tensor as a tensor where the example is one, else as an array."""
    return sys.modules["torch"].as_tensor(found) if is_tensor(example) else array_from(found)


def set_num_threads(count: int) -> None:
    """Let torch compute by so many threads, if it has been imported."""
    torch = imported_torch()
    if torch is not None and torch.get_num_threads() != count:
        torch.set_num_threads(count)


def require_torch(what: str) -> None:
    """OptionError where something needs torch and it is not installed."""
    if find_spec("torch") is None:
        raise OptionError(f"{what} need torch, which the extra `train` brings: {INSTALL_TORCH}")


def device_name(device: Any) -> str:
    """The name of a device that can be used here, "cpu" for the CPU.

    Raises:
        OptionError: there is no such device, or it is not usable.
    """
    name = str(device)
    if name == "cpu":
        return name
    try:
        import torch

        where = torch.device(name)
        torch.empty(0, device=where)
    except (ImportError, RuntimeError, AssertionError) as error:
        raise OptionError(
            f"device {name!r} is not usable here: {error}; device 'cpu' always is"
        ) from error
    return "cpu" if where.type == "cpu" else name

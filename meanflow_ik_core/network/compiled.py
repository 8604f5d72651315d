# SPDX-License-Identifier: Apache-2.0
"""The one-step call of a network on the CPU, compiled, from the arrays of its checkpoint."""

import threading
from collections.abc import Mapping

import numpy as np

from ..errors import OptionError
from ..kernels.one_step import (
    BFLOAT16,
    FLOAT32,
    one_step_of,
    work_sizes,
)
from ..kernels.products import BFLOAT16_IS_FASTER, MULTIPLIES_BFLOAT16
from .packing import aligned, pack_context, pack_trunk, size_numbers
from .sizes import NetworkSizes

PRECISIONS = ("auto", "float32", "bfloat16")


class CompiledNetwork:
    """x0_hat = x1 - u(x1, 0, 1, targets), by one thread and without torch.

    A sample is the same whatever else is asked at once. Objects may be shared by threads, copied
    and pickled.

    Args:
        sizes: of the network.
        weights: by the names of `NetworkSizes.shapes`, copied.
        workspace_scale: m, of the robot.
        precision: of the blocks that take most of the time: "float32", "bfloat16", or "auto", the
            faster one on this CPU. The residual stream between them and all else is float32.

    Raises:
        OptionError: there is no such precision, or this CPU has no bfloat16.
    """

    def __init__(
        self,
        sizes: NetworkSizes,
        weights: Mapping[str, np.ndarray],
        workspace_scale: float,
        precision: str = "float32",
    ):
        self.sizes = sizes
        self._workspace_scale = float(workspace_scale)
        weights = {name: np.array(weight) for name, weight in weights.items()}
        self._arguments = sizes, weights, workspace_scale, precision
        blocks = FLOAT32
        if known_precision(precision) == "bfloat16":
            blocks = BFLOAT16
        self._context = pack_context(sizes, weights)
        self._trunk = pack_trunk(sizes, weights, np.dtype(blocks.name))
        self._everything = np.ones((sizes.num_tips, 2), bool)
        self._size_numbers = size_numbers(sizes)
        self._work_sizes = work_sizes(self._size_numbers)
        # Here, so that the first call need not wait for the compiler.
        self._kernel = one_step_of(self._context[0].dtype == np.uint16, blocks)

    def __reduce__(self):
        # From the weights anew: another CPU has another packing.
        return type(self), self._arguments

    def __call__(
        self, noise: np.ndarray, T_base_tip: np.ndarray, given: np.ndarray | None = None
    ) -> np.ndarray:
        """N samples for each of B poses.

        Args:
            noise: (B, N, J) float32.
            T_base_tip: (B, T, 4, 4); parts that are not given may hold anything.
            given: bool (T, 2), whether the position and the orientation of a tip are asked for;
                None: everything.

        Returns:
            (B, N, J) normalised joints, float32.

        Raises:
            OptionError: the network needs complete goals, and this one is not; or an array has the
                wrong shape.
        """
        tips, joints = self.sizes.num_tips, self.sizes.num_joints
        noise = np.ascontiguousarray(noise, np.float32)
        poses = np.ascontiguousarray(T_base_tip, np.float64)
        asked = self._everything
        if given is not None:
            asked = np.ascontiguousarray(given, bool)
            self.sizes.check_given(asked)
        batch, count = noise.shape[0], noise.shape[1] if noise.ndim > 1 else -1
        # The kernel does not look where arrays end.
        if (noise.shape, poses.shape, asked.shape) != (
            (batch, count, joints), (batch, tips, 4, 4), (tips, 2),
        ):  # fmt: skip
            raise OptionError(
                f"noise {noise.shape}, poses {poses.shape} and what is given {asked.shape} must be "
                f"(B, N, {joints}), (B, {tips}, 4, 4) and ({tips}, 2)"
            )
        x0_hat = np.empty_like(noise)
        self._kernel(
            noise.reshape(-1, joints), count, poses, asked, self._size_numbers,
            self._workspace_scale, *self._context, *self._trunk,
            *_THREAD.buffers(self._trunk[1].dtype, *self._work_sizes),
            x0_hat.reshape(-1, joints),
        )  # fmt: skip
        return x0_hat


class _Buffers(threading.local):
    """Memory to work in, of each thread, for all networks; it grows to what is asked."""

    def __init__(self) -> None:
        self._work = np.empty(0, np.float32)
        self._inputs: dict[np.dtype, np.ndarray] = {}

    def buffers(self, kind: np.dtype, size: int, inputs_size: int) -> tuple[np.ndarray, np.ndarray]:
        """At least ``size`` numbers of float32, and ``inputs_size`` of another type."""
        if self._work.size < size:
            # Zeros, for denormal numbers in rows that nobody reads would take long.
            self._work = aligned(np.zeros(size, np.float32))
        inputs = self._inputs.get(kind)
        if inputs is None or inputs.size < inputs_size:
            inputs = self._inputs[kind] = aligned(np.zeros(inputs_size, kind))
        return self._work, inputs


_THREAD = _Buffers()


def bfloat16_supported() -> bool:
    """Whether this CPU multiplies bfloat16 itself."""
    return MULTIPLIES_BFLOAT16


def bfloat16_is_faster() -> bool:
    """Whether that takes less time than float32."""
    return BFLOAT16_IS_FASTER


def known_precision(precision: str) -> str:
    """The precision that is meant, "float32" or "bfloat16".

    Raises:
        OptionError: there is no such precision, or this CPU has no bfloat16.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"unknown precision {precision!r}; it is one of {', '.join(PRECISIONS)}")
    if precision == "bfloat16" and not bfloat16_supported():
        raise OptionError("precision is 'bfloat16', which this CPU has not; 'float32' is left")
    if precision == "auto":
        return "bfloat16" if bfloat16_is_faster() else "float32"
    return precision

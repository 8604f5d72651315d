# SPDX-License-Identifier: Apache-2.0
"""C for one robot: its arrays as tables before a fixed text, for CUDA by NVRTC or for the CPU by a
C compiler."""

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..robot.cache import cached_file
from ..robot.robot import Robot
from .nvrtc import load_kernels

# Takes contiguous tensors and the number of rows, and runs the function on all rows.
RowFunction = Callable[[Sequence[Tensor], int], None]

_THREADS = 128
_C_COMPILERS = ("cc", "gcc", "clang")
_ON_CUDA = """
#define TABLE __device__ const
#define INLINE __device__ __forceinline__
#define KERNEL extern "C" __global__
#define EACH_ROW(row, count) \\
  const int row = blockIdx.x * blockDim.x + threadIdx.x; \\
  if (row < count)
"""
_ON_CPU = """
#include <math.h>
#define TABLE static const
#define INLINE static inline
#define KERNEL
#define UNROLL
#define EACH_ROW(row, count) for (int row = 0; row < count; row++)
"""


def robot_tables(robot: Robot) -> dict[str, Any]:
    """Numbers and arrays of a robot, by the names that kinematics.h has for them."""
    return {
        "NODES": len(robot.parent),
        "JOINTS": robot.num_joints,
        "TIPS": robot.num_tips,
        "ROWS": 6 * robot.num_tips,
        "WORKSPACE_SCALE": float(robot.workspace_scale),
        "parent": robot.parent,
        "node_joint": robot.joint,
        "prismatic": robot.prismatic.astype(int),
        "multiplier": robot.multiplier,
        "offset": robot.offset,
        "placement": robot.placement[:, :3],
        "tip_node": robot.tip_node,
        "tip_placement": robot.tip_placement[:, :3],
        "ancestor": robot.ancestors.astype(int),
        "lower": robot.lower,
        "upper": robot.upper,
        "half_range": 0.5 * (robot.upper - robot.lower),
    }


def compile_rows(
    texts: Sequence[str], tables: Mapping[str, Any], names: Sequence[str], device: torch.device
) -> dict[str, RowFunction]:
    """Functions of C texts of this folder, compiled for a device.

    Args:
        texts: file names, in their order.
        tables: scalars become macros, arrays become tables; float64 is written as float32.
        names: functions that are marked KERNEL.
        device: cuda or cpu.

    Raises:
        ConfigError: there is no compiler for the device, or it refuses the text.
    """
    if device.type == "cuda":
        kernels = load_kernels(cuda_source(texts, tables), names)
        return {name: _cuda_function(kernel) for name, kernel in kernels.items()}
    library = _host_library(_ON_CPU + _source(texts, tables))
    return {name: _host_function(library, name) for name in names}


def cuda_source(texts: Sequence[str], tables: Mapping[str, Any]) -> str:
    """What NVRTC gets, see `compile_rows`."""
    # Unrolled, the arrays of a small robot stay in registers; a tree's code would be too long.
    unroll = '_Pragma("unroll")' if tables["TIPS"] == 1 else ""
    return f"{_ON_CUDA}#define UNROLL {unroll}\n{_source(texts, tables)}"


def _source(texts: Sequence[str], tables: Mapping[str, Any]) -> str:
    return "\n".join([*map(_declared, tables, tables.values()), *map(_text, texts)])


@cache
def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text()


def _declared(name: str, value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return f"#define {name} {_number(value)}"
    kind = "float" if value.dtype.kind == "f" else "int"
    numbers = ", ".join(_number(number) for number in value.ravel().tolist())
    return f"TABLE {kind} {name}[{value.size}] = {{{numbers}}};"


def _number(value: float) -> str:
    return f"{value:.9e}f" if isinstance(value, float) else str(int(value))


def _host_library(source: str) -> ctypes.CDLL:
    wanted = (os.environ.get("CC", ""), *_C_COMPILERS)
    compiler = next(filter(None, map(shutil.which, filter(None, wanted))), None)
    if compiler is None:
        raise ConfigError(f"there is no C compiler: none of {_C_COMPILERS} is found")

    def write(path: Path) -> None:
        options = ["-O2", "-shared", "-fPIC", "-x", "c", "-", "-o", str(path), "-lm"]
        done = subprocess.run([compiler, *options], input=source, capture_output=True, text=True)
        if done.returncode != 0:
            raise ConfigError(f"{compiler} refuses generated C: {_first_error(done.stderr)}")

    digest = hashlib.sha256(f"{compiler} {source}".encode()).hexdigest()
    return ctypes.CDLL(str(cached_file(f"rows-{digest[:32]}.so", write)))


def _host_function(library: ctypes.CDLL, name: str) -> RowFunction:
    function = getattr(library, name)

    def run(tensors: Sequence[Tensor], rows: int) -> None:
        pointers = [ctypes.c_void_p(_checked(tensor).data_ptr()) for tensor in tensors]
        function(*pointers, ctypes.c_int(rows))

    return run


def _cuda_function(kernel: Any) -> RowFunction:
    def run(tensors: Sequence[Tensor], rows: int) -> None:
        # Tensors and an integer are all that every torch passes in the same way.
        arguments = [*map(_checked, tensors), rows]
        kernel(grid=(-(-rows // _THREADS), 1, 1), block=(_THREADS, 1, 1), args=arguments)

    return run


def _checked(tensor: Tensor) -> Tensor:
    """The tensor, whose rows follow one another: what the C reads."""
    if not tensor.is_contiguous():
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} is not contiguous")
    return tensor


def _first_error(output: str) -> str:
    lines = [line for line in output.splitlines() if "error" in line] or output.splitlines()
    return lines[0].strip() if lines else "no reason is given"

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
from .nvrtc import launch, load_kernels

# Takes contiguous tensors and integers, then the number of rows, and runs the function on all rows.
RowFunction = Callable[[Sequence[Tensor | int], int], None]

_THREADS = 128  # of a block
_C_COMPILERS = ("cc", "gcc", "clang")
_ON_CUDA = """
#define INLINE __device__ __forceinline__
#define KERNEL extern "C" __global__
#define SINE_COSINE(angle, sine, cosine) sincos(angle, &sine, &cosine)
#define EACH_ROW(row, count) \\
  const int row = blockIdx.x * blockDim.x + threadIdx.x; \\
  if (row < count)
#define LANES 128
#define SHARED __shared__
#define SYNC __syncthreads();
#define EACH_BLOCK(block, lane, count) const int block = blockIdx.x, lane = threadIdx.x;
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
"""
# Unrolled, the arrays of a small robot stay in registers, tables become constants, and what they
# say is zero costs nothing.
_UNROLLED = """
#define TABLE __device__ const
#define UNROLL _Pragma("unroll")
#define EACH_COMMON(j, a, b) \\
  UNROLL for (int j = 0; j < JOINTS; j++) if (moves[(a) * JOINTS + j] && moves[(b) * JOINTS + j])
"""
# The code of a large tree would be too long. Joints that move tips a and b are listed.
_LOOPS = """
#define UNROLL
#define EACH_COMMON(j, a, b) \\
  for (int j##_ = 0, j = common[((a) * TIPS + (b)) * (JOINTS + 1)]; \\
       j##_ < num_common[(a) * TIPS + (b)]; \\
       j = common[((a) * TIPS + (b)) * (JOINTS + 1) + ++j##_])
"""
_ON_CPU = """
#include <math.h>
#include <tgmath.h>
#define TABLE static const
#define INLINE static inline
#define KERNEL
#define SINE_COSINE(angle, sine, cosine) (sine = sin(angle), cosine = cos(angle))
#define EACH_ROW(row, count) for (int row = 0; row < count; row++)
#define LANES 1
#define SHARED
#define SYNC
#define EACH_BLOCK(block, lane, count) for (int block = 0, lane = 0; block < count; block++)
"""

# Joints that move two tips, or one, summed over these: the code of larger trees is not unrolled,
# for its compilation takes long and its arrays exceed the registers. Two arms have 14, G1 has 35.
_MOST_UNROLLED = 20


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
    texts: Sequence[str],
    tables: Mapping[str, Any],
    names: Sequence[str],
    device: torch.device,
    real: str = "float",
    blocks: Sequence[str] = (),
    fast: bool = False,
) -> dict[str, RowFunction]:
    """Functions of C texts of this folder, compiled for a device.

    Args:
        texts: file names, in their order.
        tables: scalars become macros, arrays become tables; float64 is written as ``real``.
        names: functions that are marked KERNEL.
        device: cuda or cpu.
        real: the type of the arithmetic, "float" or "double".
        blocks: those of the functions that give each row a block of threads.
        fast: whether a GPU may take sines, roots and quotients to some 2^-21 only.

    Raises:
        ConfigError: there is no compiler for the device, or it refuses the text.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            kernels = load_kernels(cuda_source(texts, tables, real), names, fast)
        return {name: _cuda_function(kernels[name], device, name in blocks) for name in names}
    library = _host_library(f"{_ON_CPU}{_LOOPS}{_source(texts, tables, real)}")
    return {name: _host_function(library, name) for name in names}


def cuda_source(texts: Sequence[str], tables: Mapping[str, Any], real: str = "float") -> str:
    """What NVRTC gets, see `compile_rows`."""
    is_short = tables["TIPS"] == 1
    if not is_short and "num_common" in tables:
        pairs = tables["num_common"].reshape(tables["TIPS"], -1)
        is_short = np.tril(pairs).sum() <= _MOST_UNROLLED
    how = _UNROLLED if is_short else f"#define TABLE __constant__ const{_LOOPS}"
    return f"{_ON_CUDA}{how}{_source(texts, tables, real)}"


def _source(texts: Sequence[str], tables: Mapping[str, Any], real: str) -> str:
    declared = map(_declared, tables, tables.values())
    return "\n".join([f"#define REAL {real}", *declared, *map(_text, texts)])


@cache
def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text()


def _declared(name: str, value: Any) -> str:
    if not isinstance(value, np.ndarray):
        number = f"((REAL){value:.17e})" if isinstance(value, float) else str(int(value))
        return f"#define {name} {number}"
    is_real = value.dtype.kind == "f"
    numbers = ", ".join(f"{x:.17e}" if is_real else str(int(x)) for x in value.ravel().tolist())
    return f"TABLE {'REAL' if is_real else 'int'} {name}[{value.size}] = {{{numbers}}};"


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

    def run(arguments: Sequence[Tensor | int], rows: int) -> None:
        function(
            *(
                ctypes.c_int(one)
                if isinstance(one, int)
                else ctypes.c_void_p(_checked(one).data_ptr())
                for one in (*arguments, rows)
            )
        )

    return run


def _cuda_function(kernel: Any, device: torch.device, by_blocks: bool) -> RowFunction:
    def run(arguments: Sequence[Tensor | int], rows: int) -> None:
        if not rows:
            return
        with torch.cuda.device(device):
            launch(
                kernel, rows if by_blocks else -(-rows // _THREADS), _THREADS,
                [*map(_checked, arguments), rows],
            )  # fmt: skip

    return run


def _checked(argument: Any) -> Any:
    """The argument; the rows of a tensor follow one another, which is what the C reads."""
    if isinstance(argument, Tensor) and not argument.is_contiguous():
        raise ValueError(f"a tensor of shape {tuple(argument.shape)} is not contiguous")
    return argument


def _first_error(output: str) -> str:
    lines = [line for line in output.splitlines() if "error" in line] or output.splitlines()
    return lines[0].strip() if lines else "no reason is given"

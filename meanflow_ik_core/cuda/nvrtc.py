# SPDX-License-Identifier: Apache-2.0
"""CUDA C to kernels: compiled by the NVRTC that a CUDA torch brings, loaded by torch."""

import ctypes
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..robot.cache import cached_file

_OPTIONS = ("--std=c++17",)
_FAST = "--use_fast_math"
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY


@cache
def find_nvrtc(major: str) -> ctypes.CDLL | None:
    """NVRTC of a CUDA version, loaded or beside torch; None where there is none.

    Args:
        major: of the CUDA version.
    """
    beside = Path(torch.__file__).parents[1] / "nvidia"
    files = sorted(map(str, beside.rglob(f"libnvrtc.so.{major}*")))
    for name in (f"libnvrtc.so.{major}", *files):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def compile_cubin(
    nvrtc: ctypes.CDLL, source: str, architecture: str, fast: bool = False
) -> bytes:  # fmt: skip
    """Machine code of a source without includes, for an architecture such as sm_90.

    Raises:
        ConfigError: NVRTC refuses it.
    """
    program = ctypes.c_void_p()
    made = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), b"generated.cu", 0, None, None
    )
    chosen = (f"--gpu-architecture={architecture}", *_OPTIONS, *([_FAST] if fast else []))
    options = [option.encode() for option in chosen]
    refused = made or nvrtc.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*options)
    )
    if refused:
        log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode()
        errors = [line for line in log.splitlines() if "error" in line] or ["no reason is given"]
        raise ConfigError(f"NVRTC refuses generated C for {architecture}: {errors[0].strip()}")
    cubin = _read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return cubin


def load_kernels(source: str, names: Sequence[str], fast: bool = False) -> dict[str, Any]:
    """Kernels by their names, for the current device and `launch`.

    Their machine code is compiled once and kept among the cached files of the user.

    Raises:
        ConfigError: there is no NVRTC, or this torch or the driver cannot load machine code.
    """
    try:
        from torch.cuda._utils import _cuda_load_module
    except ImportError as error:
        raise ConfigError(
            f"torch {torch.__version__} cannot load the kernels of this robot; 2.9 and later can"
        ) from error
    version = str(torch.version.cuda)
    nvrtc = find_nvrtc(version.partition(".")[0])
    if nvrtc is None:
        raise ConfigError(
            f"NVRTC of CUDA {version}, which compiles the kernels of this robot, is not found; "
            "pip install nvidia-cuda-nvrtc brings it"
        )
    architecture = "sm_{}{}".format(*torch.cuda.get_device_capability())

    def write(path: Path) -> None:
        path.write_bytes(compile_cubin(nvrtc, source, architecture, fast))

    cubin = cached_file(cubin_name(nvrtc, source, architecture, fast), write)
    load: Any = _cuda_load_module
    try:
        return load(cubin.read_bytes(), list(names))
    except RuntimeError as error:
        raise ConfigError(
            f"the driver cannot load kernels of CUDA {version} ({error}); a newer driver can, and "
            "device 'cpu' needs none"
        ) from error


def cubin_name(nvrtc: ctypes.CDLL, source: str, architecture: str, fast: bool) -> str:
    """The name of a cached file."""
    made_from = f"{_version_of(nvrtc)} {architecture} {_FAST if fast else ''} {source}"
    return f"rows-{hashlib.sha256(made_from.encode()).hexdigest()[:32]}.cubin"


def launch(kernel: Any, blocks: int, threads: int, arguments: Sequence[Tensor | int]) -> None:
    """Start a kernel of `load_kernels` on the current stream of the current device.

    Torch's own call of a kernel takes several times as long as the driver's.

    Raises:
        torch.OutOfMemoryError: for the stacks of the threads.
        RuntimeError: the driver refuses it.
    """
    values = [
        ctypes.c_void_p(one.data_ptr()) if isinstance(one, Tensor) else ctypes.c_int(one)
        for one in arguments
    ]
    places = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    code = _driver().cuLaunchKernel(
        kernel.func, blocks, 1, 1, threads, 1, 1, 0, stream, places, None
    )  # fmt: skip
    if code == _OUT_OF_MEMORY:
        raise torch.OutOfMemoryError("CUDA out of memory for the stacks of a kernel's threads")
    if code:
        raise RuntimeError(f"the CUDA driver refuses to launch a kernel: error {code}")


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _version_of(nvrtc: ctypes.CDLL) -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def _read(size_of: Callable[..., int], read: Callable[..., int], program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    read(program, text)
    return text.raw

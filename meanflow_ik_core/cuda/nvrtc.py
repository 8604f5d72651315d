# SPDX-License-Identifier: Apache-2.0
"""CUDA C to kernels: compiled by the NVRTC that a CUDA torch brings, loaded by torch."""

import ctypes
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError
from ..robot.cache import cached_file

_OPTIONS = ("--std=c++17",)


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


def compile_cubin(nvrtc: ctypes.CDLL, source: str, architecture: str) -> bytes:
    """Machine code of a source without includes, for an architecture such as sm_90.

    Raises:
        ConfigError: NVRTC refuses it.
    """
    program = ctypes.c_void_p()
    made = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), b"generated.cu", 0, None, None
    )
    options = [option.encode() for option in (f"--gpu-architecture={architecture}", *_OPTIONS)]
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


def load_kernels(source: str, names: Sequence[str]) -> dict[str, Any]:
    """Kernels by their names, for the current device; called with grid, block, args.

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
    digest = hashlib.sha256(f"{_version_of(nvrtc)} {architecture} {source}".encode()).hexdigest()

    def write(path: Path) -> None:
        path.write_bytes(compile_cubin(nvrtc, source, architecture))

    cubin = cached_file(f"rows-{digest[:32]}.cubin", write)
    load: Any = _cuda_load_module
    try:
        return load(cubin.read_bytes(), list(names))
    except RuntimeError as error:
        raise ConfigError(
            f"the driver cannot load kernels of CUDA {version} ({error}); a newer driver can, and "
            "device 'cpu' needs none"
        ) from error


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

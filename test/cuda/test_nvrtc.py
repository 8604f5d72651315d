# SPDX-License-Identifier: Apache-2.0
"""The generated C as CUDA, compiled for a GPU that need not be there."""

import ctypes
from types import SimpleNamespace

import pytest
import torch
import torch.cuda._utils
from example_robots import ROBOTS

from meanflow_ik_core.cuda import nvrtc as nvrtc_module
from meanflow_ik_core.cuda.estimates import NAMES, TEXTS, estimate_tables
from meanflow_ik_core.cuda.generated import cuda_source
from meanflow_ik_core.cuda.goal_kernels import (
    DESCENT_TEXTS,
    SEARCH_NAMES,
    SEARCH_TEXTS,
    goal_tables,
)
from meanflow_ik_core.cuda.nvrtc import compile_cubin, find_nvrtc, launch, load_kernels
from meanflow_ik_core.errors import ConfigError
from meanflow_ik_core.kernels.layout import unpack
from meanflow_ik_core.solving.robot_arrays import packed
from meanflow_ik_core.training.config import load_train_config
from meanflow_ik_core.training.fused_step import CONDITION_WIDTHS, estimate_terms


@pytest.fixture(scope="module")
def nvrtc() -> ctypes.CDLL:
    found = find_nvrtc("13") or find_nvrtc("12")
    if found is None:
        pytest.skip("needs NVRTC")
    return found


@pytest.mark.parametrize(("name", "recipe"), [("panda", "panda"), ("torso_two_arms", "trees")])
def test_the_kernels_of_a_robot_compile_for_an_h100(nvrtc, name, recipe):
    config = load_train_config(recipe)
    tables = estimate_tables(
        ROBOTS[name](),
        estimate_terms(config),
        config.estimate_samples,
        CONDITION_WIDTHS[config.network],
    )
    cubin = compile_cubin(nvrtc, cuda_source(TEXTS, tables), "sm_90")
    assert cubin.startswith(b"\x7fELF")
    for kernel in NAMES:
        assert b".text." + kernel.encode() + b"\0" in cubin


@pytest.mark.parametrize("name", ["panda", "torso_two_arms"])
def test_the_kernels_of_a_search_compile_for_an_h100(nvrtc, name):
    robot = ROBOTS[name]()
    integers, floats32, floats64 = packed(robot, 1e-5, 1e-5)
    tables = goal_tables(robot, unpack.py_func(integers, floats32)) | {"SLIDING": 1}
    cubin = compile_cubin(nvrtc, cuda_source(DESCENT_TEXTS, tables), "sm_90", fast=True)
    assert b".text.descend\0" in cubin
    tables = goal_tables(robot, unpack.py_func(integers, floats64))
    cubin = compile_cubin(nvrtc, cuda_source(SEARCH_TEXTS, tables, "double"), "sm_90")
    for kernel in SEARCH_NAMES:
        assert b".text." + kernel.encode() + b"\0" in cubin


def test_what_nvrtc_refuses_is_said_in_a_line(nvrtc):
    with pytest.raises(ConfigError, match=r"sm_90.*error"):
        compile_cubin(nvrtc, "int f( {", "sm_90")


def test_a_machine_without_nvrtc_and_a_torch_that_loads_nothing_are_refused(monkeypatch):
    assert find_nvrtc("7") is None
    monkeypatch.setattr(torch.version, "cuda", "7.0")
    with pytest.raises(ConfigError, match=r"NVRTC of CUDA 7\.0.*not found; pip install"):
        load_kernels("", NAMES)
    monkeypatch.delattr(torch.cuda._utils, "_cuda_load_module")
    with pytest.raises(ConfigError, match=r"cannot load the kernels.*2\.9"):
        load_kernels("", NAMES)


def test_a_launch_hands_over_pointers_and_integers_and_what_the_driver_refuses(monkeypatch):
    codes, seen = [0, 2, 700], []

    def launch_kernel(function, *sizes_and_rest):
        *sizes, stream, places, _ = sizes_and_rest
        pointer = ctypes.cast(places[0], ctypes.POINTER(ctypes.c_void_p))[0]
        number = ctypes.cast(places[1], ctypes.POINTER(ctypes.c_int))[0]
        seen.append((function, sizes, stream.value, pointer, number))
        return codes.pop(0)

    driver, stream = SimpleNamespace(cuLaunchKernel=launch_kernel), SimpleNamespace(cuda_stream=5)
    monkeypatch.setattr(nvrtc_module, "_driver", lambda: driver)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    tensor, kernel = torch.zeros(3), SimpleNamespace(func="handle")
    launch(kernel, 7, 128, [tensor, -3])
    assert seen == [("handle", [7, 1, 1, 128, 1, 1, 0], 5, tensor.data_ptr(), -3)]
    with pytest.raises(torch.OutOfMemoryError, match="stacks"):
        launch(kernel, 7, 128, [tensor, -3])
    with pytest.raises(RuntimeError, match="error 700"):
        launch(kernel, 7, 128, [tensor, -3])

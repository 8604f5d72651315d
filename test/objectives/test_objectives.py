# SPDX-License-Identifier: Apache-2.0
"""Objectives against finite differences and Pinocchio; bad ones are refused by name."""

import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from example_robots import draw
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.objectives import (
    Objective,
    available_objectives,
    build_objectives,
    read_objectives,
    weighted_sum,
)


def squares(q: torch.Tensor, robot: mik.Robot) -> torch.Tensor:
    return (q * q).sum(-1)


LINKS = {"panda": "panda_link4", "torso": "left_fore"}
SPECS = {
    "posture": {"posture": {}},
    "manipulability": {"length": 0.5},
    "joint_limits": {"margin": 0.8},
    "clearance": {"margin": 0.3, "temperature": 0.02},
    "link_point": {"position": (0.3, 0.2, 0.5), "point": (0.1, 0.0, 0.05)},
    "link_direction": {"axis": (0, 1, 1), "look_at": (1.0, 0.5, 0.4)},
    "custom": {"function": squares},
}


@pytest.fixture(scope="module", params=["panda", "torso"])
def robot(request) -> mik.Robot:
    return request.getfixturevalue(request.param)


def spec_of(name: str, robot: mik.Robot) -> dict:
    spec = {"name": name, **SPECS[name]}
    if name == "posture":
        spec["posture"] = {joint: 0.1 for joint in robot.joint_names[1:]}
    if name.startswith("link"):
        spec["link"] = LINKS["panda" if robot.name == "panda" else "torso"]
    return spec


def test_every_objective_is_tested():
    assert set(SPECS) == set(available_objectives())


@pytest.mark.parametrize("name", SPECS)
def test_gradients_agree_with_finite_differences(name, robot):
    (objective,) = build_objectives([spec_of(name, robot)], robot)
    q = draw(robot, 30, seed=1).requires_grad_()
    value = objective.value(q)
    assert value.shape == (30,)
    (gradient,) = torch.autograd.grad(value.sum(), q)
    step = 1e-6
    with torch.no_grad():
        numeric = torch.stack(
            [
                (objective.value(q + step * axis) - objective.value(q - step * axis)) / (2 * step)
                for axis in torch.eye(q.shape[1], dtype=q.dtype)
            ],
            -1,
        )
    difference = (gradient - numeric).abs().amax(-1) / (1 + numeric.abs().amax(-1))
    # the closest spheres of a pair may change within a step
    assert (difference < 1e-5).float().mean() >= (0.9 if name == "clearance" else 1.0)
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("name", SPECS)
def test_values_keep_shape_and_type(name, robot):
    (objective,) = build_objectives([spec_of(name, robot)], robot)
    q = draw(robot, 12)
    expected = objective.value(q)
    assert expected.dtype == torch.float64
    torch.testing.assert_close(objective.value(q.view(3, 4, -1)), expected.view(3, 4))
    single = objective.value(q.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, atol=1e-3, rtol=1e-3)


def pinocchios_singular_values(robot: mik.Robot, link: str, q: np.ndarray) -> np.ndarray:
    """(N, 6 or J) of a link's Jacobian, of q (N, J)."""
    judge, tip = Judge(robot), robot.tips.index(link)
    return np.array([np.linalg.svd(judge.jacobian(row)[tip], compute_uv=False) for row in q])


@pytest.mark.parametrize(
    "degrees", [{"panda_link8": 6}, {"panda_link8": 6, "panda_link4": 4, "panda_link2": 2}], ids=len
)
def test_manipulability_is_that_of_pinocchios_jacobian(degrees):
    robot = mik.load_robot(mik.load_robot("panda").urdf_path, tips=list(degrees))
    (objective,) = build_objectives(["manipulability"], robot)
    q = draw(robot, 50)
    expected = np.zeros(50)
    for link, rank in degrees.items():
        values = pinocchios_singular_values(robot, link, q.numpy())
        assert (values[:, rank:] < 1e-12).all()
        expected -= np.log(values[:, :rank]).sum(1)
    np.testing.assert_allclose(objective.value(q).numpy(), expected, rtol=1e-9)


def test_manipulability_of_one_tip_is_a_part_of_the_sum(dual_panda):
    q = draw(dual_panda, 10)
    whole, *parts = build_objectives(
        ["manipulability", *({"name": "manipulability", "tip": tip} for tip in dual_panda.tips)],
        dual_panda,
    )
    torch.testing.assert_close(whole.value(q), sum(part.value(q) for part in parts))


def test_values_at_a_singularity_are_finite_and_worst(panda):
    (objective,) = build_objectives(["manipulability"], panda)
    # joints 5 and 7 turn about one axis
    q = torch.tensor([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785], dtype=torch.float64)
    stretched = torch.zeros(7, dtype=torch.float64).requires_grad_()
    value = objective.value(stretched)
    (gradient,) = torch.autograd.grad(value, stretched)
    assert torch.isfinite(value) and torch.isfinite(gradient).all()
    assert value > objective.value(q) + 5


def test_link_values_are_geometry_by_pinocchio(panda):
    judge = Judge(panda)
    point, target = np.array((0.1, 0.2, -0.1)), np.array((0.3, -0.2, 0.6))
    objectives = build_objectives(
        [
            {"name": "link_point", "link": "panda_link4", "position": target, "point": point},
            {"name": "link_direction", "link": "panda_link5", "direction": (0, 0, 2)},
            {"name": "link_direction", "link": "panda_link5", "axis": (1, 0, 0), "look_at": target},
        ],
        panda,
    )
    q = draw(panda, 20)
    values = torch.stack([objective.value(q) for objective in objectives], -1)
    for row, found in zip(q.numpy(), values.numpy(), strict=True):
        fourth, fifth = judge.link(row, "panda_link4"), judge.link(row, "panda_link5")
        way = target - fifth.translation
        expected = (
            np.sum((fourth.act(point) - target) ** 2),
            1 - fifth.rotation[2, 2],
            1 - fifth.rotation[:, 0] @ way / np.linalg.norm(way),
        )
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_posture_goes_the_short_way_round_a_continuous_joint(torso):
    index = int(np.flatnonzero(torso.continuous)[0])
    name = torso.joint_names[index]
    (objective,) = build_objectives([{"name": "posture", "posture": {name: 3.0}}], torso)
    q = torch.zeros(1, torso.num_joints, dtype=torch.float64)
    q[0, index] = -3.0
    assert objective.value(q).item() == pytest.approx((2 * np.pi - 6) ** 2)


def test_a_posture_follows_the_current_joints_unless_it_is_given(panda):
    current = draw(panda, 3)
    following, fixed = build_objectives(
        ["posture", {"name": "posture", "posture": current[0].tolist()}], panda
    )
    assert following.near(current).value(current).abs().max() == 0
    assert following.value(current).min() > 0
    assert fixed.near(current[1:2]).value(current[:1]).item() == 0


def test_a_satisfied_objective_costs_nothing(panda):
    limits, clearance = build_objectives(
        [{"name": "joint_limits", "margin": 0.1}, {"name": "clearance", "margin": 0.02}], panda
    )
    ready = torch.tensor([0, -0.785, 0, -2.356, 0, 1.571, 0.785], dtype=torch.float64)
    assert limits.value(ready) == 0 and clearance.value(ready) == 0
    at_limit = ready.clone()
    at_limit[0] = panda.upper[0]
    assert limits.value(at_limit).item() == pytest.approx(1.0)


BAD = {
    "a name alone": ("posture", "list"),
    "unknown name": (["manipulabilty"], "did you mean 'manipulability'"),
    "unknown key": ([{"name": "posture", "wieght": 2}], "did you mean 'weight'"),
    "missing key": ([{"name": "link_point", "link": "panda_link4"}], "'position'"),
    "no name": ([{"weight": 2}], "'name'"),
    "a number": ([3], "3"),
    "negative weight": ([{"name": "posture", "weight": -1}], "weight"),
    "weight of words": ([{"name": "posture", "weight": "much"}], "much"),
    "weight that is not finite": ([{"name": "posture", "weight": float("nan")}], "weight"),
    "short posture": ([{"name": "posture", "posture": [0, 0]}], "7 numbers"),
    "unknown joint": ([{"name": "posture", "posture": {"panda_joint9": 0}}], "panda_joint1"),
    "unknown link": (
        [{"name": "link_point", "link": "panda_link44", "position": (0, 0, 0)}],
        "panda_link4",
    ),
    "links": ([{"name": "link_point", "link": ["a"], "position": (0, 0, 0)}], "'a'"),
    "unknown tip": ([{"name": "manipulability", "tip": "panda_link7"}], "panda_link8"),
    "axis without length": (
        [{"name": "link_direction", "link": "panda_link4", "axis": (0,) * 3, "look_at": (1, 0, 0)}],
        "axis",
    ),
    "direction and point": (
        [
            {
                "name": "link_direction", "link": "panda_link4",
                "direction": (0, 0, 1), "look_at": (1, 0, 0),
            }
        ],
        "look_at",
    ),
    "margin beyond the middle": ([{"name": "joint_limits", "margin": 1.5}], "margin"),
    "margin of nothing": ([{"name": "clearance", "margin": 0}], "margin"),
    "no function": ([{"name": "custom", "function": 3}], "function"),
    "a function by name": ([{"name": "custom", "function": "os:getcwd"}], "read_objectives"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_specifications_are_refused_by_name(case):
    specs, says = BAD[case]
    with pytest.raises(mik.IKError, match=says.replace("[", r"\[")):
        build_objectives(specs, mik.load_robot("panda"))


def test_an_objective_of_another_robot_is_refused():
    other = build_objectives(["posture"], mik.load_robot("dual_panda"))
    with pytest.raises(mik.OptionError, match="dual_panda"):
        build_objectives(other, mik.load_robot("panda"))


def test_objectives_come_from_yaml(panda, tmp_path):
    path = tmp_path / "objectives.yaml"
    path.write_text(
        "objectives:\n- manipulability\n- {name: custom, function: 'torch:linalg.norm'}\n"
    )
    with pytest.raises(mik.OptionError, match="module:function"):
        read_objectives(path, panda)
    path.write_text("[manipulability, {name: posture, weight: 2.5, posture: {panda_joint1: 1}}]")
    first, second = read_objectives(path, panda)
    assert (first.name(), first.weight) == ("manipulability", 1.0)
    assert (second.name(), second.weight) == ("posture", 2.5)
    q = torch.zeros(1, 7, dtype=torch.float64)
    assert second.value(q).item() == 1.0
    path.write_text("wishes: [posture]")
    with pytest.raises(mik.OptionError, match="wishes"):
        read_objectives(path, panda)
    with pytest.raises(mik.OptionError, match="cannot read"):
        read_objectives(tmp_path / "none.yaml", panda)


def test_a_file_may_name_a_function_of_a_module_beside_it(tmp_path):
    (tmp_path / "my_objectives.py").write_text("def high(q, robot):\n    return -q[..., 0]\n")
    path = tmp_path / "objectives.yaml"
    path.write_text("[{name: custom, function: 'my_objectives:high'}]")
    before = list(sys.path)
    (objective,) = read_objectives(path, mik.load_robot("panda"))
    assert objective.value(torch.ones(2, 7)).tolist() == [-1, -1]
    assert sys.path == before


def test_a_custom_function_must_return_a_value_per_configuration(panda):
    (objective,) = build_objectives([{"name": "custom", "function": lambda q, r: q}], panda)
    with pytest.raises(mik.OptionError, match="shape"):
        objective.value(torch.zeros(3, 7))


def test_a_class_of_ones_own_is_an_objective(panda):
    class First(Objective):
        def value(self, q):
            return q[..., 0] ** 2

    (mine,) = build_objectives([First(panda, weight=3.0)], panda)
    q = draw(panda, 4)
    torch.testing.assert_close(weighted_sum([mine], q), 3 * q[:, 0] ** 2)


DOCUMENT = Path(__file__).parents[2] / "docs" / "objectives.md"


def test_the_document_names_every_objective_and_key():
    text = DOCUMENT.read_text()
    rows = {row.split("|")[1].strip().strip("`"): row for row in text.splitlines() if "| `" in row}
    for name in available_objectives():
        kind = importlib.import_module(f"meanflow_ik_core.objectives.{name}").OBJECTIVE
        for key in list(inspect.signature(kind).parameters)[1:]:
            assert key == "weight" or f"`{key}`" in rows[name], (name, key)


def test_the_file_of_the_document_is_read(panda, tmp_path, monkeypatch):
    """With the function of the document; test_docs.py runs its Python."""
    text = DOCUMENT.read_text()
    (block,) = re.findall(r"    # objectives\.yaml\n(?:    .*\n)+", text)
    (function,) = re.findall(r"```python\n(def elbow_high.*?)\n\n\n", text, re.DOTALL)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "objectives.yaml").write_text(textwrap.dedent(block))
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "my_objectives.py").write_text(function)
    wishes = mik.read_objectives(str(tmp_path / "objectives.yaml"), panda)
    assert len(wishes) == 4
    targets = panda.forward(draw(panda, 1).numpy())
    result = mik.load_solver(panda, sampler="uniform").solve(targets, objectives=wishes)
    assert result.valid[0, 0] and result.objective_values.shape[-1] == 4

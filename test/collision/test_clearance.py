# SPDX-License-Identifier: Apache-2.0
"""Approximate self-clearance against closed forms, Coal, and finite differences."""

import threading

import coal
import numpy as np
import pytest
import torch
from example_robots import TORSO, TORSO_TIPS, draw
from oracles import Judge

import meanflow_ik_core as mik
from meanflow_ik_core.collision.clearance import SphereModel
from meanflow_ik_core.collision.self_collision import SelfCollision
from meanflow_ik_core.collision.sphere_fit import (
    body_from_shapes,
    fit_spheres,
    signed_distance,
    triangles_from_shape,
)


@pytest.fixture(scope="module", params=["panda", TORSO], ids=["panda", "torso"])
def model(request) -> SphereModel:
    tips = None if request.param == "panda" else TORSO_TIPS
    return SphereModel(mik.load_robot(request.param, tips=tips))


def test_links_that_are_spheres_keep_their_exact_distance():
    robot = mik.load_robot(TORSO, tips=["left_hand", "right_hand"])
    model, judge = SphereModel(robot), Judge(robot)
    hands = sorted(("left_hand", "right_hand"))
    pair = [[model.links[i] for i in sorted(rows)] for rows in model.pairs.tolist()]
    column = [sorted(names) for names in pair].index(hands)
    q = draw(robot, 50)
    reached = np.stack([judge.poses(row) for row in q.numpy()])[..., :3, 3]
    expected = np.linalg.norm(reached[:, 0] - reached[:, 1], axis=-1) - 0.1
    found = model.pair_distances(q)[:, column].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_nearly_all_configurations_are_judged_as_coal_judges_them(panda):
    q = draw(panda, 4000, seed=7)
    touching = SelfCollision(panda).in_collision(q.numpy())
    gap = SphereModel(panda).distance(q).numpy()
    assert 0.05 < touching.mean() < 0.1
    assert (touching & (gap > 0)).mean() < 0.01
    assert (~touching & (gap <= 0)).mean() < 0.01
    assert (touching & (gap > 0.01)).mean() < 0.002
    assert not (touching & (gap > 0.02)).any()


def test_the_distance_is_that_of_the_closest_pair_in_every_kind_and_shape(model):
    q = draw(model.robot, 40)
    pairs = model.pair_distances(q)
    assert pairs.shape == (40, len(model.pairs))
    distance = model.distance(q)
    torch.testing.assert_close(distance, pairs.min(-1).values)
    assert distance.dtype == torch.float64
    assert model.distance(q.view(4, 2, 5, -1)).shape == (4, 2, 5)
    torch.testing.assert_close(model.distance(q.float()), distance.float(), atol=1e-5, rtol=0)
    assert model.distance(q.numpy().reshape(4, 2, 5, -1)).shape == (4, 2, 5)
    assert model.distance(q[:0]).shape == (0,)
    unknown = q.clone()
    unknown[3, 0] = torch.nan
    assert model.distance(unknown).isnan().nonzero().tolist() == [[3]]
    assert model.smooth_distance(unknown).isnan().nonzero().tolist() == [[3]]
    # 37 leaves lanes of the last vector empty
    torch.testing.assert_close(model.distance(q[:37]), distance[:37])


@pytest.mark.parametrize("name", ["panda", TORSO, "g1", "tiago_pro"])
def test_arrays_get_the_distances_that_tensors_get(name):
    tips = TORSO_TIPS if name == TORSO else None
    model = SphereModel(mik.load_robot(name, tips=tips))
    assert model.distance(np.zeros((0, model.robot.num_joints))).shape == (0,)
    for count in (1, 16, 37):
        q = draw(model.robot, count, seed=count)
        for cap in (np.inf, 0.1, 0.0):
            expected = model.distance(q, cap).numpy()
            np.testing.assert_allclose(model.distance(q.numpy(), cap), expected, atol=1e-6, rtol=0)
        single = model.distance(q.float().numpy())
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, model.distance(q).numpy(), atol=1e-5, rtol=0)
    unknown = q.numpy().copy()
    unknown[[3, 20], [0, -1]] = np.nan, np.inf
    found = model.distance(unknown)
    assert np.flatnonzero(np.isnan(found)).tolist() == [3, 20]
    known = np.isfinite(found)
    np.testing.assert_array_equal(found[known], model.distance(q.numpy())[known])


def test_the_kernel_finds_what_plain_torch_finds(model):
    spheres = model._on_tensors
    centres = spheres._centres(draw(model.robot, 100))
    for whole in (False, True):
        plain = spheres._gaps(centres, spheres._closest_torch(centres, whole), np.inf)
        for cap in (np.inf, 0.2, 0.0):
            ours = spheres._gaps(centres, spheres._closest(centres, cap, whole), cap)
            torch.testing.assert_close(ours, plain.clamp(max=cap), atol=1e-6, rtol=0)


def test_gradients_agree_with_finite_differences(model):
    q = draw(model.robot, 20, seed=3).requires_grad_()
    for function in (model.distance, model.smooth_distance):
        (gradient,) = torch.autograd.grad(function(q).sum(), q)
        step = 1e-6
        with torch.no_grad():
            numeric = torch.stack(
                [
                    (function(q + step * axis) - function(q - step * axis)) / (2 * step)
                    for axis in torch.eye(q.shape[1], dtype=q.dtype)
                ],
                -1,
            )
        # a row whose closest spheres change within the step has no derivative
        same = (gradient - numeric).abs().amax(-1) < 1e-4
        assert same.float().mean() >= 0.9
        assert gradient.abs().max() > 0.01


def test_the_smooth_distance_is_a_lower_bound_that_closes_in(model):
    q = draw(model.robot, 200)
    exact = model.distance(q)
    coarse, fine = model.smooth_distance(q, 0.02), model.smooth_distance(q, 1e-4)
    assert (coarse <= exact + 1e-9).all() and (fine >= coarse).all()
    torch.testing.assert_close(fine, exact, atol=1e-3, rtol=0)
    capped = model.smooth_distance(q, 0.005, cap=0.15)
    close = exact < 0.05
    torch.testing.assert_close(capped[close], model.smooth_distance(q[close], 0.005))
    torch.testing.assert_close(model.distance(q, cap=0.05), exact.clamp(max=0.05))


def test_a_robot_without_pairs_is_never_close(tmp_path):
    path = tmp_path / "bare.urdf"
    path.write_text(
        '<robot name="r"><link name="a"/><link name="b"/><joint name="j" type="revolute">'
        '<parent link="a"/><child link="b"/><axis xyz="0 0 1"/>'
        '<limit lower="-1" upper="1" velocity="1" effort="1"/></joint></robot>'
    )
    model = SphereModel(mik.load_robot(path))
    assert torch.isinf(model.distance(torch.zeros(3, 1))).all()
    assert torch.isinf(model.smooth_distance(torch.zeros(3, 1))).all()


def test_a_found_model_is_found_again(panda):
    again = SphereModel(panda)
    np.testing.assert_array_equal(again.centre, SphereModel(panda).centre)
    fresh = SphereModel(mik.load_robot("panda"))
    np.testing.assert_array_equal(again.radius, fresh.radius)


def test_who_comes_while_a_model_is_found_gets_all_of_it(monkeypatch):
    robot = mik.load_robot("panda")
    calibrating, second, models = threading.Event(), threading.Event(), []
    calibrated = SphereModel._calibrated

    def slowly(self, check):
        calibrating.set()
        second.wait(0.5)  # in vain where the other one waits, as it should
        return calibrated(self, check)

    def late():
        models.append(SphereModel(robot))
        second.set()

    monkeypatch.setattr(SphereModel, "_calibrated", slowly)
    first = threading.Thread(target=lambda: models.append(SphereModel(robot)))
    first.start()
    assert calibrating.wait(60)
    other = threading.Thread(target=late)
    other.start()
    first.join()
    other.join()
    assert np.abs(models[0].correction).max() > 1e-4
    np.testing.assert_array_equal(models[0].correction, models[1].correction)


def test_a_model_that_could_not_be_found_leaves_nothing_behind(monkeypatch):
    robot = mik.load_robot("panda")

    def interrupted(self, check):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(SphereModel, "_calibrated", interrupted)
        SphereModel(robot)
    expected = SphereModel(mik.load_robot("panda")).correction
    np.testing.assert_array_equal(SphereModel(robot).correction, expected)


def rounded(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, :2], axis=-1)


# A shape, the distance of points from its surface in closed form, the spheres' largest error.
SHAPES = {
    "box": (
        coal.Box(0.2, 0.1, 0.3),
        lambda p: (np.abs(p) - (0.1, 0.05, 0.15)).max(-1),
        0.01,
    ),
    "sphere": (coal.Sphere(0.1), lambda p: np.linalg.norm(p, axis=-1) - 0.1, 0.002),
    "capsule": (
        coal.Capsule(0.05, 0.3),
        lambda p: np.hypot(rounded(p), np.maximum(np.abs(p[:, 2]) - 0.15, 0)) - 0.05,
        0.003,
    ),
    "cylinder": (
        coal.Cylinder(0.05, 0.3),
        lambda p: np.maximum(rounded(p) - 0.05, np.abs(p[:, 2]) - 0.15),
        0.006,
    ),
    "cone": (
        coal.Cone(0.1, 0.2),
        lambda p: np.maximum(
            (rounded(p) * 0.2 + (p[:, 2] - 0.1) * 0.1) / np.hypot(0.1, 0.2), -0.1 - p[:, 2]
        ),
        0.008,
    ),
    "ellipsoid": (
        coal.Ellipsoid(0.1, 0.05, 0.2),
        lambda p: 0.05 * (np.linalg.norm(p / (0.1, 0.05, 0.2), axis=-1) - 1),
        0.006,
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_spheres_follow_the_surface_of_a_shape(name):
    shape, distance, bound = SHAPES[name]
    body = body_from_shapes([triangles_from_shape(shape)], [True])
    assert np.abs(distance(body.surface)).max() < 2e-3
    spheres = fit_spheres(body, 0.002)
    assert 1 <= len(spheres.radius) <= 16
    assert np.sqrt(np.mean(signed_distance(spheres, body.surface) ** 2)) < bound


def test_what_lies_inside_another_shape_is_no_surface():
    outer = triangles_from_shape(coal.Box(0.4, 0.4, 0.4))
    inner = triangles_from_shape(coal.Box(0.1, 0.1, 0.1))
    body = body_from_shapes([outer, inner], [True, True])
    assert np.abs(body.surface).max(-1).min() > 0.19


def test_spheres_stay_out_of_the_corner_between_two_shapes():
    long = triangles_from_shape(coal.Box(0.6, 0.1, 0.1))
    high = triangles_from_shape(coal.Box(0.1, 0.1, 0.6)) + np.array((0.25, 0.0, 0.3))
    body = body_from_shapes([long, high], [True, True])
    spheres = fit_spheres(body, 0.002)
    free = np.array([(x, 0.0, z) for x in np.arange(-0.3, 0.15, 0.05) for z in (0.1, 0.2, 0.4)])
    assert signed_distance(spheres, free).min() > 0.02

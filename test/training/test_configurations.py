# SPDX-License-Identifier: Apache-2.0
"""Random configurations: all, and those that do not touch themselves."""

import numpy as np
import pytest
import torch
from example_robots import TORSO

import meanflow_ik_core as mik
from meanflow_ik_core.collision.self_collision import SelfCollision
from meanflow_ik_core.errors import RobotError
from meanflow_ik_core.training.configurations import draw_configurations


@pytest.fixture(scope="module")
def two_hands():
    """A robot whose hands are balls of 5 cm."""
    return mik.load_robot(TORSO, tips=["left_hand", "right_hand"])


def apart(robot, q):
    hands = robot.forward(q)[..., :3, 3]
    return (hands[:, 0] - hands[:, 1]).norm(dim=-1)


def drawn(robot, count, seed=0, **options):
    return draw_configurations(robot, count, torch.Generator().manual_seed(seed), **options)


def test_what_is_drawn_is_in_the_limits_and_repeats_with_its_seed(two_hands):
    for free in (False, True):
        q = drawn(two_hands, 3000, collision_free=free)
        assert q.shape == (3000, 8)
        assert q.dtype == torch.float32
        assert two_hands.within_limits(q.double().numpy(), 1e-6).all()
        assert torch.equal(q, drawn(two_hands, 3000, collision_free=free))
        assert not torch.equal(q, drawn(two_hands, 3000, seed=1, collision_free=free))


def test_hands_of_free_configurations_do_not_overlap(two_hands):
    assert (apart(two_hands, drawn(two_hands, 60_000)) < 0.1).any()
    free = drawn(two_hands, 60_000, collision_free=True)
    assert (apart(two_hands, free) >= 0.1 - 1e-6).all()


def test_on_spheres_nearly_all_are_free(two_hands):
    q = drawn(two_hands, 5000, collision_free=True, exact=False)
    touching = SelfCollision(two_hands).in_collision(q.double().numpy())
    uniform = SelfCollision(two_hands).in_collision(drawn(two_hands, 5000).double().numpy())
    assert touching.mean() < 0.5 * uniform.mean() + 0.01


def test_free_configurations_are_the_free_ones_of_uniform_ones(two_hands):
    """Their mean and deviation are those of an independent rejection in one go."""
    free = drawn(two_hands, 20_000, collision_free=True).double().numpy()
    q = drawn(two_hands, 30_000, seed=7).double().numpy()
    kept = q[~SelfCollision(two_hands).in_collision(q)]
    scale = two_hands.upper - two_hands.lower
    assert np.abs((free.mean(0) - kept.mean(0)) / scale).max() < 0.015
    assert np.abs((free.std(0) - kept.std(0)) / scale).max() < 0.015


def test_a_robot_that_always_touches_itself_is_refused(two_hands, monkeypatch):
    monkeypatch.setattr(
        SelfCollision, "in_collision", lambda self, q: np.ones(np.shape(q)[:-1], bool)
    )
    other = mik.load_robot(TORSO, tips=["left_hand", "right_hand"])
    with pytest.raises(RobotError, match="ignore_collisions"):
        drawn(other, 10, collision_free=True)
    with pytest.raises(RobotError, match="ignore_collisions"):
        drawn(other, 10, collision_free=True)  # what failed was not kept

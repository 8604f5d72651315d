# SPDX-License-Identifier: Apache-2.0
"""The kernels of a training step, compiled by a C compiler, against the trainer's own terms."""

import shutil
from dataclasses import replace

import pytest
import torch
from example_robots import ROBOTS

from meanflow_ik_core import load_robot
from meanflow_ik_core.cuda.estimates import EstimateKernels
from meanflow_ik_core.errors import ConfigError
from meanflow_ik_core.network.kinds import NETWORKS
from meanflow_ik_core.training.batches import Estimates, draw_given
from meanflow_ik_core.training.config import TrainConfig
from meanflow_ik_core.training.fused_step import CONDITION_WIDTHS, estimate_terms
from meanflow_ik_core.training.training_loss import TrainingLoss

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
CPU = torch.device("cpu")
POSES = 300
WHOLE = TrainConfig(
    estimate_start=0.0, estimate_samples=8, lambda_energy=1.0, energy_power=0.5, lambda_kernel=2.0,
    lambda_refine=0.4, refine_power=1.0, refine_epsilon=0.003,
)  # fmt: skip
PARTIAL = replace(
    WHOLE, network="tokens", drop_tip=0.5, drop_orientation=0.3, drop_position=0.3,
    score_tips=0.7, refine_tips=True,
)  # fmt: skip
CASES = {
    "panda": ("panda", WHOLE),
    "panda, other forms": (
        "panda",
        replace(WHOLE, estimate_samples=3, energy_power=1.0, refine_power=0.0, refine_steps=3),
    ),
    "dual_panda": ("dual_panda", PARTIAL),
    "torso_two_arms": ("torso_two_arms", PARTIAL),  # prismatic, continuous, mimic, shared joints
    "base_on_a_moving_link": ("base_on_a_moving_link", PARTIAL),
}
pytestmark = needs_compiler


@pytest.fixture(params=CASES)
def case(request):
    name, config = CASES[request.param]
    robot = ROBOTS[name]() if name in ROBOTS else load_robot(name)
    width = CONDITION_WIDTHS[config.network]
    return robot, config, EstimateKernels(
        robot, estimate_terms(config), config.estimate_samples, width, CPU
    )  # fmt: skip


def drawn(robot, config, kernels):
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(POSES, robot.num_joints, generator=generator)
    given = draw_given(robot, config, POSES, generator)
    if given is None:
        given = torch.ones(POSES, robot.num_tips, 2, dtype=torch.bool)
    return share, given, *kernels.draw(share, given)


def test_drawn_poses_are_those_of_the_joints_and_conditions_those_of_the_poses(case):
    robot, config, kernels = case
    share, given, x0, targets, condition = drawn(robot, config, kernels)
    lower, upper = robot.limits(torch.float32)
    torch.testing.assert_close(x0, 2 * share - 1)
    expected = robot.forward(lower + share * (upper - lower))
    torch.testing.assert_close(targets, expected, rtol=0, atol=5e-6)
    tokens = config.network == "tokens"
    seen = NETWORKS[config.network].condition(
        targets, robot.workspace_scale, given if tokens else None
    )
    width = CONDITION_WIDTHS[config.network]
    ours, theirs = (c.view(POSES, robot.num_tips, width) for c in (condition, seen))
    # A quaternion and its negative are the same rotation.
    same = (ours[..., 3:7] * theirs[..., 3:7]).sum(-1, keepdim=True).sign()
    theirs = torch.cat((theirs[..., :3], same * theirs[..., 3:7], theirs[..., 7:]), -1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


class Answers(torch.nn.Module):
    """A network whose one-step estimates are its parameter."""

    def __init__(self, x0_hat):
        super().__init__()
        self.x0_hat = torch.nn.Parameter(x0_hat)

    def one_step(self, x1, condition):
        return self.x0_hat


def test_terms_and_gradient_are_those_of_the_trainer(case):
    robot, config, kernels = case
    _, given, x0, targets, condition = drawn(robot, config, kernels)
    generator = torch.Generator().manual_seed(1)
    shape = (POSES, config.estimate_samples, robot.num_joints)
    # Near and far ones, beyond the limits as well.
    spread = torch.rand(POSES, 1, 1, generator=generator) ** 3
    answers = Answers(x0[:, None] + spread * torch.randn(shape, generator=generator))
    loss, terms = TrainingLoss(answers, robot, config)(
        None, Estimates(x0, targets, condition, given, torch.empty(shape))
    )
    loss.backward()
    x0_hat = answers.x0_hat.detach().requires_grad_()
    ours, values = kernels.loss(x0_hat, x0, targets, given)
    (3 * ours).backward()
    assert ours.item() == pytest.approx(loss.item(), rel=1e-4)
    assert values.tolist() == pytest.approx(
        [terms[name].item() for name in ("energy", "kernel", "refine")], rel=1e-4
    )
    expected = 3 * answers.x0_hat.grad
    assert (x0_hat.grad - expected).norm() < 1e-4 * expected.norm()


def test_without_a_compiler_the_reason_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    robot = load_robot("panda")
    with pytest.raises(ConfigError, match="no C compiler"):
        EstimateKernels(robot, estimate_terms(WHOLE), 4, 7, CPU)

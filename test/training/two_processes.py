# SPDX-License-Identifier: Apache-2.0
"""What two processes do under torchrun: train a run, go on with it, and average a gradient.

torchrun --nproc-per-node 2 test/training/two_processes.py OUT_DIR
"""

import shutil
import sys
from pathlib import Path

import torch
from torch import distributed as dist

from meanflow_ik_core import load_robot
from meanflow_ik_core.network.kinds import network_for
from meanflow_ik_core.training.batches import Batch, Estimates, draw_batch, draw_estimates
from meanflow_ik_core.training.config import TrainConfig
from meanflow_ik_core.training.processes import average_gradients, processes
from meanflow_ik_core.training.trainer import train
from meanflow_ik_core.training.training_loss import TrainingLoss

STEPS = (4, 9)  # of the run, and of the run that goes on
SIZES = {"hidden_dim": 16, "depth": 2, "context_dim": 8}
ROBOT = load_robot("panda")


def train_and_go_on(out: Path, rank: int) -> None:
    """One run; its state after each part is kept as state_<steps>.pt."""
    for steps in STEPS:
        config = TrainConfig(
            **SIZES, batch_size=32, iterations=steps, validation_poses=3, validation_samples=4,
            log_every=1,
        )  # fmt: skip
        train(ROBOT, config, out / "run")
        if rank == 0:
            shutil.copy(out / "run" / "state.pt", out / f"state_{steps}.pt")
        dist.barrier()


def compare_gradients(rank: int, world: int) -> None:
    """The gradient of two halves of a batch, averaged, is the gradient of the whole batch."""
    config = TrainConfig(**SIZES, batch_size=32, lambda_energy=1.0, lambda_refine=1.0)

    def gradient(batch: Batch, estimates: Estimates) -> list[torch.nn.Parameter]:
        torch.manual_seed(0)
        network = network_for(ROBOT, **SIZES)
        torch.nn.init.normal_(network.out.weight, std=0.1)
        loss, _ = TrainingLoss(network, ROBOT, config)(batch, estimates)
        loss.backward()
        return list(network.parameters())

    def half(of_rank: int) -> tuple[Batch, Estimates]:
        generator = torch.Generator().manual_seed(of_rank)
        batch = draw_batch(ROBOT, config, 16, 0.0, generator)
        return batch, draw_estimates(ROBOT, config, 8, 0.0, generator)

    parameters = gradient(*half(rank))
    average_gradients(parameters, world)
    (batch_a, estimates_a), (batch_b, estimates_b) = half(0), half(1)
    # rows with r < t of both halves first
    rows = zip(vars(batch_a).values(), vars(batch_b).values(), strict=True)
    batch = Batch(*(torch.cat((a[:8], b[:8], a[8:], b[8:])) for a, b in rows))
    poses = zip(vars(estimates_a).values(), vars(estimates_b).values(), strict=True)
    whole = gradient(batch, Estimates(*map(torch.cat, poses)))
    for averaged, expected in zip(parameters, whole, strict=True):
        torch.testing.assert_close(averaged.grad, expected.grad, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    with processes() as (rank, world):
        assert world == 2
        train_and_go_on(Path(sys.argv[1]), rank)
        compare_gradients(rank, world)

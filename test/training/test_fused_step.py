# SPDX-License-Identifier: Apache-2.0
"""The fused step, run on the CPU without its graph, against the trainer's own; what it refuses."""

import shutil
from dataclasses import replace

import pytest
import torch
from example_robots import torso_robot

from meanflow_ik_core import load_robot
from meanflow_ik_core.cuda import trunk_kernels
from meanflow_ik_core.cuda.batched_muon import BatchedMuon
from meanflow_ik_core.errors import ConfigError, RobotError
from meanflow_ik_core.training import fused_step, trainer
from meanflow_ik_core.training.batches import draw_batch, draw_estimates
from meanflow_ik_core.training.config import TrainConfig
from meanflow_ik_core.training.configurations import draw_configurations
from meanflow_ik_core.training.fused_step import FusedStep, check_fused
from meanflow_ik_core.training.pool import FreePool
from meanflow_ik_core.training.trainer import Run, learning_rate_factor

CPU = torch.device("cpu")
PANDA = TrainConfig(
    hidden_dim=32, depth=2, context_dim=16, context_depth=1, batch_size=64, iterations=1000,
    warmup_steps=3, optimizer="muon", estimate_start=0.0, estimate_poses=32, estimate_samples=4,
    lambda_energy=1.0, energy_power=0.5, lambda_kernel=2.0, lambda_refine=0.4, refine_power=1.0,
    refine_epsilon=0.003,
)  # fmt: skip
TREE = replace(
    PANDA, network="tokens", token_dim=16, velocity_end=0.0, drop_tip=0.5, drop_orientation=0.2,
    drop_position=0.2, score_tips=1.0, refine_tips=True,
)  # fmt: skip
CASES = {"panda": (lambda: load_robot("panda"), PANDA), "torso": (torso_robot, TREE)}
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture(params=CASES)
def case(request):
    make, config = CASES[request.param]
    return make(), config


def run_of(robot, config, tmp_path):
    run = Run(robot, config, tmp_path, 0, 1, CPU)
    # A fresh network answers nothing at all.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.nn.init.normal_(run.network.out.weight, std=0.1)
    return run


def fused_of(run):
    return FusedStep(run.network, run.average, run.robot, run.config, run.generator)


def test_the_gradient_is_that_of_the_trainer(case, tmp_path):
    robot, config = case
    run = run_of(robot, config, tmp_path)
    generator = torch.Generator().manual_seed(5)
    batch = None
    if run.loss.uses_velocities(0.0, 0):
        batch = draw_batch(robot, config, config.batch_size, 0.0, generator)
    estimates = draw_estimates(robot, config, config.estimate_poses, 0.0, generator)
    loss, terms = run.loss(batch, estimates)
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in run.network.parameters()])
    fused = fused_of(run)
    run.generator.manual_seed(5)
    ours = fused.gradient(0.0)
    given = torch.cat([p.grad.flatten() for p in run.network.parameters()])
    assert torch.cosine_similarity(given, expected, 0) > 0.99999
    assert given.norm().item() == pytest.approx(expected.norm().item(), rel=1e-4)
    assert ours.keys() == {"loss", *terms}
    for name, value in terms.items():
        assert ours[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name


def test_steps_move_weights_and_their_average_as_the_trainer_does(case, tmp_path):
    robot, config = case
    runs = [run_of(robot, config, tmp_path) for _ in range(2)]
    begin = [p.detach().clone() for p in runs[0].network.parameters()]
    fused = fused_of(runs[1])
    for step in range(4):
        runs[0].train_step(0.0)
        fused(0.0, config.lr * learning_rate_factor(config, step, 0.0), step)
    for plain, ours in (
        [run.network.parameters() for run in runs],
        [run.average.module.parameters() for run in runs],
    ):
        for first, expected, given in zip(begin, plain, ours, strict=True):
            moved = (expected - first).norm()
            assert moved > 0
            # Muon's directions have 8 bits
            assert (given - expected).norm() < 0.05 * moved
    assert runs[1].average.n_averaged == 4


def test_steps_lower_the_loss(case, tmp_path):
    robot, config = case
    run = run_of(robot, replace(config, refine_power=0.0), tmp_path)
    fused = fused_of(run)
    losses = []
    for _ in range(80):
        terms = fused(0.0, 3e-3, 0)
        losses.append([terms[name].item() for name in ("energy", "refine")])
    first, last = (torch.tensor(rows).mean(0) for rows in (losses[:10], losses[-10:]))
    assert last[0] < first[0] and last[1] < 0.5 * first[1]


def test_either_step_goes_on_from_the_state_of_the_other(case, tmp_path):
    robot, config = case
    run = run_of(robot, config, tmp_path)
    fused = fused_of(run)
    fused(0.0, 1e-3, 0)
    plain = [optimizer.state_dict() for optimizer in run.optimizers]
    states = [optimizer.state_dict() for optimizer in fused.optimizers]
    for own, other in zip(states, plain, strict=True):
        for group, expected in zip(own["param_groups"], other["param_groups"], strict=True):
            assert group.keys() == expected.keys()
            assert type(group["lr"]) is float and not group.get("capturable")
    for optimizer, state in zip(run.optimizers, states, strict=True):
        optimizer.load_state_dict(state)
    run.train_step(0.0)
    for optimizer, source in zip(fused.optimizers, run.optimizers, strict=True):
        optimizer.load_state_dict(source.state_dict())
    before = [p.detach().clone() for p in run.network.parameters()]
    fused(0.0, 0.0, 0)  # the rate that is asked for counts, not that of the state
    assert all(map(torch.equal, before, run.network.parameters()))
    steps = [state["step"] for state in fused.optimizers[-1].state.values()]
    assert all(step == 3 for step in steps)


def test_a_warm_up_leaves_no_trace(case, tmp_path):
    robot, config = case
    run = run_of(robot, config, tmp_path)
    fused = fused_of(run)
    phase = fused._phase(0.0, 0)
    for _ in range(2):  # without states of the optimizers, and with them
        before = [tensor.clone() for tensor in fused._changed()]
        stream = run.generator.get_state()
        fused._warm_up(phase, 0.0)
        after = fused._changed()
        assert all(map(torch.equal, before, after))
        assert not any(tensor.any() for tensor in after[len(before) :])
        assert torch.equal(stream, run.generator.get_state())
        fused(0.0, 1e-3, 0)


def test_each_part_of_a_run_has_its_phase(tmp_path):
    config = replace(PANDA, velocity_end=0.7, estimate_start=0.4, gap_start=0.2, one_step_start=0.5)
    fused = fused_of(run_of(load_robot("panda"), config, tmp_path))
    phases = [fused._phase(share, 0) for share in (0.0, 0.2, 0.4, 0.5, 0.7, 0.99)]
    assert len(set(phases)) == 5 and phases[-1] == phases[-2]
    assert phases[0].velocities and not phases[0].estimates
    fused = fused_of(run_of(load_robot("panda"), replace(PANDA, velocity_every=2), tmp_path))
    assert [fused._phase(0.5, step).velocities for step in range(3)] == [True, False, True]


@pytest.mark.parametrize("shape", [(5, 16, 16), (3, 8, 24), (2, 24, 8)])
def test_batched_muon_is_torchs(shape):
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(3, *shape)
    results = []
    for kind in (torch.optim.Muon, BatchedMuon):
        matrices = [torch.nn.Parameter(matrix.clone()) for matrix in start]
        optimizer = kind(matrices, lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
        for step in gradients:
            for matrix, gradient in zip(matrices, step, strict=True):
                matrix.grad = gradient.clone()
            optimizer.step()
        results.append(torch.stack([matrix.detach() for matrix in matrices]))
    assert (results[1] - results[0]).norm() < 0.02 * (results[0] - start).norm()


@pytest.fixture
def pool():
    pool = FreePool(load_robot("dual_panda"), 10_000, 3, CPU, processes=1)
    yield pool
    pool.close()


def test_the_pool_holds_configurations_that_do_not_touch_themselves(pool):
    robot = load_robot("dual_panda")
    pool.update(20_000)  # twice around
    share = pool.draw(500, torch.Generator().manual_seed(0))
    assert len(share.unique(dim=0)) > 450
    assert share.min() >= 0 and share.max() <= 1
    lower, upper = robot.limits(torch.float32)
    q = lower + share * (upper - lower)
    assert len(_free_rows(robot, q)) > 0.98 * len(q)  # shares are rounded
    uniform = robot.random_configurations(500, 0, torch.float32)
    assert len(_free_rows(robot, uniform)) < 0.9 * len(uniform)


def _free_rows(robot, q):
    from meanflow_ik_core.training import configurations

    draw_configurations(robot, 1, torch.Generator().manual_seed(0), collision_free=True)
    return configurations._free_share(robot).free(q, exact=False)


def test_a_pool_whose_processes_have_ended_says_so(pool):
    pool.close()
    pool._blocks = fused_step.torch.multiprocessing.get_context("spawn").Queue()
    with pytest.raises(RobotError, match="have ended"):
        pool.update(pool.total + 1)


def test_a_collision_free_run_draws_from_the_pool(tmp_path):
    robot = load_robot("dual_panda")
    config = replace(TREE, collision_free=True, collision_free_start=0.5)
    run = run_of(robot, config, tmp_path)
    fused = fused_of(run)
    try:
        before = fused._draw(16, fused._phase(0.4, 0))[0]
        fused(0.5, 1e-3, 0)
        rows = 2 * fused._pool._rows - 1
        drawn = fused._draw(16, fused._phase(0.5, 0))[0]
        assert all((rows == row).all(-1).any() for row in drawn)
        assert not any((rows == row).all(-1).any() for row in before)
    finally:
        fused.close()


def test_a_run_of_fused_steps_is_saved_resumed_and_gone_on_with_by_the_eager_one(
    panda, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainer, "check_fused", lambda *_: None)  # on the CPU, without a graph
    config = replace(
        PANDA, step="fused", iterations=6, velocity_end=0.7, validation_poses=3,
        validation_samples=4,
    )  # fmt: skip
    first = trainer.train(panda, config, tmp_path)
    assert (first.step, first.finished) == (6, True)
    assert first.samples == 6 * 32 * 4 + 5 * 64
    longer = trainer.train(panda, replace(config, iterations=9), tmp_path)
    assert longer.step == 9
    state = torch.load(longer.checkpoint.parent / "state.pt", weights_only=True)
    assert state["average"]["n_averaged"] == 9
    assert trainer.train(panda, replace(config, iterations=12, step="eager"), tmp_path).step == 12
    weights = []
    for name in ("once", "again"):
        trainer.train(panda, config, tmp_path / name)
        state = torch.load(tmp_path / name / "state.pt", weights_only=True)
        weights.append(state["network"]["z_in.weight"])
    assert torch.equal(*weights)


GPU = torch.device("cuda")
KNOWN = replace(PANDA, hidden_dim=128, precision="bfloat16", estimate_poses=4096)


@pytest.mark.parametrize(
    ("changes", "device", "world", "reason"),
    [
        ({}, CPU, 1, "device cuda only; it is cpu"),
        ({}, GPU, 2, "one process; there are 2"),
        ({"precision": "float32"}, GPU, 1, "precision is 'float32'.*bfloat16"),
        ({"hidden_dim": 192}, GPU, 1, "hidden_dim is 192"),
        ({"estimate_samples": 6}, GPU, 1, "estimate_samples is 6"),
    ],
)
def test_what_the_fused_step_does_not_serve_is_refused(monkeypatch, changes, device, world, reason):
    monkeypatch.setattr(trunk_kernels, "triton", trunk_kernels)
    with pytest.raises(ConfigError, match=reason):
        check_fused(replace(KNOWN, **changes), device, world)


def test_a_machine_without_triton_or_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(trunk_kernels, "triton", None)
    with pytest.raises(ConfigError, match="triton"):
        check_fused(KNOWN, GPU, 1)
    monkeypatch.setattr(trunk_kernels, "triton", trunk_kernels)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device"):
        check_fused(KNOWN, GPU, 1)


def test_the_trainer_refuses_a_fused_step_on_the_cpu(tmp_path):
    with pytest.raises(ConfigError, match="device cuda only"):
        Run(load_robot("panda"), replace(KNOWN, step="fused"), tmp_path, 0, 1, CPU)

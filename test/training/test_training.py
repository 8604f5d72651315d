# SPDX-License-Identifier: Apache-2.0
"""The trainer: objective, schedule, exact resume, several processes, what it writes."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.func import functional_call, jvp

from meanflow_ik_core import load_robot
from meanflow_ik_core.errors import CheckpointError, ConfigError
from meanflow_ik_core.network.kinds import load_checkpoint, network_for
from meanflow_ik_core.network.model import MeanFlowNetwork, condition_from_poses
from meanflow_ik_core.training import trainer as training
from meanflow_ik_core.training.batches import draw_batch, draw_estimates
from meanflow_ik_core.training.config import TrainConfig, load_train_config
from meanflow_ik_core.training.trainer import Run, learning_rate_factor, train
from meanflow_ik_core.training.training_loss import TrainingLoss
from meanflow_ik_core.training.validation import validate

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SMALL = TrainConfig(
    hidden_dim=16, depth=2, context_dim=8, batch_size=32, iterations=20, warmup_steps=3,
    lambda_disp=0.1, one_step_share=0.5, one_step_start=0.3,
    estimate_start=0.4, estimate_poses=8, estimate_samples=4, lambda_energy=0.5, lambda_refine=0.2,
    lambda_kernel=0.3, optimizer="muon",
    velocity_end=0.7, precision="bfloat16", log_every=1, save_every=7, validate_every=8,
    validation_poses=3, validation_samples=4,
)  # fmt: skip


# 14 steps with rows for the velocities, 12 with estimates
SAMPLES = 14 * 32 + 12 * 8 * 4


def read_state(folder):
    return torch.load(folder / "state.pt", weights_only=True)


def assert_identical(given, expected, path=""):
    """Bitwise equality of nested states."""
    assert type(given) is type(expected), path
    if isinstance(expected, torch.Tensor):
        assert torch.equal(given, expected), path
    elif isinstance(expected, dict):
        assert given.keys() == expected.keys(), path
        for key in expected:
            assert_identical(given[key], expected[key], f"{path}/{key}")
    elif isinstance(expected, list):
        assert len(given) == len(expected), path
        for index, pair in enumerate(zip(given, expected, strict=True)):
            assert_identical(*pair, f"{path}/{index}")
    else:
        assert given == expected, path


class SignalAtValidation(logging.Handler):
    """Sends a signal to this process when the trainer reports the validation of a step."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def emit(self, record):
        if "samples" in record.getMessage():
            signal.raise_signal(self.number)


@pytest.fixture
def signal_at_validation(request):
    logger = logging.getLogger("meanflow_ik_core.training.trainer")
    handler = SignalAtValidation(request.param)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield lambda: logger.removeHandler(handler)
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize("signal_at_validation", [signal.SIGTERM, signal.SIGINT], indirect=True)
def test_an_interrupted_and_resumed_run_ends_bitwise_like_an_uninterrupted_one(
    panda, tmp_path, signal_at_validation
):
    before = signal.getsignal(signal.SIGINT)
    cut = train(panda, SMALL, tmp_path / "cut")
    assert not cut.finished
    assert cut.step == 8
    assert signal.getsignal(signal.SIGINT) is before
    signal_at_validation()
    resumed = train(panda, SMALL, tmp_path / "cut")
    whole = train(panda, SMALL, tmp_path / "whole")
    assert resumed.finished and whole.finished
    assert resumed.step == whole.step == 20
    assert resumed.samples == whole.samples == SAMPLES
    states = [read_state(tmp_path / name) for name in ("cut", "whole")]
    for state in states:
        del state["seconds"]
    assert_identical(*states)
    assert resumed.metrics == whole.metrics


def test_two_steps_use_different_data(panda):
    generator = torch.Generator().manual_seed(0)
    first = draw_batch(panda, SMALL, 32, 0.0, generator)
    second = draw_batch(panda, SMALL, 32, 0.0, generator)
    assert not (first.x0 == second.x0).any()
    assert not (first.x1 == second.x1).any()


def test_a_batch_holds_poses_of_its_joints_and_late_one_step_rows(panda):
    config = replace(SMALL, flow_share=0.25)
    batch = draw_batch(panda, config, 32, 0.9, torch.Generator().manual_seed(0))
    lower, upper = panda.limits(torch.float64)
    q = lower + 0.5 * (batch.x0.double() + 1) * (upper - lower)
    expected = condition_from_poses(panda.forward(q), panda.workspace_scale).float()
    torch.testing.assert_close(batch.condition, expected, rtol=0, atol=1e-4)
    one_step = (batch.r == 0) & (batch.t == 1)
    assert one_step.sum() == 12  # half of the 24 rows with r < t
    assert (batch.r == batch.t).sum() == 8
    early = draw_batch(panda, config, 32, 0.1, torch.Generator().manual_seed(0))
    assert not ((early.r == 0) & (early.t == 1)).any()


def test_a_warm_up_has_no_gaps(panda):
    config = replace(SMALL, gap_start=0.2)
    for progress, gaps in ((0.19, 0), (0.2, 16)):
        batch = draw_batch(panda, config, 32, progress, torch.Generator().manual_seed(0))
        assert (batch.r < batch.t).sum() == gaps


def test_muon_has_the_matrices_of_the_blocks_and_adamw_all_else(panda, tmp_path):
    run = Run(panda, SMALL, tmp_path, 0, 1, torch.device("cpu"))
    muon, adamw = ([p for g in o.param_groups for p in g["params"]] for o in run.optimizers)
    assert isinstance(run.optimizers[0], torch.optim.Muon)
    names = {id(p): name for name, p in run.network.named_parameters()}
    assert all(p.ndim == 2 and names[id(p)].startswith(("blocks.", "context_")) for p in muon)
    assert {"blocks.1.modulation.weight", "context_mlp.weight"} <= {names[id(p)] for p in muon}
    assert {"z_in.weight", "out.weight", "blocks.0.first.bias"} <= {names[id(p)] for p in adamw}
    assert len(muon) + len(adamw) == len(names)


def test_muon_without_a_torch_that_has_it_is_refused(panda, tmp_path, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ConfigError, match=r"muon.*2\.9"):
        train(panda, SMALL, tmp_path)


def test_the_seed_configuration_computes_the_literal_objective(panda):
    """Oracle: the objective written out step by step, with its own JVP and pair loop."""
    config = replace(load_train_config("seed"), hidden_dim=4, depth=2, lambda_disp=0.3)
    torch.manual_seed(0)
    network = network_for(panda, hidden_dim=4, depth=2, context_dim=8)
    torch.nn.init.normal_(network.out.weight)
    batch = draw_batch(panda, config, 16, 0.5, torch.Generator().manual_seed(0))
    assert torch.equal(batch.r, torch.zeros(16))

    z_t = (1 - batch.t[:, None]) * batch.x0 + batch.t[:, None] * batch.x1
    v_t = batch.x1 - batch.x0
    v_pred, features = network(z_t, batch.r, batch.t, batch.condition)
    parameters = dict(network.named_parameters())

    def closure(z, r, t, c):
        return functional_call(network, parameters, (z, r, t, c))[0]

    primals = (z_t, batch.r, batch.t, batch.condition)
    only_t = tuple(
        torch.ones_like(x) if index == 2 else torch.zeros_like(x) for index, x in enumerate(primals)
    )
    _, du_dt = jvp(closure, primals, only_t)
    u_target = v_t - batch.t[:, None] * du_dt
    flow = ((v_pred - v_t) ** 2).mean()
    consistency = ((v_pred - u_target.detach()) ** 2).mean()
    kernel = torch.exp(-(torch.cdist(features, features) ** 2) / 0.5) * (1 - torch.eye(16))
    dispersive = torch.log((kernel.sum(1) / 15).mean() + 1e-8)

    loss, terms = TrainingLoss(network, panda, config)(batch)
    torch.testing.assert_close(terms["flow"], flow)
    torch.testing.assert_close(terms["meanflow"], consistency)
    torch.testing.assert_close(terms["dispersive"], dispersive, rtol=0, atol=1e-3)
    torch.testing.assert_close(loss, flow + 0.1 * consistency + 0.3 * dispersive, rtol=0, atol=1e-3)


def test_the_baseline_is_flow_matching_alone(panda):
    config = replace(SMALL, mode="baseline", adaptive_power=0.0, precision="float32")
    config = replace(config, lambda_disp=0.0)
    network = network_for(panda, hidden_dim=16, depth=2, context_dim=8)
    batch = draw_batch(panda, config, 64, 0.5, torch.Generator().manual_seed(0))
    loss, terms = TrainingLoss(network, panda, config)(batch)
    # a fresh network predicts zero
    torch.testing.assert_close(loss, (batch.x1 - batch.x0).square().mean())
    assert terms["meanflow"] == 0


@pytest.mark.parametrize("term", ["lambda_disp", "lambda_refine", "lambda_energy", "lambda_kernel"])
def test_each_extra_term_changes_the_gradient(panda, term):
    off = dict.fromkeys(("lambda_disp", "lambda_refine", "lambda_energy", "lambda_kernel"), 0.0)
    gradients = []
    for weight in (0.0, 0.5):
        config = replace(SMALL, **{**off, term: weight}, precision="float32")
        torch.manual_seed(0)
        network = network_for(panda, hidden_dim=16, depth=2, context_dim=8)
        torch.nn.init.normal_(network.out.weight, std=0.1)
        generator = torch.Generator().manual_seed(0)
        batch = draw_batch(panda, config, 64, 0.9, generator)
        estimates = draw_estimates(panda, config, 16, 0.0, generator)
        loss, _ = TrainingLoss(network, panda, config)(batch, estimates)
        loss.backward()
        gradients.append(network.blocks[0].first.weight.grad)
    assert (gradients[1] - gradients[0]).norm() > 1e-3 * gradients[0].norm()


def test_estimates_have_the_joints_of_their_poses(panda):
    estimates = draw_estimates(panda, SMALL, 8, 0.0, torch.Generator().manual_seed(0))
    lower, upper = panda.limits(torch.float64)
    q = lower + 0.5 * (estimates.x0.double() + 1) * (upper - lower)
    torch.testing.assert_close(panda.forward(q).float(), estimates.targets, rtol=0, atol=1e-5)
    assert estimates.x1.shape == (8, 4, 7)
    assert len(estimates.x1.unique()) == estimates.x1.numel()


def test_each_kind_of_term_acts_in_its_part_of_the_run(panda):
    network = network_for(panda, hidden_dim=16, depth=2, context_dim=8)

    def kinds(progress, step=0, **changes):
        loss = TrainingLoss(network, panda, replace(SMALL, **changes))
        return loss.uses_velocities(progress, step), loss.uses_estimates(progress)

    assert [kinds(p) for p in (0.0, 0.39)] == [(True, False)] * 2
    assert [kinds(p) for p in (0.4, 0.69)] == [(True, True)] * 2
    assert [kinds(p) for p in (0.7, 0.99)] == [(False, True)] * 2
    # without estimates there would be nothing left to train on
    assert kinds(0.99, lambda_energy=0.0, lambda_kernel=0.0, lambda_refine=0.0) == (True, False)
    # every step has some term
    rare = [kinds(0.4, step, velocity_every=3)[0] for step in range(4)]
    assert rare == [True, False, False, True]
    assert kinds(0.39, 1, velocity_every=3) == (True, False)


@pytest.mark.parametrize("mode", ["baseline", "meanflow"])
def test_training_lowers_the_flow_error(panda, tmp_path, mode):
    config = replace(
        SMALL, mode=mode, hidden_dim=32, batch_size=128, iterations=150, lr=3e-3, lambda_disp=0.0,
        lambda_refine=0.0, lambda_energy=0.0, lambda_kernel=0.0, one_step_share=0.0,
        validate_every=1000, save_every=1000,
    )  # fmt: skip
    train(panda, config, tmp_path)
    # not the total: its target is the network's own derivative, and moves
    losses = [event.value for event in scalars(tmp_path, "train/flow")]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])


def scalars(folder, tag):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events.Scalars(tag)


def test_scalars_of_losses_and_validations_are_written(panda, tmp_path):
    result = train(panda, SMALL, tmp_path)
    assert [event.step for event in scalars(tmp_path, "train/loss")] == list(range(1, 21))
    assert [event.step for event in scalars(tmp_path, "train/refine")] == list(range(9, 21))
    assert [event.step for event in scalars(tmp_path, "train/energy")] == list(range(9, 21))
    assert [event.step for event in scalars(tmp_path, "train/flow")] == list(range(1, 15))
    for name, value in result.metrics.items():
        events = scalars(tmp_path, f"validation/{name}")
        assert [event.step for event in events] == [8, 16, 20]
        assert events[-1].value == pytest.approx(value, rel=1e-6)


def test_progress_is_shown_from_the_first_step_to_the_last(panda, tmp_path):
    shown = []

    @contextlib.contextmanager
    def progress_bar():
        yield lambda *numbers: shown.append(numbers)
        shown.append("closed")

    train(panda, SMALL, tmp_path, progress=progress_bar)
    assert shown.pop() == "closed"
    shares, losses, rates = zip(*shown, strict=True)
    assert shares == pytest.approx([step / 20 for step in range(20)])
    written = [event.value for event in scalars(tmp_path, "train/loss")]
    assert losses == pytest.approx(written, rel=1e-6)
    assert min(rates) > 0


def test_the_exported_checkpoint_holds_the_averaged_weights_and_the_record(panda, tmp_path):
    result = train(panda, SMALL, tmp_path)
    network, record = load_checkpoint(result.checkpoint, panda)
    state = read_state(tmp_path)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state["average"][f"module.{name}"].half().float())
    assert any(
        not torch.equal(tensor, state["network"][name].half().float())
        for name, tensor in network.state_dict().items()
    )
    assert record["training"]["steps"] == 20
    assert record["training"]["samples"] == SAMPLES
    assert record["training"]["config"]["lambda_refine"] == 0.2
    assert record["training"]["validation"] == result.metrics


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_the_average_follows_the_weights_with_a_decay_that_rises(panda, tmp_path, decay):
    weights, averages = [], []
    for step in (1, 2, 3, 4):
        config = replace(SMALL, ema_decay=decay, iterations=step, decay_start=1.0)
        train(panda, config, tmp_path)
        state = read_state(tmp_path)
        weights.append(state["network"]["time_in.bias"])
        averages.append(state["average"]["module.time_in.bias"])
    assert not torch.equal(weights[0], weights[3])
    expected = weights[0]  # the first average is a copy
    for count, (weight, average) in enumerate(zip(weights, averages, strict=True)):
        keep = min(decay, (1 + count) / (10 + count)) if count else 0.0
        expected = keep * expected + (1 - keep) * weight
        torch.testing.assert_close(average, expected)


def test_a_time_budget_ends_a_run_and_its_schedule(panda, tmp_path):
    config = replace(SMALL, iterations=10**9, max_seconds=1.0, validate_every=5)
    result = train(panda, config, tmp_path)
    assert result.finished and result.step < 10**9
    assert result.seconds >= 1.0
    assert scalars(tmp_path, "train/learning_rate")[-1].value < 0.3 * config.lr
    again = train(panda, config, tmp_path)
    assert again.step == result.step


def test_a_run_whose_time_is_over_before_its_first_validation_is_not_finished(
    panda, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    config = replace(SMALL, iterations=10**9, max_seconds=1e-9, validate_every=500)
    result = train(panda, config, tmp_path)
    assert not result.finished
    assert result.metrics  # it is validated all the same
    assert "before its first validation at step 500" in caplog.messages[-1]
    # more time goes on from there
    assert train(panda, replace(config, iterations=3), tmp_path).finished is False
    assert train(panda, replace(config, iterations=3, max_seconds=0.0), tmp_path).finished


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_time_for_compiling_does_not_count(panda, tmp_path, monkeypatch):
    compiling = 0.0  # seconds that torch's compiler seems to take, at the first call of each form
    plain = time.perf_counter

    def compiled(function, dynamic):
        def first(*arguments):
            nonlocal compiling
            if not calls:
                compiling += 1000.0
            calls.append(arguments)
            return function(*arguments)

        calls = []
        return first

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(time, "perf_counter", lambda: plain() + compiling)
    states = []
    for name, changes in {
        "compiled": {"compile": True, "max_seconds": 900.0}, "plain": {},
    }.items():  # fmt: skip
        result = train(panda, replace(SMALL, **changes), tmp_path / name)
        assert (result.step, result.finished) == (20, True)
        states.append(read_state(tmp_path / name))
    assert compiling == 3000 and states[0]["seconds"] < 900
    # what is compiled on leaves no trace in the run
    for part in ("network", "average", "streams"):
        assert_identical(states[0][part], states[1][part])


CHILD_SCRIPT = """
import os, signal, subprocess
from meanflow_ik_core.training.processes import shielded_children, stop_signals

os.setpgid(0, 0)
with stop_signals() as stop:
    with shielded_children():
        command = ["sh", "-c", "echo started; read line; echo whole"]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "started\\n"
        os.killpg(0, signal.SIGINT)  # Ctrl-C
        assert child.communicate("\\n")[0] == "whole\\n"
    assert stop.is_set()
"""


def test_ctrl_c_leaves_a_compiler_its_time_and_stops_the_run():
    done = subprocess.run(
        [sys.executable, "-c", CHILD_SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_ctrl_c_while_the_network_compiles_leaves_a_cache_that_works(tmp_path):
    wrapper = tmp_path / "c++"
    # Ctrl-C reaches all programs of the terminal as soon as a library is being made.
    wrapper.write_text(
        f'#!/bin/sh\ncase "$*" in *-shared*) [ -e {tmp_path}/once ] || '
        f'{{ touch {tmp_path}/once; kill -INT 0; }};; esac\nexec {shutil.which("c++")} "$@"\n'
    )
    wrapper.chmod(0o755)
    sizes = ("hidden_dim=8", "depth=1", "context_dim=8", "batch_size=32", "iterations=2")
    settings = [part for item in (*sizes, "compile=true") for part in ("--set", item)]
    environment = os.environ | {"CXX": str(wrapper), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "i")}
    ends = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "meanflow_ik_core.cli", "train", "--out", str(tmp_path / "run"),
             "--no-progress", *settings],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900,
            start_new_session=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert len(done.stderr.splitlines()) < 10, done.stderr
        ends.append(done.stderr)
    assert "interrupted at step 0, before its first validation" in ends[0]
    assert "finished at step 2" in ends[1]


def test_the_learning_rate_rises_stays_and_falls_to_zero():
    config = replace(SMALL, warmup_steps=9, decay_start=0.5)
    rises = [learning_rate_factor(config, step, 0.0) for step in range(12)]
    assert rises == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1])
    assert learning_rate_factor(config, 100, 0.5) == 1
    assert learning_rate_factor(config, 100, 0.75) == pytest.approx(0.5)
    assert learning_rate_factor(config, 100, 1.0) == pytest.approx(0, abs=1e-12)
    assert learning_rate_factor(replace(config, decay_start=1.0), 100, 1.0) == 1


def test_a_run_starts_anew_when_it_is_not_resumed(panda, tmp_path):
    first = train(panda, SMALL, tmp_path)
    torch.save({**read_state(tmp_path), "seconds": 1e6}, tmp_path / "state.pt")
    again = train(panda, SMALL, tmp_path, resume=False)
    assert again.step == first.step
    assert again.seconds < 1e6
    assert read_state(tmp_path)["samples"] == SAMPLES


def test_a_resumed_run_keeps_its_last_validation_until_the_next(panda, tmp_path):
    train(panda, SMALL, tmp_path)
    before = read_state(tmp_path)["metrics"]
    assert "position_error_mean" in before
    run = Run(panda, SMALL, tmp_path, 0, 1, torch.device("cpu"))
    run.load()
    assert run.record()["validation"] == before


def test_a_longer_run_goes_on_from_the_end_of_a_shorter_one(panda, tmp_path):
    train(panda, SMALL, tmp_path)
    longer = train(panda, replace(SMALL, iterations=40), tmp_path)
    assert longer.step == 40
    # step 20 of 40 is at half of the run: velocities to step 28, estimates from there on
    assert longer.samples == SAMPLES + 8 * 32 + 20 * 8 * 4


@pytest.mark.parametrize("change", ["truncated", "foreign", "pickle"])
def test_a_damaged_state_is_refused(panda, tmp_path, change):
    train(panda, SMALL, tmp_path)
    path = tmp_path / "state.pt"
    if change == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif change == "foreign":
        torch.save({"weights": 1}, path)
    else:
        torch.save({"robot": Path("x")}, path)
    with pytest.raises(CheckpointError, match=r"state\.pt"):
        train(panda, SMALL, tmp_path)


def test_the_state_of_another_robot_or_network_is_refused(panda, tmp_path):
    train(panda, SMALL, tmp_path)
    with pytest.raises(ConfigError, match="another robot"):
        train(load_robot("panda", tips=["panda_hand"]), SMALL, tmp_path)
    with pytest.raises(ConfigError, match="'hidden_dim': 24"):
        train(panda, replace(SMALL, hidden_dim=24), tmp_path)


class Shifted(torch.nn.Module):
    """Answers every pose with the configuration that made it, shifted in every joint."""

    condition = staticmethod(MeanFlowNetwork.condition)

    def __init__(self, x0):
        super().__init__()
        self.out = torch.nn.Linear(1, 1)
        self.rows = iter(x0.split(50))

    def one_step(self, noise, condition):
        return next(self.rows)[:, None].expand_as(noise)


@pytest.mark.parametrize("shift", [0.0, 0.01])
def test_validation_measures_the_distance_to_known_solutions(panda, shift):
    q = panda.random_configurations(60, torch.Generator().manual_seed(5), torch.float32)
    lower, upper = panda.limits(torch.float32)
    q = q.clamp(lower + 0.02, upper - 0.02)
    inside = ((q > lower + 0.02) & (q < upper - 0.02)).all(-1)
    network = Shifted(2 * (q + shift - lower) / (upper - lower) - 1)
    metrics = validate(panda, network, 60, 7, seed=5)
    assert inside.float().mean() > 0.8
    assert metrics["recall_median"] == pytest.approx(shift * 7**0.5, abs=1e-5)
    assert metrics["spread"] == pytest.approx(0, abs=1e-5)
    if shift == 0:
        assert metrics["position_error_median"] < 1e-5
    else:
        assert 1e-3 < metrics["position_error_median"] < 0.03
    assert metrics["refined_success"] > 0.95


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What two_processes.py leaves behind, and how it ended."""
    out = tmp_path_factory.mktemp("two_processes")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(HERE / "two_processes.py"), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    return out, done


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one_with_the_whole_batch(two_processes):
    _, done = two_processes
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_train_resume_and_write_one_run(panda, two_processes):
    out, done = two_processes
    for steps in (4, 9):
        path = out / f"state_{steps}.pt"
        assert path.exists(), done.stderr[-3000:]
        state = torch.load(path, weights_only=True)
        assert state["step"] == steps
        assert state["samples"] == 32 * steps
        assert len(state["streams"]) == 2
        assert not torch.equal(*state["streams"])
    run = out / "run"
    _, record = load_checkpoint(run / "panda.safetensors", panda)
    assert record["training"]["processes"] == 2
    assert {path.name for path in run.iterdir() if not path.name.startswith("events")} == {
        "state.pt",
        "panda.safetensors",
    }
    # one process goes on where two stopped
    result = train(panda, replace(SMALL, iterations=12), run)
    assert result.step == 12


def test_a_batch_that_does_not_split_over_the_processes_is_refused(tmp_path, panda, monkeypatch):
    monkeypatch.setattr(training, "processes", lambda: contextlib.nullcontext((0, 3)))
    with pytest.raises(ConfigError, match="multiple of the 3 processes"):
        train(panda, SMALL, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_the_compiled_objective_agrees_with_the_plain_one(panda):
    results = []
    for compiled in (False, True):
        config = replace(SMALL, compile=compiled, precision="float32", depth=1)
        torch.manual_seed(0)
        network = network_for(panda, hidden_dim=16, depth=1, context_dim=8)
        torch.nn.init.normal_(network.out.weight, std=0.1)
        batch = draw_batch(panda, config, 32, 0.0, torch.Generator().manual_seed(0))
        estimates = draw_estimates(panda, config, 8, 0.0, torch.Generator().manual_seed(1))
        loss, _ = TrainingLoss(network, panda, config)(batch, estimates)
        loss.backward()
        results.append((loss.detach(), network.z_in.weight.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-5)


def test_compilation_without_a_compiler_is_refused(panda, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"compile.*g\+\+"):
        train(panda, replace(SMALL, compile=True), tmp_path)


def test_a_run_that_diverges_ends_with_an_error_and_keeps_the_last_good_state(panda, tmp_path):
    train(panda, SMALL, tmp_path)
    good = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(CheckpointError, match="not finite"):
        train(panda, replace(SMALL, lr=1e30, iterations=40), tmp_path)
    assert (tmp_path / "state.pt").read_bytes() == good

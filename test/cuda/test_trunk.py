# SPDX-License-Identifier: Apache-2.0
"""The kernels of the trunk against the network, in Triton's interpreter; and what they refuse."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meanflow_ik_core.cuda import trunk_kernels
from meanflow_ik_core.cuda.trunk import check_trunk
from meanflow_ik_core.errors import ConfigError

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton (extra cuda)"
)

SCRIPT = """
import sys
import torch
from meanflow_ik_core.cuda.trunk import (
    modulate, modulation_layers, trunk_forward, trunk_layers, trunk_one_step,
)
from meanflow_ik_core.network.kinds import NETWORKS

kind, joints, tips, samples, depth = sys.argv[1], *map(int, sys.argv[2:])
torch.manual_seed(0)
network = NETWORKS[kind](joints, tips, hidden_dim=32, depth=depth, context_dim=24, context_depth=1)
torch.nn.init.normal_(network.out.weight, std=0.2)
torch.nn.init.normal_(network.out.bias, std=0.2)
poses = 128 // samples
noise = torch.randn(poses, samples, joints)
condition = torch.randn(poses, tips, 7 if kind == "mlp" else 9)
condition[..., 3:7] = torch.nn.functional.normalize(condition[..., 3:7], dim=-1)
condition[..., 7:] = (condition[..., 7:] > 0).float()
condition = condition.flatten(1)
pull = torch.randn(poses, samples, joints)
results = []
for one_step in (network.one_step, lambda *a: trunk_one_step(network, *a, torch.float32)):
    network.zero_grad()
    x0_hat = one_step(noise, condition)
    (x0_hat * pull).sum().backward()
    results.append({"x0_hat": x0_hat.detach()})
    results[-1] |= {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
expected, given = results
assert given.keys() == expected.keys(), given.keys() ^ expected.keys()
for name, tensor in expected.items():
    error = (given[name] - tensor).norm() / tensor.norm()
    assert error < 1e-5, (name, error)
with torch.no_grad():  # any number of rows
    noise, condition = noise[:3], condition[:3]
    weight, bias = modulation_layers(network)
    modulations = modulate(network, condition, weight, bias, torch.float32)
    rows = noise.reshape(-1, joints)
    x = trunk_forward(rows, modulations, trunk_layers(network), samples, torch.float32)
    torch.testing.assert_close(x.view_as(noise), network.one_step(noise, condition))
print(len(given), "tensors agree")
"""


@needs_triton
@pytest.mark.parametrize(
    "sizes", ["mlp 7 1 8 3", "mlp 7 1 1 2", "tokens 17 3 16 2"], ids=lambda sizes: sizes
)
def test_the_kernels_agree_with_the_network_and_its_gradients(sizes):
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *sizes.split()],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "tensors agree" in done.stdout


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ((192, 6, 4096, 8), r"hidden_dim is 192; .*\(32, 64, 128\)"),
        ((128, 6, 4096, 6), "estimate_samples is 6"),
        ((128, 6, 4096, 64), "estimate_samples is 64"),
        ((128, 6, 4, 8), "is 32; .* multiples of 64"),
        ((128, 60, 2**16, 8), "fewer poses"),
    ],
)
def test_sizes_that_the_kernels_do_not_know_are_refused(monkeypatch, sizes, reason):
    monkeypatch.setattr(trunk_kernels, "triton", trunk_kernels)
    with pytest.raises(ConfigError, match=reason):
        check_trunk(*sizes)


def test_a_missing_triton_is_said_with_what_brings_it(monkeypatch):
    monkeypatch.setattr(trunk_kernels, "triton", None)
    with pytest.raises(ConfigError, match=r"triton.*\[cuda\]"):
        check_trunk(128, 6, 4096, 8)

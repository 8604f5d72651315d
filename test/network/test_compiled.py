# SPDX-License-Identifier: Apache-2.0
"""The compiled call of a network against the network in torch, in float64."""

import copy
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from example_robots import needs_robots

import meanflow_ik_core as mik
from meanflow_ik_core.kernels.products import WIDENS_HALF
from meanflow_ik_core.network.checkpoint import available_checkpoints, read_checkpoint
from meanflow_ik_core.network.compiled import CompiledNetwork, bfloat16_supported
from meanflow_ik_core.network.kinds import NETWORKS, network_from
from meanflow_ik_core.network.packing import pack_context

SHAPES = [(1, 1), (1, 5), (1, 128), (7, 1), (3, 40), (40, 3)]  # (B, N)
# joints, tips, hidden, depth, context, its depth; token, its depth, heads
SIZES = [
    ("mlp", (7, 1, 64, 3, 16, 2)),
    ("mlp", (75, 3, 24, 1, 40, 0)),
    ("tokens", (14, 2, 48, 2, 72, 1, 24, 2, 3)),
    ("tokens", (3, 5, 8, 1, 8, 0, 80, 0, 4)),
    ("tokens", (1, 1, 130, 1, 136, 0, 66, 1, 1)),
]
OWN = ("panda", "dual_panda")
needs_bfloat16 = pytest.mark.skipif(not bfloat16_supported(), reason="no bfloat16 in this CPU")
PRECISIONS = ["float32", pytest.param("bfloat16", marks=needs_bfloat16)]


def random_network(kind, sizes, seed=0):
    """A network whose output is not zero, and whose weights are not those of a checkpoint."""
    torch.manual_seed(seed)
    network = NETWORKS[kind](*sizes).eval()
    torch.nn.init.normal_(network.out.weight, std=0.1)
    torch.nn.init.normal_(network.out.bias)
    return network


def as_saved(network):
    """With weights that are exact in float16."""
    network.load_state_dict({name: w.half().float() for name, w in network.state_dict().items()})
    return network


def compiled(network, precision="float32"):
    return CompiledNetwork(network.sizes, network.arrays(), 0.8, precision)


def inputs(sizes, batch, count, seed=0):
    """Noise, and poses within reach of anything."""
    rng = np.random.default_rng(seed)
    T = np.zeros((batch, sizes.num_tips, 4, 4))
    T[..., :3, :3] = np.linalg.qr(rng.normal(size=(batch, sizes.num_tips, 3, 3)))[0]
    T[..., :3, :3] *= np.linalg.det(T[..., :3, :3])[..., None, None]
    T[..., :3, 3] = rng.uniform(-1, 1, (batch, sizes.num_tips, 3))
    T[..., 3, 3] = 1
    return rng.normal(size=(batch, count, sizes.num_joints)).astype(np.float32), T


def expected(network, noise, T, given=None, workspace_scale=0.8):
    network = copy.deepcopy(network).double()
    mask = None if given is None else torch.from_numpy(given)
    condition = network.condition(torch.from_numpy(T), workspace_scale, mask)
    with torch.no_grad():
        return network.one_step(torch.from_numpy(noise).double(), condition).numpy()


def some_masks(sizes):
    """Nothing left out; an orientation, a position, a tip, and everything left out."""
    masks = [None, *np.ones((4, sizes.num_tips, 2), bool)]
    if sizes.takes_partial_goals:
        masks[1][0, 1] = masks[2][-1, 0] = masks[3][-1] = masks[4][:] = False
        return masks
    return masks[:2]


@pytest.mark.parametrize(
    "name", [name if name in OWN else pytest.param(name, marks=needs_robots)
             for name in available_checkpoints()],
)  # fmt: skip
def test_every_shipped_network_is_the_one_of_torch_to_rounding(name):
    robot = mik.load_robot(name)
    checkpoint = read_checkpoint(name, robot)
    network = network_from(checkpoint)
    fast = CompiledNetwork(checkpoint.sizes, checkpoint.weights, robot.workspace_scale)
    for given in some_masks(checkpoint.sizes)[:4]:
        T = robot.forward(robot.random_configurations(20, torch.Generator().manual_seed(0)))
        noise, _ = inputs(checkpoint.sizes, 20, 40)
        reference = expected(network, noise, T.numpy(), given, robot.workspace_scale)
        deviation = abs(fast(noise, T.numpy(), given) - reference)
        assert np.quantile(deviation, 0.98) < 1e-5
        # where a trained network is steep, it multiplies rounding errors, here and in torch
        assert deviation.max() < 2e-3


@pytest.mark.parametrize("halves", [True, False], ids=["float16", "float32"])
@pytest.mark.parametrize(("kind", "sizes"), SIZES)
def test_networks_of_any_size_are_those_of_torch_to_rounding(kind, sizes, halves):
    network = random_network(kind, sizes)
    if halves:
        as_saved(network)
    fast = compiled(network)
    for batch, count in SHAPES:
        for given in some_masks(network.sizes):
            noise, T = inputs(network.sizes, batch, count)
            x0_hat = fast(noise, T, given)
            assert x0_hat.dtype == np.float32
            assert np.abs(x0_hat - expected(network, noise, T, given)).max() < 1e-5


@pytest.mark.skipif(not WIDENS_HALF, reason="the CPU has no float16")
def test_weights_that_are_exact_in_float16_take_half_the_memory():
    network = random_network(*SIZES[2])
    whole = pack_context(network.sizes, network.arrays())[0]
    rounded = pack_context(network.sizes, as_saved(network).arrays())[0]
    assert 2 * rounded.nbytes == whole.nbytes


@needs_bfloat16
@pytest.mark.parametrize(("kind", "sizes"), SIZES)
def test_bfloat16_differs_by_no_more_than_the_blocks_of_torch_in_it(kind, sizes):
    network = random_network(kind, sizes)
    fast = compiled(network, "bfloat16")
    noise, T = inputs(network.sizes, 5, 40)
    reference = expected(network, noise, T)
    rounded = copy.deepcopy(network)
    for block in rounded.blocks:
        for layer in (block.first, block.second):
            layer.weight.data = layer.weight.bfloat16().float()
            # activations are rounded on their way in, as torch rounds them
            layer.register_forward_pre_hook(lambda _, args: (args[0].bfloat16().to(args[0]),))
    ours, torchs = (abs(x - reference) for x in (fast(noise, T), expected(rounded, noise, T)))
    assert 0 < ours.mean() < 1.1 * torchs.mean() < 2**-6
    assert ours.max() < 1.5 * torchs.max()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("kind", "sizes"), SIZES)
def test_samples_are_the_same_whatever_else_is_asked_at_once(kind, sizes, precision):
    network = random_network(kind, sizes)
    fast = compiled(network, precision)
    noise, T = inputs(network.sizes, 37, 9)
    whole = fast(noise, T)
    for rows in (slice(1), slice(3, 8), slice(20, 37)):
        np.testing.assert_array_equal(fast(noise[rows], T[rows]), whole[rows])
    np.testing.assert_array_equal(fast(noise[:, 2:4], T), whole[:, 2:4])


def test_arrays_of_any_layout_and_type_are_taken_and_none_is_changed():
    network = random_network(*SIZES[0])
    fast = compiled(network)
    noise, T = inputs(network.sizes, 5, 4)
    whole = fast(noise, T)
    kept = noise.copy(), T.copy()
    for array in (noise, T):
        array.flags.writeable = False
    np.testing.assert_array_equal(fast(noise, T), whole)
    np.testing.assert_array_equal(fast(np.asfortranarray(noise), np.asfortranarray(T)), whole)
    np.testing.assert_array_equal(fast(noise.astype(float), T), whole)
    np.testing.assert_allclose(fast(noise, T.astype(np.float32)), whole, atol=1e-5)
    np.testing.assert_array_equal(noise, kept[0])
    np.testing.assert_array_equal(T, kept[1])


@pytest.mark.parametrize(("batch", "count"), [(0, 5), (2, 0)])
def test_no_poses_and_no_samples_give_empty_results(batch, count):
    network = random_network(*SIZES[0])
    assert compiled(network)(*inputs(network.sizes, batch, count)).shape == (batch, count, 7)


def test_what_is_not_given_may_hold_anything():
    network = random_network(*SIZES[2])
    fast = compiled(network)
    noise, T = inputs(network.sizes, 2, 6)
    given = np.array([[True, False], [False, True]])
    whole = fast(noise, T, given)
    T[:, 0, :3, :3], T[:, 1, :3, 3] = np.nan, np.inf
    np.testing.assert_array_equal(fast(noise, T, given), whole)


def test_numbers_that_are_not_finite_stay_with_their_samples():
    network = random_network(*SIZES[0])
    fast = compiled(network)
    noise, T = inputs(network.sizes, 3, 20)
    whole = fast(noise, T)
    spoilt = noise.copy()
    spoilt[1, 3, 2], T[2] = np.nan, np.nan
    x0_hat = fast(spoilt, T)
    bad = np.isnan(x0_hat).any(-1)
    assert bad.sum() == 21 and bad[1, 3] and bad[2].all()
    np.testing.assert_array_equal(x0_hat[~bad], whole[~bad])
    np.testing.assert_array_equal(fast(noise, inputs(network.sizes, 3, 20)[1]), whole)


def test_a_network_of_complete_goals_refuses_others():
    network = random_network(*SIZES[0])
    with pytest.raises(mik.OptionError, match="complete goals only"):
        compiled(network)(*inputs(network.sizes, 1, 1), np.array([[True, False]]))


@pytest.mark.parametrize("wrong", ["joints", "poses", "tips", "given", "flat"])
def test_arrays_of_the_wrong_shape_are_refused(wrong):
    network = random_network(*SIZES[2])
    noise, T = inputs(network.sizes, 2, 3)
    given = np.ones((2, 2), bool)
    noise = {"joints": noise[..., :-1], "flat": noise[0]}.get(wrong, noise)
    T = {"poses": T[:1], "tips": T[:, :1]}.get(wrong, T)
    with pytest.raises(mik.OptionError, match=r"must be \(B, N, 14\)"):
        compiled(network)(noise, T, given[0] if wrong == "given" else given)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_copies_and_threads_give_the_same(precision):
    network = random_network(*SIZES[2])
    fast = compiled(network, precision)
    noise, T = inputs(network.sizes, 20, 30)
    whole = fast(noise, T)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        np.testing.assert_array_equal(other(noise, T), whole)
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend(fast(noise, T) for _ in range(20)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 60 and all(np.array_equal(one, whole) for one in found)


PROGRAM = """
import sys
sys.modules["torch"] = None  # an import of it is an error
import pickle
from types import SimpleNamespace
from meanflow_ik_core.network.checkpoint import read_checkpoint
from meanflow_ik_core.network.compiled import CompiledNetwork, bfloat16_supported
record, noise, T = pickle.load(sys.stdin.buffer)
robot = SimpleNamespace(
    **record, num_joints=len(record["joint_names"]), num_tips=len(record["tips"])
)
robot.fingerprint = lambda: record["fingerprint"]
checkpoint = read_checkpoint(record["path"], robot)
network = CompiledNetwork(checkpoint.sizes, checkpoint.weights, record["workspace_scale"])
sys.stdout.buffer.write(pickle.dumps(network(noise, T)))
"""


@pytest.mark.parametrize("cpu", ["this", "plain"])
def test_reading_and_drawing_need_no_torch_and_no_particular_cpu(cpu):
    robot = mik.load_robot("dual_panda")
    checkpoint = read_checkpoint(None, robot)
    noise, T = inputs(checkpoint.sizes, 2, 9)
    environment = dict(os.environ)
    if cpu == "plain":
        environment |= {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    record = {**checkpoint.record, "name": robot.name}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=pickle.dumps((record, noise, T)),
        stdout=subprocess.PIPE, env=environment, check=True,
    )  # fmt: skip
    fast = CompiledNetwork(checkpoint.sizes, checkpoint.weights, robot.workspace_scale)
    x0_hat = pickle.loads(found.stdout)
    # Each is 1e-5 off at most, in opposite directions at worst.
    assert np.quantile(np.abs(x0_hat - fast(noise, T)), 0.98) < 2e-5
    assert cpu == "plain" or np.array_equal(x0_hat, fast(noise, T))

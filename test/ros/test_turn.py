# SPDX-License-Identifier: Apache-2.0
"""Long work goes in slices with others between them, ends in time, and finds the same."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from meanflow_ik_ros.srv import GetIKSolutionsBatch
from oracles import reachable
from ros_user import MANY, Q, User, pose_array

from meanflow_ik_core.paths.path import solve_path
from meanflow_ik_ros.fair_lock import FairLock
from meanflow_ik_ros.messages.errors import RequestError
from meanflow_ik_ros.messages.query import IKQuery
from meanflow_ik_ros.messages.task import Task
from meanflow_ik_ros.turn import SLICE_S, Turn

pytestmark = pytest.mark.usefixtures("ros")


def query_of(robot, targets, **fields):
    whole = {"num_samples": 64, "max_solutions": 8, "avoid_self_collision": False, **fields}
    middle = 0.5 * (robot.lower + robot.upper)
    return IKQuery(targets, np.eye(4)[None], middle, **whole)


@pytest.mark.parametrize("avoid", [False, True])
def test_a_batch_in_slices_has_the_solutions_of_one_call(panda_node, avoid):
    desk = panda_node.desk
    targets = reachable(desk.robot, 60)
    targets[7, 0, :3, 3] = 3.0
    query = query_of(desk.robot, targets, avoid_self_collision=avoid)
    found = desk.solve(query, desk.parameters)
    whole = desk.solver.solve(
        targets, 64, 8, query.seed_state, desk.parameters.seed, avoid_self_collision=avoid
    )
    assert not found.valid[7].any() and found.valid.any(1).sum() > 50
    for name in ("joint_positions", "valid", "distance", "cost", "origin", "status"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), err_msg=name)
    assert found.starts == whole.starts and found.explain(7) == whole.explain(7)


def test_who_waits_for_a_batch_waits_for_a_slice(panda_node):
    desk = panda_node.desk
    targets = reachable(desk.robot, 2000)
    single, waits = query_of(desk.robot, targets[:1]), []
    batch = query_of(desk.robot, targets, num_samples=128, max_solutions=16)
    thread = threading.Thread(target=desk.solve, args=(batch, desk.parameters))
    thread.start()
    while thread.is_alive():
        began = time.monotonic()
        desk.solve(single, desk.parameters)
        waits.append(time.monotonic() - began)
    thread.join()
    assert len(waits) > 3 and np.median(waits) < 10 * SLICE_S


def test_who_waits_for_a_search_waits_for_a_part_of_it(panda_node):
    desk = panda_node.desk
    targets = reachable(desk.robot, 1)
    long = query_of(desk.robot, targets, num_samples=2048, max_solutions=2048)
    long = replace(long, task=Task(objectives=("manipulability",) * 4))
    desk.solve(long, desk.parameters.changed({"time_limit": 0.1}))  # loads what objectives need
    thread = threading.Thread(target=desk.solve, args=(long, desk.parameters))
    thread.start()
    answered = 0
    while thread.is_alive():
        desk.solve(query_of(desk.robot, targets), desk.parameters)
        answered += 1
    assert answered > 3


def test_no_part_of_a_path_is_long(panda_node):
    desk, parts = panda_node.desk, []
    along = np.linspace(0, 2 * np.pi, 5000)[:, None]
    q = Q + 0.4 * np.sin(along * [1, 2, 3, 1, 2, 3, 1] + np.arange(7))
    began = time.thread_time()

    def between():
        nonlocal began
        parts.append(time.thread_time() - began)
        began = time.thread_time()

    found = solve_path(desk.solver, desk.robot.forward(q), seed=1, between=between)
    between()
    # The choice among the candidates alone takes that twice, in one piece.
    assert found.valid and max(parts) < 5 * SLICE_S


def test_a_small_batch_is_answered_while_a_large_one_is_solved_and_another_waits(running):
    robot = running.desk.robot
    user = User({})
    poses = pose_array(
        robot.forward(robot.random_configurations(1500, 0).numpy())[:, 0], robot.base
    )
    large = GetIKSolutionsBatch.Request(targets=poses, num_samples=200, max_solutions=64)
    small = GetIKSolutionsBatch.Request(max_solutions=2)
    small.targets.header, small.targets.poses = poses.header, poses.poses[:5]
    kind, name = GetIKSolutionsBatch, "/meanflow_ik/get_ik_solutions_batch"
    client = user.node.create_client(kind, name, qos_profile=MANY)
    user.wait(client.service_is_ready, "the service")
    waiting = [client.call_async(large) for _ in range(2)]
    answered = 0
    while not waiting[0].done():
        asked = client.call_async(small)
        user.wait(asked.done, "a small batch")
        assert asked.result().error_code == kind.Response.SUCCESS
        answered += 1
    assert answered > 3 and not waiting[1].done()
    user.wait(waiting[1].done, "the other large batch")
    assert [one.result().error_code for one in waiting] == 2 * [kind.Response.SUCCESS]
    user.close()


def test_a_search_ends_when_the_node_does(panda_node):
    desk = panda_node.desk
    targets = reachable(desk.robot, 1)
    targets[0, 0, :3, 3] = 3.0
    asked = desk.parameters.changed({"timeout": 9.0})
    timer = threading.Timer(0.2, setattr, (desk, "closing", True))
    timer.start()
    began = time.process_time()
    try:
        with pytest.raises(RequestError, match="shutting down"):
            desk.solve(query_of(desk.robot, targets), asked)
    finally:
        timer.join()
        desk.closing = False
    assert time.process_time() - began < 5


def test_a_batch_ends_with_its_time_and_when_the_node_does(panda_node):
    desk = panda_node.desk
    batch = query_of(desk.robot, reachable(desk.robot, 2000), num_samples=128, max_solutions=16)
    limited = desk.parameters.changed({"time_limit": 0.1})
    with pytest.raises(RequestError, match=r"for 0.1 s.*time_limit"):
        desk.solve(batch, limited)
    desk.closing = True
    try:
        with pytest.raises(RequestError, match="shutting down"):
            desk.solve(batch, desk.parameters)
    finally:
        desk.closing = False


def test_a_turn_is_given_to_all_who_wait_before_it_comes_back():
    lock, order = FairLock(), []

    def wait_for_it(name):
        with lock:
            order.append(name)

    with Turn(lock, 60.0, lambda: False) as turn:
        others = [threading.Thread(target=wait_for_it, args=(name,)) for name in "ab"]
        for count, thread in enumerate(others):
            thread.start()
            while len(lock._waiting) <= count:
                time.sleep(0.001)
        turn.give_way()  # too early
        assert order == []
        time.sleep(SLICE_S)
        turn.give_way()
        assert order == ["a", "b"]
    assert not lock.locked()


def test_a_search_that_has_just_ended_by_itself_is_not_refused(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("meanflow_ik_ros.turn.time.perf_counter", lambda: now[0])
    with Turn(FairLock(), 1.0, lambda: "") as turn:
        now[0] = 1.0 + 0.5 * SLICE_S
        turn.give_way()
        now[0] += 1.5 * SLICE_S
        with pytest.raises(RequestError, match="busy with it for 1 s"):
            turn.give_way()


STUCK = """
import ctypes, signal, sys, threading, time
from meanflow_ik_ros import process

class Node:
    def destroy_node(self): pass

def stay():
    try:
        print("stuck", flush=True)
        while sys.argv[1] == "keeping Python's lock":  # which calls through PyDLL do
            ctypes.PyDLL(None).poll(None, 0, 60_000)
        time.sleep(60)
    except KeyboardInterrupt: pass  # the signal while loading
    time.sleep(60)

def make():
    if sys.argv[1] == "loading": stay()
    return Node()

process.spin_until = lambda node, stopped: stay()
process.run_node(make)
"""


@pytest.mark.parametrize("when", ["loading", "spinning", "keeping Python's lock"])
def test_sigterm_ends_a_process_that_is_stuck_within_two_seconds(when):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, when], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == b"stuck\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    # To the end of its output, which the watchdog shares.
    _, said = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL and b"did not end after a signal" in said
    assert 1.0 < time.monotonic() - began < 2.5

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mixed load on one node for a long time: nothing may crash, no answer be lost, no memory grow.

    python test/ros/soak/soak.py --minutes 30

Four clients in processes of their own ask without a pause: single targets, batches, paths, and
goals on the topic; one request in twenty is bad. A fifth process publishes joint_states at 100 Hz.
A sixth one means harm: it sends what must be refused at once, and what is allowed and takes long.
Good answers are judged by Pinocchio. After that, single targets alone are asked for beside one
batch of 10,000 x 100 after the other. Exit code 1 when a bar is missed.
"""

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from meanflow_ik_ros.msg import IKSolutionArray
from meanflow_ik_ros.srv import GetIKPath, GetIKSolutions, GetIKSolutionsBatch
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import JointState

import meanflow_ik_core as mik
from meanflow_ik_core.bench.judge import Judge
from meanflow_ik_ros.messages.poses import pose_message

NODE = "meanflow_ik"
MANY = QoSProfile(depth=1000)
ANSWER_S = 60.0  # longer counts as lost
READY_S = 300.0
BAD_SHARE = 0.05
BATCH, BATCH_SOLUTIONS = 50, 8
BIG_BATCH, BIG_SOLUTIONS = 10_000, 100
FLOOD = 500  # single targets at a time
BESIDE_S = 60.0  # how long singles are asked for beside big batches, at most
MOST_REFUSAL = 2000  # bytes of an answer that refuses
WAYPOINTS, STEP_RAD = 30, 0.02
STATES_HZ = 100.0
# After this time every kind of request has been served. Memory rises and falls with large ones, so
# that medians of this long are compared: of what follows, and of the end.
SETTLED_S, WINDOW_S = 120.0, 300.0
TOLERANCE = 1e-5
CLIENTS = ("service", "batch", "path", "topics")
FIRST = (*CLIENTS, "attacker")


class Client:
    """Asks one kind of request again and again; subclasses say how, and what a right answer is."""

    def __init__(self, namespace: str, seed: int) -> None:
        self.node = Node(f"soak_{type(self).__name__.lower()}", namespace=namespace)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.robot = mik.load_robot("panda")
        self.judge = Judge(self.robot)
        self.random = np.random.default_rng(seed)
        self.seconds: list[float] = []
        self.counts = {"asked": 0, "bad": 0, "lost": 0, "unsolved": 0, "wrong": 0, "let through": 0}

    def run(self, seconds: float) -> dict:
        """Ask until the time is up; counts and latencies [ms]."""
        self.connect()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            bad = self.random.random() < BAD_SHARE
            self.counts["asked"] += 1
            self.counts["bad"] += bad
            started = time.perf_counter()
            verdict = self.ask(bad)
            self.seconds.append(time.perf_counter() - started)
            if verdict:
                self.counts[verdict] += 1
        p50, p99 = (1e3 * np.percentile(self.seconds, (50, 99))).tolist()
        return {**self.counts, "p50 [ms]": p50, "p99 [ms]": p99}

    def connect(self) -> None:
        raise NotImplementedError

    def ask(self, bad: bool) -> str:
        """One request; the name of the count that it raises, empty for a right answer."""
        raise NotImplementedError

    def service(self, kind: type, name: str):
        client = self.node.create_client(kind, f"{NODE}/{name}", qos_profile=MANY)
        if not client.wait_for_service(READY_S):
            raise RuntimeError(f"{name} is not there")
        # An answer to a client that the node does not know yet is lost.
        answered = False
        while not answered:
            first = client.call_async(kind.Request())
            self.executor.spin_until_future_complete(first, 2.0)
            answered = first.done()
        return client

    def call(self, client, request):
        future = client.call_async(request)
        self.executor.spin_until_future_complete(future, ANSWER_S)
        return future.result() if future.done() else None

    def configuration(self) -> np.ndarray:
        return self.random.uniform(self.robot.lower, self.robot.upper)

    def target(self) -> np.ndarray:
        return self.robot.forward(self.configuration())[0]

    def message(self, target: np.ndarray) -> PoseStamped:
        return pose_message(target, self.robot.base)

    def spoil(self, stamped: PoseStamped) -> None:
        """Make a target bad in one of several ways."""
        kind = self.random.integers(4)
        if kind == 0:
            stamped.pose.position.x = float("nan")
        elif kind == 1:
            stamped.pose.orientation.w = stamped.pose.orientation.w + 3.0
        elif kind == 2:
            stamped.header.frame_id = "nowhere"
        else:
            stamped.pose.position.z = 5.0  # out of reach

    def right(self, q: np.ndarray, target: np.ndarray) -> bool:
        return bool(self.judge.accepts(q, target[None], TOLERANCE, TOLERANCE).all())


class Service(Client):
    def connect(self) -> None:
        self.client = self.service(GetIKSolutions, "get_ik_solutions")

    def ask(self, bad: bool) -> str:
        target = self.target()
        request = GetIKSolutions.Request(targets=[self.message(target)], max_solutions=64)
        if bad:
            if self.random.random() < 0.5:
                self.spoil(request.targets[0])
            else:
                request.tip_links = ["no_such_link"]
        response = self.call(self.client, request)
        if response is None:
            return "lost"
        if bad:
            return "let through" if response.error_code == response.SUCCESS else ""
        valid = [item.joint_state.position for item in response.solutions if item.valid]
        if not valid:
            return "unsolved"
        return "" if self.right(np.array(valid), target) else "wrong"


class Batch(Client):
    def connect(self) -> None:
        self.client = self.service(GetIKSolutionsBatch, "get_ik_solutions_batch")

    def ask(self, bad: bool) -> str:
        q = self.random.uniform(self.robot.lower, self.robot.upper, (BATCH, len(self.robot.lower)))
        targets = self.robot.forward(q)[:, 0]
        request = GetIKSolutionsBatch.Request(max_solutions=BATCH_SOLUTIONS)
        request.targets.header.frame_id = self.robot.base
        request.targets.poses = [self.message(target).pose for target in targets]
        if bad and self.random.random() < 0.5:
            request.targets.poses[7].orientation.x = 9.0
        elif bad:
            request.num_samples = 2**32 - 1
        response = self.call(self.client, request)
        if response is None:
            return "lost"
        if bad:
            return "let through" if response.error_code == response.SUCCESS else ""
        if not response.offsets:
            return "lost"  # what is right was refused
        positions = np.array(response.positions).reshape(-1, self.robot.num_joints)
        valid, offsets = np.array(response.valid), np.array(response.offsets)
        for row, target in enumerate(targets):
            rows = slice(offsets[row], offsets[row + 1])
            if not valid[rows].any():
                return "unsolved"
            if not self.right(positions[rows][valid[rows]], target):
                return "wrong"
        return ""


class Paths(Client):
    def connect(self) -> None:
        self.client = self.service(GetIKPath, "get_ik_path")

    def ask(self, bad: bool) -> str:
        lower, upper = self.robot.lower, self.robot.upper
        start = self.random.uniform(0.8 * lower + 0.2 * upper, 0.2 * lower + 0.8 * upper)
        direction = self.random.uniform(-1, 1, len(start))
        steps = np.arange(WAYPOINTS)[:, None] * STEP_RAD * direction
        targets = self.robot.forward(np.clip(start + steps, lower, upper))[:, 0]
        request = GetIKPath.Request()
        request.waypoints.header.frame_id = self.robot.base
        request.waypoints.poses = [self.message(target).pose for target in targets]
        if bad and self.random.random() < 0.5:
            request.waypoints.poses[WAYPOINTS // 2].position.x = 4.0
        elif bad:
            request.times = [0.0, 0.0]
        response = self.call(self.client, request)
        if response is None:
            return "lost"
        if bad:
            return "let through" if response.error_code == response.SUCCESS else ""
        points = response.trajectory.points
        if len(points) != WAYPOINTS or response.error_code != response.SUCCESS:
            return "unsolved"
        rows = zip(points, targets, strict=True)
        right = all(self.right(np.array(point.positions)[None], target) for point, target in rows)
        return "" if right else "wrong"


class Topics(Client):
    def connect(self) -> None:
        self.heard: list[IKSolutionArray] = []
        self.goals = self.node.create_publisher(PoseStamped, f"{NODE}/goal_pose", MANY)
        self.node.create_subscription(
            IKSolutionArray, f"{NODE}/candidates", self.heard.append, MANY
        )
        deadline = time.monotonic() + READY_S
        while not (
            self.goals.get_subscription_count()
            and self.node.count_publishers(self.node.resolve_topic_name(f"{NODE}/candidates"))
        ):
            if time.monotonic() > deadline:
                raise RuntimeError("goal_pose is not there")
            self.executor.spin_once(0.05)

    def ask(self, bad: bool) -> str:
        if bad:  # what a bad goal may not do is keep the next one from its answer
            goal = self.message(self.target())
            goal.pose.orientation.x = 7.0
            self.goals.publish(goal)
        target = self.target()
        goal = self.message(target)
        stamp = int(self.random.integers(1, 2**31 - 1))
        goal.header.stamp.sec = stamp
        self.heard.clear()
        self.goals.publish(goal)
        deadline = time.monotonic() + ANSWER_S
        while not any(array.header.stamp.sec == stamp for array in self.heard):
            if time.monotonic() > deadline:
                return "lost"
            self.executor.spin_once(0.05)
        (array,) = [array for array in self.heard if array.header.stamp.sec == stamp]
        valid = [item.joint_state.position for item in array.solutions if item.valid]
        if not valid:
            return "unsolved"
        return "" if self.right(np.array(valid), target) else "wrong"


class BigBatches(Client):
    """Asks for more than the solver does at once, and expects no more than an answer."""

    def connect(self) -> None:
        self.client = self.service(GetIKSolutionsBatch, "get_ik_solutions_batch")
        q = self.random.uniform(self.robot.lower, self.robot.upper, (BIG_BATCH, 7))
        self.request = GetIKSolutionsBatch.Request(
            num_samples=BIG_SOLUTIONS, max_solutions=BIG_SOLUTIONS
        )
        self.request.targets.header.frame_id = self.robot.base
        targets = self.robot.forward(q)[:, 0]
        self.request.targets.poses = [self.message(target).pose for target in targets]

    def ask(self, bad: bool) -> str:
        return "lost" if self.call(self.client, self.request) is None else ""


class Attacker(BigBatches):
    """Sends one after the other what must be refused, and what is allowed and takes long."""

    def connect(self) -> None:
        super().connect()
        self.single = self.service(GetIKSolutions, "get_ik_solutions")
        lists = ["*" + name for name in "abcdefg"]
        bomb = "[&a [x,x,x,x,x,x,x,x,x,x]" + "".join(
            f", &{chr(98 + place)} [{','.join([name] * 10)}]" for place, name in enumerate(lists)
        )
        long = "x" * 1_000_000
        self.harm = (
            {"objectives": [bomb + "]"]},
            {"objectives": ["manipulability"] * 100_000},
            {"objectives": ["[" * 4000]},
            {"objectives": [long]},
            {"tip_links": [long]},
            {"free_axes": ["x"] * 100_000},
            {"seed_state": JointState(name=["x"] * 100_000, position=[0.0] * 100_000)},
            {"num_samples": 2**32 - 1},
        )

    def ask(self, bad: bool) -> str:
        turn = self.counts["asked"] % (len(self.harm) + 3)
        if turn == len(self.harm):
            return super().ask(bad)
        request = GetIKSolutions.Request(targets=[self.message(self.target())])
        if turn == len(self.harm) + 2:
            flood = [self.single.call_async(request) for _ in range(FLOOD)]
            for future in flood:
                self.executor.spin_until_future_complete(future, ANSWER_S)
            return "" if all(future.done() for future in flood) else "lost"
        if turn > len(self.harm):
            request.objectives = ["clearance"] * 32
            request.num_samples = request.max_solutions = 20_000
            return "lost" if self.call(self.single, request) is None else ""
        for name, value in self.harm[turn].items():
            setattr(request, name, value)
        response = self.call(self.single, request)
        if response is None:
            return "lost"
        is_short = len(serialize_message(response)) <= MOST_REFUSAL
        return "let through" if response.error_code == response.SUCCESS or not is_short else ""


KINDS = {
    **dict(zip(CLIENTS, (Service, Batch, Paths, Topics), strict=True)),
    "attacker": Attacker,
    "single beside batches": Service,
    "big batches": BigBatches,
}
BESIDE = ("single beside batches", "big batches")


def publish_states(namespace: str) -> dict:
    """joint_states at a fixed rate until SIGTERM; how long the longest pause was on this side."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, frame: ended.append(signum))
    node = Node("soak_states", namespace=namespace)
    robot = mik.load_robot("panda")
    publisher = node.create_publisher(JointState, "joint_states", MANY)
    middle, names = 0.5 * (robot.lower + robot.upper), list(robot.joint_names)
    started = last = time.monotonic()
    longest, count = 0.0, 0
    while not ended:
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        q = middle + 0.1 * np.sin(now)
        publisher.publish(JointState(name=names, position=q.tolist()))
        count += 1
        time.sleep(max(0.0, started + count / STATES_HZ - time.monotonic()))
    return {"published": count, "longest pause [ms]": 1e3 * longest}


def be(
    role: str, namespace: str, seed: int, seconds: float, begin: Event, told: Connection
) -> None:
    """The process of a client or of the publisher: waits for its beginning, tells its result."""
    begin.wait()
    rclpy.init()
    if role == "states":
        told.send(publish_states(namespace))
    else:
        client = KINDS[role](namespace, seed)
        told.send(client.run(seconds))
        # Fast DDS loses answers of others for 20 s after a process that does not say its end.
        client.node.destroy_node()
    rclpy.shutdown()


def memory_mb(pid: int) -> float:
    """Resident memory of a process [MB]."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def median_memory(seen: list[tuple[float, float]], begin: float, end: float) -> float:
    """Of a time [s]; of the memory nearest to it where none was looked at then."""
    within = [mb for when, mb in seen if begin <= when <= end]
    nearest = min(seen, key=lambda one: abs(one[0] - end))
    return float(np.median(within or nearest[1]))


class Watch:
    """Hears /diagnostics of the node and keeps its memory over time."""

    def __init__(self, namespace: str, pid: int) -> None:
        self.pid = pid
        self.name = f"{namespace.lstrip('/')}/{NODE}: solver"
        self.node = Node("soak_watch", namespace=namespace)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.values: dict[str, str] = {}
        self.ages: list[float] = []
        self.memory: list[tuple[float, float]] = []
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.hear, MANY)

    def hear(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name == self.name:
                self.values = {item.key: item.value for item in status.values}
                age = self.values.get("joint_states longest age [ms]", "never heard")
                if age != "never heard":
                    self.ages.append(float(age))

    def look(self, since: float) -> None:
        self.executor.spin_once(0.5)
        if not self.memory or time.monotonic() - since > self.memory[-1][0] + 1.0:
            self.memory.append((time.monotonic() - since, memory_mb(self.pid)))


def soak(seconds: float, sampler: str, seed: int, time_limit_s: float) -> dict:
    """Run everything; what was seen."""
    namespace = f"/soak_{os.getpid()}"
    # Forked before ROS has threads here; each of them imports nothing again.
    fork = multiprocessing.get_context("fork")
    begin, begin_beside = fork.Event(), fork.Event()
    beside_s = min(BESIDE_S, seconds)
    results, processes = {}, {}
    for index, role in enumerate((*FIRST, "states", *BESIDE)):
        results[role], told = fork.Pipe(duplex=False)
        start = (beside_s, begin_beside) if role in BESIDE else (seconds, begin)
        processes[role] = fork.Process(
            target=be, args=(role, namespace, seed + index, *start, told), daemon=True
        )
        processes[role].start()
    node = subprocess.Popen(
        [
            *(sys.executable, "-m", "meanflow_ik_ros.node", "--ros-args", "--log-level", "error"),
            *("-r", f"__ns:={namespace}", "-p", f"sampler:={sampler}"),
            *("-p", f"time_limit:={time_limit_s}"),
        ]
    )
    rclpy.init()
    try:
        watch = Watch(namespace, node.pid)
        probe = watch.node.create_client(GetIKPath, f"{NODE}/get_ik_path")
        deadline = time.monotonic() + READY_S
        while not probe.wait_for_service(0.5):
            if node.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the node did not start (exit code {node.poll()})")
        started = time.monotonic()
        for event, roles in ((begin, FIRST), (begin_beside, BESIDE)):
            event.set()
            while any(processes[role].is_alive() for role in roles):
                watch.look(started)
                if node.poll() is not None:
                    raise RuntimeError(f"the node crashed with exit code {node.returncode}")
                if time.monotonic() > started + seconds + beside_s + READY_S:
                    raise RuntimeError("a client does not end")
        processes["states"].terminate()
        for role, process in processes.items():
            process.join(ANSWER_S)
            if process.exitcode != 0:
                raise RuntimeError(f"the {role} client ended with exit code {process.exitcode}")
        seen = {role: told.recv() for role, told in results.items()}
        states = seen.pop("states")
        node.send_signal(signal.SIGINT)
        exit_code = node.wait(30)
    finally:
        for process in processes.values():
            process.kill()
            process.join()
        if node.poll() is None:
            node.kill()
            node.wait()
        rclpy.try_shutdown()
    begin = min(SETTLED_S, seconds / 3)
    window = min(WINDOW_S, (seconds - begin) / 2)
    settled = median_memory(watch.memory, begin, begin + window)
    at_the_end = median_memory(watch.memory, seconds - window, seconds)
    return {
        "seconds": seconds,
        "clients": seen,
        "joint_states": {
            **states,
            # the first one goes back to before the publisher's start
            "longest age [ms]": max(watch.ages[1:] or [np.inf]),
            "ages heard": len(watch.ages),
            "ages": watch.ages,
        },
        "memory settled [MB]": settled,
        "memory at the end [MB]": at_the_end,
        "memory growth [%]": 100 * (at_the_end / settled - 1),
        "memory [MB]": [mb for _, mb in watch.memory],
        "exit code": exit_code,
        "diagnostics": watch.values,
    }


def bars(seen: dict) -> list[tuple[str, float, float]]:
    """Name, value and the most that it may be."""
    clients = seen["clients"].values()
    return [
        ("answers lost", sum(client["lost"] for client in clients), 0),
        ("wrong solutions", sum(client["wrong"] for client in clients), 0),
        ("bad requests let through", sum(client["let through"] for client in clients), 0),
        ("requests ended in an exception", float(seen["diagnostics"]["requests failed"]), 0),
        ("memory growth after the first two minutes [%]", seen["memory growth [%]"], 5),
        # Python's lock is held while rclpy writes an answer: .25 s for one of a million rows.
        ("joint_states age, longest [ms]", seen["joint_states"]["longest age [ms]"], 1000),
        (
            f"single target beside batches of {BIG_BATCH} x {BIG_SOLUTIONS}, p99 [ms]",
            seen["clients"][BESIDE[0]]["p99 [ms]"],
            300,
        ),
        ("exit code after SIGINT", abs(seen["exit code"]), 0),
    ]


def show(seen: dict) -> bool:
    """Print tables; whether every bar is reached."""
    clients = Table("client", *next(iter(seen["clients"].values())), title="clients")
    for name, counts in seen["clients"].items():
        clients.add_row(name, *(f"{value:.4g}" for value in counts.values()))
    table = Table(
        "what", "value", "at most", "reached", title=f"{seen['seconds'] / 60:.1f} minutes"
    )
    rows = bars(seen)
    for name, value, most in rows:
        table.add_row(name, f"{value:.4g}", f"{most:g}", "yes" if value <= most else "NO")
    console = Console()
    console.print(clients)
    console.print(table)
    return all(value <= most for _, value, most in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--sampler", default="auto", help="meanflow, uniform or auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time-limit", type=float, default=10.0, help="of the node [s]")
    parser.add_argument("--output", type=Path, help="write JSON to this file as well")
    options = parser.parse_args()
    seen = soak(60 * options.minutes, options.sampler, options.seed, options.time_limit)
    if options.output is not None:
        options.output.write_text(json.dumps(seen, indent=2) + "\n")
    sys.exit(0 if show(seen) else 1)


if __name__ == "__main__":
    main()

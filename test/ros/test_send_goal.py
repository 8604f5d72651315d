# SPDX-License-Identifier: Apache-2.0
"""The command line client against a running node, as a user calls it."""

import json
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pinocchio as pin
import pytest
import rclpy
from meanflow_ik_ros.msg import IKSolution
from meanflow_ik_ros.srv import ApplyWorld
from oracles import Judge, fixed_offset
from rich.console import Console
from ros_user import DEADLINE_S, node_process
from sensor_msgs.msg import JointState
from world_messages import box

import meanflow_ik_core as mik
from meanflow_ik_core.commands.app import main as command_line
from meanflow_ik_ros.messages.poses import matrix_from_pose
from meanflow_ik_ros.tools import answer_output, goal_options, send_goal

SCRIPT = Path(__file__).parents[2] / "scripts" / "send_goal"
NODE = ("--node", "/own/meanflow_ik", "--timeout", str(DEADLINE_S))
POSE = ("--xyz", "0.4", "-1e-3", "0.5", "--rpy", "3.1", "-0.2", "0.3")
OUT_OF_REACH = ("--xyz", "3", "0", "0.5", "--rpy", "3.1", "-0.2", "0.3")


def call(capfd, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        send_goal.main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code, *capfd.readouterr()


def wanted() -> np.ndarray:
    """(4, 4) of POSE."""
    rotation = pin.rpy.rpyToMatrix(3.1, -0.2, 0.3)
    return pin.SE3(rotation, np.array([0.4, -1e-3, 0.5])).homogeneous


def assert_reached(solutions: list[dict], T_base_tip: np.ndarray) -> None:
    judge = Judge(mik.load_robot("panda"))
    assert solutions
    for solution in solutions:
        assert solution["valid"]
        assert judge.accepts(np.array(list(solution["joints"].values())), T_base_tip[None])


def test_rpy_is_that_of_a_urdf_with_either_library(monkeypatch):
    calls = []

    def quaternion_from_euler(ai, aj, ak, axes="sxyz"):
        calls.append(axes)
        return pin.Quaternion(pin.rpy.rpyToMatrix(ai, aj, ak)).coeffs()

    installed = types.ModuleType("tf_transformations")
    installed.quaternion_from_euler = quaternion_from_euler
    random = np.random.default_rng(0)
    for module in (None, installed):
        monkeypatch.setitem(sys.modules, "tf_transformations", module)
        for rpy in random.uniform(-np.pi, np.pi, (50, 3)):
            x, y, z, w = goal_options.quat_xyzw_from_rpy(*rpy)
            found = pin.Quaternion(w, x, y, z).matrix()
            np.testing.assert_allclose(found, pin.rpy.rpyToMatrix(*rpy), atol=1e-12)
    assert calls == ["sxyz"] * 50


def test_rpy_without_a_library_is_refused_and_quat_is_not(monkeypatch):
    for name in ("tf_transformations", "transforms3d.euler"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(mik.OptionError, match=r"transforms3d.*--quat"):
        goal_options.quat_xyzw_from_rpy(0, 0, 0)
    words = ["--xyz", "1", "2", "3"]
    options = goal_options.read_options([*words, "--quat", *"1000"])
    (goal,) = goal_options.goals_from_options(options)
    np.testing.assert_allclose(
        matrix_from_pose(goal),
        [[1, 0, 0, 1], [0, -1, 0, 2], [0, 0, -1, 3], [0, 0, 0, 1]],
        atol=1e-12,
    )


def test_two_arms_get_two_goals():
    words = "--xyz 1 2 3 --rpy 0 0 0 --tip left --xyz -4 5 6 --rpy 0 0 1 --tip right --frame table"
    options = goal_options.read_options(words.split())
    goals = goal_options.goals_from_options(options)
    assert options.tip == ["left", "right"]
    assert [goal.pose.position.x for goal in goals] == [1.0, -4.0]
    assert {goal.header.frame_id for goal in goals} == {"table"}
    np.testing.assert_allclose(
        matrix_from_pose(goals[1])[:3, :3], pin.rpy.rpyToMatrix(0.0, 0.0, 1.0), atol=1e-12
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--watch"),
        ("--rpy 0 0 0", "give --watch, or --xyz and one of --rpy and --quat"),
        ("--xyz 1 2 3 --free-axes", "expected one argument"),
        ("--xyz 1 2 3 --rpy 0 0 0 --tip a --tip b", "2 --tip for 1 poses"),
        ("--xyz 1 2 3 --rpy 0 0 0 --free-axes x --free-axes y", "2 --free-axes for 1 poses"),
        ("--xyz 1 2 3 --rpy 0 0 0 --topic --tip a", "--tip does not go with --topic"),
        ("--xyz 1 2 3 --rpy 0 0 0 --topic --free-axes x", "--free-axes does not go with --topic"),
        ("--xyz 1 2 3 --rpy 0 0 0 --latest", "--latest"),
        ("--xyz 1 2 3 --rpy 0 0 0 --max-solutions -1", "--max-solutions -1"),
        ("--xyz 1 2 3 --rpy 0 0 0 --max-solutions 1_0", "--max-solutions: invalid int value"),
        ("--xyz 1 2 3 --rpy 0 0 0 --timeout 1_0", "--timeout: invalid float value: '1_0'"),
        ("--xyz 1 2 3 --rpy 0 0 0 --timeout 0", "--timeout 0"),
        ("--xyz 1 2 3 --rpy 0 0 0 --node a-b", "--node a-b"),
        ("--xyz 1 2 3 --rpy 0 0 0 --colour red", "--colour"),
    ],
)
def test_bad_use_is_said_in_one_line_with_exit_code_2(capfd, words, message):
    code, out, err = call(capfd, *words.split())
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    [
        "--xyz 1 2 3",
        '--xyz 1 2 3 --free-axes "rx ry"',
        "--rpy 0 0 0",
        "--xyz 1 2 --rpy 0 0 0",
        "--xyz 1 2 nose --rpy 0 0 0",
        "--xyz 1 2 1_0 --rpy 0 0 0",
        "--xyz 1 2 nan --rpy 0 0 0",
        "--xyz 1 2 3 --rpy 0 0 0 --quat 0 0 0 1",
        "--xyz 1 2 3 --quat 0 0 0 2",
        "--xyz 1 2 3 --xyz 1 2 3 --rpy 0 0 0",
        "--xyz --rpy 0 0 0",
        "--xyz 1 2 3 --rpy -inf 0 0",
    ],
)
def test_a_pose_is_refused_in_the_words_of_the_command_line(capfd, monkeypatch, words):
    arguments = shlex.split(words)
    code, out, err = call(capfd, *arguments)
    monkeypatch.setattr(sys, "argv", ["meanflow-ik", "solve", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line()
    theirs = capfd.readouterr().err.replace("meanflow-ik:", "send_goal:")
    assert (code, out) == (2, "") and ended.value.code == 2
    assert err == theirs.replace("--poses", "--watch") and len(err.splitlines()) == 1


def test_a_goal_without_orientation_is_taken_where_its_axes_are_free():
    words = ["--xyz", "1", "2", "3", "--free-axes", "rx ry rz"]
    (goal,) = goal_options.goals_from_options(goal_options.read_options(words))
    turn = np.eye(4)
    turn[:3, 3] = 1, 2, 3
    np.testing.assert_array_equal(matrix_from_pose(goal), turn)


def test_a_pose_is_answered_with_a_table(capfd, shared_node):
    code, out, err = call(capfd, *POSE, *NODE, "--max-solutions", "3")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("3 solutions")
    header = ("rank", "valid", "error [m]", "error [rad]", "distance [rad]")
    assert all(name in lines[1] for name in (*header, "joint1 [rad or m]", "joint7 [rad or m]"))
    rows = [line.split() for line in lines[3:6]]
    assert [row[:2] for row in rows] == [["1", "yes"], ["2", "yes"], ["3", "yes"]]
    assert lines[-1] == "SUCCESS (1)"
    judge, target = Judge(mik.load_robot("panda")), wanted()
    for row in rows:
        q = np.array(row[2:9], dtype=float)
        assert judge.accepts(q, target[None], tolerance=1e-3)  # four digits are printed


def test_json_carries_the_answer_in_full(capfd, shared_node):
    code, out, _ = call(capfd, *POSE, *NODE, "--json")
    answer = json.loads(out)
    assert (code, answer["code"], answer["error_code"]) == (0, "SUCCESS", 1)
    assert [solution["rank"] for solution in answer["solutions"]] == [1, 2, 3, 4, 5, 6, 7]
    assert_reached(answer["solutions"], wanted())


def test_the_tip_and_relative_names_are_honoured(panda, capfd, shared_node):
    arguments = ("--tip", "panda_hand_tcp", "--json", "--avoid-self-collision")
    code, out, err = call(
        capfd, *POSE, *arguments, *NODE, "--node", "meanflow_ik", "--ros-args", "-r", "__ns:=/own"
    )
    assert code == 0, err
    offset = fixed_offset(panda, "panda_hand_tcp", "panda_link8")
    T_base_tip = (pin.SE3(wanted()) * offset).homogeneous
    assert_reached(json.loads(out)["solutions"], T_base_tip)


@pytest.mark.parametrize(
    ("arguments", "expected", "words"),
    [
        (OUT_OF_REACH, 1, "NO_IK_SOLUTION (-31): the target of panda_link8 is"),
        ((*POSE, "--frame", "mars"), 2, "FRAME_TRANSFORM_FAILURE (-21): no transform"),
        ((*POSE, "--tip", "nose"), 2, "INVALID_LINK_NAME (-18)"),
    ],
    ids=["out of reach", "unknown frame", "unknown link"],
)
def test_what_is_not_solved_has_its_own_exit_code_and_reason(
    capfd, shared_node, arguments, expected, words
):
    code, out, err = call(capfd, *arguments, *NODE)
    assert code == expected, err
    assert words in out


def test_by_topic_the_reason_is_that_of_the_service(capfd, shared_node):
    code, out, err = call(capfd, *OUT_OF_REACH, *NODE, "--topic")
    assert code == 1 and "no solution; the" in out
    said = "send_goal: /own/meanflow_ik/get_ik_solutions says of the same goal: NO_IK_SOLUTION (-31"
    assert err.startswith(said) and "the target of panda_link8 is" in err
    lost = ("--topic", "--frame", "mars", "--latest")
    code, out, err = call(capfd, *POSE, *lost, *NODE, "--timeout", "1.5")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert "no candidates within 1.5 s" in err and "(-21): no transform" in err


def apply_world(*objects) -> None:
    """Let the shared node's world have these objects alone."""
    rclpy.init()
    try:
        user = rclpy.create_node("user")
        service = user.create_client(ApplyWorld, "/own/meanflow_ik/apply_world")
        assert service.wait_for_service(DEADLINE_S)
        future = service.call_async(ApplyWorld.Request(objects=list(objects)))
        rclpy.spin_until_future_complete(user, future, timeout_sec=DEADLINE_S)
        assert future.result().error_code == ApplyWorld.Response.SUCCESS
    finally:
        rclpy.shutdown()


def test_a_goal_inside_an_obstacle_is_not_solved_and_says_what_touches(capfd, shared_node):
    apply_world(box("wall", (0.2, 0.2, 0.2), wanted()[:3, 3]))
    try:
        code, out, _ = call(capfd, *POSE, *NODE, "--json")
    finally:
        apply_world()
    answer = json.loads(out)
    assert (code, answer["code"]) == (1, "GOAL_IN_COLLISION")
    nearest = answer["solutions"][0]
    assert nearest["world_clearance"] < 0 and "wall" in nearest["touches"][0]


def test_every_error_code_has_its_name():
    text = (Path(__file__).parents[2] / "srv" / "GetIKSolutions.srv").read_text()
    codes = re.findall(r"^int32 ([A-Z_]+)=(-?\d+)", text, re.MULTILINE)
    assert len(codes) > 7
    assert {answer_output.code_name(int(code)) for _, code in codes} == {name for name, _ in codes}
    assert answer_output.code_name(12345) == "unknown code"


def test_a_goal_on_the_topic_comes_back_as_candidates(capfd, shared_node):
    code, out, err = call(capfd, *POSE, *NODE, "--topic", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["frame_id"] == "panda_link0" and answer["stamp"]["sec"] > 0
    assert_reached(answer["solutions"], wanted())
    code, out, err = call(capfd, *POSE, *NODE, "--topic", "--latest", "--json")
    assert code == 0, err
    assert json.loads(out)["stamp"] == {"sec": 0, "nanosec": 0}


def test_an_absent_node_is_named_with_what_is_there_instead(capfd, shared_node):
    call(capfd, *POSE, *NODE)  # returns when the node is there
    for arguments in ((), ("--topic",)):
        deadline, err = time.monotonic() + DEADLINE_S, ""
        # what is there may take longer to be discovered than the client waits
        while "--node can be" not in err and time.monotonic() < deadline:
            code, out, err = call(
                capfd, *POSE, *arguments, "--node", "/other/meanflow_ik", "--timeout", "0.5"
            )
            assert (code, out) == (2, "")
            assert "/other/meanflow_ik/" in err
        assert err.rstrip().endswith("within 0.5 s; --node can be /own/meanflow_ik")


def test_watching_shows_the_candidates_of_every_goal_until_ctrl_c(capfd, shared_node):
    watcher = subprocess.Popen(
        [sys.executable, SCRIPT, *NODE, "--watch", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout is not None and watcher.stderr is not None
    assert "watching /own/meanflow_ik/candidates" in watcher.stderr.readline()
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=lambda: [lines.put(line) for line in watcher.stdout])
    reader.start()
    try:
        deadline = time.monotonic() + DEADLINE_S
        while lines.empty() and time.monotonic() < deadline:
            # the watcher may not have been discovered yet
            assert call(capfd, *POSE, *NODE, "--topic")[0] == 0
        assert_reached(json.loads(lines.get(timeout=1.0))["solutions"], wanted())
        # by now it has been
        assert call(capfd, *OUT_OF_REACH, *NODE, "--topic")[0] == 1
        valid = [True]
        while any(valid):  # what the loop above had sent too often
            content = json.loads(lines.get(timeout=DEADLINE_S))
            valid = [solution["valid"] for solution in content["solutions"]]
        assert len(valid) > 0
    finally:
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(DEADLINE_S) == 0
        reader.join(DEADLINE_S)
    assert "Traceback" not in watcher.stderr.read()


@pytest.fixture(scope="module")
def two_arms_solver(compiled, dual_panda):
    """A node with two tips, in a process and namespace of its own."""
    with node_process("/two", robot=dual_panda.name, sampler="uniform", max_solutions=4):
        yield


@pytest.fixture(scope="module")
def two_targets(dual_panda) -> np.ndarray:
    rng = np.random.default_rng(0)
    return Judge(dual_panda).poses(0.5 * rng.uniform(dual_panda.lower, dual_panda.upper))


def pose_words(T_base_tip: np.ndarray) -> list[str]:
    quat_xyzw = pin.Quaternion(T_base_tip[:3, :3]).coeffs()
    return [
        "--xyz",
        *map(repr, T_base_tip[:3, 3].tolist()),
        "--quat",
        *map(repr, quat_xyzw.tolist()),
    ]


def ask_two_arms(capfd, *arguments: str) -> np.ndarray:
    """(N, J) all solutions, which must be valid."""
    node = ("--node", "/two/meanflow_ik", "--timeout", str(DEADLINE_S), "--json")
    code, out, err = call(capfd, *arguments, *node)
    assert code == 0, err
    solutions = json.loads(out)["solutions"]
    assert len(solutions) == 4 and all(solution["valid"] for solution in solutions)
    return np.array([list(solution["joints"].values()) for solution in solutions])


@pytest.mark.parametrize("how", ["service", "service, the other order", "topic"])
def test_goals_for_several_tips_are_sent_together(
    capfd, dual_panda, two_arms_solver, two_targets, how
):
    words = [pose_words(target) for target in two_targets]
    if how == "topic":
        words.append(["--topic"])
    elif how == "service, the other order":
        words = [[*words[tip], "--tip", dual_panda.tips[tip]] for tip in (1, 0)]
    for q in ask_two_arms(capfd, *[word for part in words for word in part]):
        assert Judge(dual_panda).accepts(q, two_targets)


def test_a_goal_for_one_of_two_tips_leaves_the_other_anywhere(
    capfd, dual_panda, two_arms_solver, two_targets
):
    words = [*pose_words(two_targets[1]), "--tip", dual_panda.tips[1]]
    judge, apart = Judge(dual_panda), []
    for q in ask_two_arms(capfd, *words):
        position, angle = judge.errors(q, two_targets)
        assert position[1] < 1e-5 and angle[1] < 1e-5
        apart.append(position[0])
    assert min(apart) > 1e-2


def test_free_axes_are_sent_for_each_tip(capfd, dual_panda, two_arms_solver, two_targets):
    words = [*pose_words(two_targets[0]), *pose_words(two_targets[1])]
    judge = Judge(dual_panda)
    for q in ask_two_arms(capfd, *words, "--free-axes", "", "--free-axes", "rx ry rz"):
        position, angle = judge.errors(q, two_targets)
        assert position.max() < 1e-5 and angle[0] < 1e-5 < 1e-2 < angle[1]


def test_objectives_are_sent_and_their_values_and_cost_shown(capfd, shared_node):
    wish = ("--objective", "manipulability", "--objective", "{name: posture, weight: 2.0}")
    code, out, err = call(capfd, *POSE, *NODE, "--max-solutions", "2", *wish)
    assert code == 0, err
    assert all(word in out for word in ("cost", "objective 1", "objective 2"))
    code, out, _ = call(capfd, *POSE, *NODE, "--max-solutions", "2", *wish, "--json")
    assert all(len(row["objective_values"]) == 2 for row in json.loads(out)["solutions"])
    code, _, err = call(capfd, *POSE, *NODE, "--objective", "manipulabilty")
    assert code == 2
    code, _, err = call(capfd, *POSE, *NODE, "--topic", "--objective", "manipulability")
    assert code == 2 and "--objective does not go with --topic" in err


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("joints", [2, 8, 15])
def test_the_table_shows_every_joint_of_small_and_large_robots(joints, width, capsys):
    names = [f"left_arm_joint_{index}" for index in range(joints)]
    state = JointState(name=names, position=[0.5 * index for index in range(joints)])
    solution = IKSolution(
        joint_state=state, position_error=[2.0, 3.0], orientation_error=[0.0, 1.0], distance=0.25,
        cost=7.5, objective_values=[0.75], clearance=0.0125,
    )  # fmt: skip
    console = Console(width=width, markup=False)
    answer_output.print_table("a title", [solution], console)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    for value in state.position:
        assert f"{value:.4f}" in out
    assert all(words in out for words in ("3.0e+00", "1.0e+00", "0.250", "no"))
    assert all(words in out for words in ("7.5", "objective 1", "0.75", "clearance [m]", "0.0125"))

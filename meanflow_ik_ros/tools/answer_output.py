# SPDX-License-Identifier: Apache-2.0
"""Prints what the node answers: a table for people, a line of JSON for scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from geometry_msgs.msg import PoseStamped
from rich.console import Console

from meanflow_ik_core.commands.printing import SolutionRow, plain, print_solutions
from meanflow_ik_ros.messages.errors import Codes
from meanflow_ik_ros.msg import IKSolution, IKSolutionArray
from meanflow_ik_ros.srv import GetIKSolutions

CODE_NAMES = {code: name for name in dir(Codes) if isinstance(code := getattr(Codes, name), int)}


def print_table(title: str, solutions: Sequence[IKSolution], console: Console) -> None:
    """One column or row per solution that is valid, or the nearest miss; of several tips the
    largest error counts."""
    count = len(solutions[0].objective_values)
    print_solutions(
        title,
        dict.fromkeys(solutions[0].joint_state.name, "rad or m"),
        [f"objective {number}" for number in range(1, count + 1)],
        [
            SolutionRow(
                solution.valid,
                solution.joint_state.position,
                max(solution.position_error, default=math.nan),
                max(solution.orientation_error, default=math.nan),
                solution.distance,
                solution.cost,
                solution.objective_values,
                solution.clearance,
            )
            for solution in solutions
        ],
        console,
    )


def solutions_content(solutions: Sequence[IKSolution]) -> list[dict[str, Any]]:
    """What scripts get of solutions, in SI units."""
    return [
        {
            "rank": rank,
            "valid": solution.valid,
            "position_error": list(solution.position_error),
            "orientation_error": list(solution.orientation_error),
            "distance": solution.distance,
            "cost": solution.cost,
            "clearance": solution.clearance,
            "world_clearance": solution.world_clearance,
            "touches": list(solution.touches),
            "objective_values": list(solution.objective_values),
            "joints": dict(
                zip(solution.joint_state.name, solution.joint_state.position, strict=True)
            ),
        }
        for rank, solution in enumerate(solutions, start=1)
    ]


def code_name(error_code: int) -> str:
    """The name of an error code in the service's definition."""
    return CODE_NAMES.get(error_code, "unknown code")


def outcome(response: GetIKSolutions.Response) -> str:
    """The code of an answer by name and number, and its message."""
    said = f": {response.message}" if response.message else ""
    return f"{code_name(response.error_code)} ({response.error_code}){said}"


def show_response(response: GetIKSolutions.Response, as_json: bool, console: Console) -> None:
    """Print an answer of the service."""
    times = {name: getattr(response, name) for name in ("sample_time", "refine_time", "total_time")}
    if as_json:
        print_line(
            {
                "error_code": response.error_code,
                "code": code_name(response.error_code),
                "message": response.message,
                **times,
                "solutions": solutions_content(response.solutions),
            }
        )
        return
    if response.solutions:
        sample, refine, total = (1e3 * value for value in times.values())
        title = f"{counted(response.solutions)}; {total:.1f} ms in the node"
        title += f" (sampling {sample:.1f}, refinement {refine:.1f})"
        print_table(title, response.solutions, console)
    console.print(outcome(response), markup=False, highlight=False, soft_wrap=True)


def show_candidates(candidates: IKSolutionArray, as_json: bool, console: Console) -> None:
    """Print what came on ~/candidates."""
    stamp = candidates.header.stamp
    if as_json:
        print_line(
            {
                "stamp": {"sec": stamp.sec, "nanosec": stamp.nanosec},
                "frame_id": candidates.header.frame_id,
                "targets": [target_content(target) for target in candidates.targets],
                "solutions": solutions_content(candidates.solutions),
            }
        )
        return
    title = f"goal of {stamp.sec}.{stamp.nanosec:09d}: {counted(candidates.solutions)}"
    if candidates.solutions:
        print_table(title, candidates.solutions, console)
    else:
        console.print(title, markup=False, highlight=False)


def target_content(target: PoseStamped) -> dict[str, Any]:
    """What scripts get of a target."""
    position, turn = target.pose.position, target.pose.orientation
    return {
        "frame_id": target.header.frame_id,
        "position": [position.x, position.y, position.z],
        "quat_xyzw": [turn.x, turn.y, turn.z, turn.w],
    }


def counted(solutions: Sequence[IKSolution]) -> str:
    """How many solutions there are, in words."""
    valid = sum(solution.valid for solution in solutions)
    if valid:
        return f"{valid} {'solution' if valid == 1 else 'solutions'}"
    return "no solution; the nearest miss" if solutions else "no solution"


def print_line(content: dict[str, Any]) -> None:
    """Print one line of JSON; what is not finite becomes null."""
    print(json.dumps(plain(content), allow_nan=False), flush=True)

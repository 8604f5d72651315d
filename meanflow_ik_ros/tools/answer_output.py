# SPDX-License-Identifier: Apache-2.0
"""Prints what the node answers: a table for people, a line of JSON for scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from geometry_msgs.msg import PoseStamped
from rich.console import Console
from rich.table import Table

from meanflow_ik_core.commands.printing import plain
from meanflow_ik_ros.messages.errors import Codes
from meanflow_ik_ros.msg import IKSolution, IKSolutionArray
from meanflow_ik_ros.srv import GetIKSolutions

CODE_NAMES = (
    "SUCCESS", "NO_IK_SOLUTION", "FRAME_TRANSFORM_FAILURE", "INVALID_LINK_NAME",
    "INVALID_ROBOT_STATE", "INVALID_GOAL_CONSTRAINTS", "FAILURE",
)  # fmt: skip
_JOINT_COLUMNS = 8  # more joints than this share one column


def solutions_table(title: str, solutions: Sequence[IKSolution]) -> Table:
    """One row per solution; of several tips the largest error counts."""
    table = Table(
        title=title, title_justify="left", caption="joints in rad, sliding ones in m",
        caption_justify="left",
    )  # fmt: skip
    names = list(solutions[0].joint_state.name)
    apart = len(names) <= _JOINT_COLUMNS
    for name in ("rank", "valid", "error, mm", "error, deg", "distance, rad"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in short_names(names) if apart else ():
        table.add_column(name, justify="right", no_wrap=True)
    if not apart:
        table.add_column("joints")
    for rank, solution in enumerate(solutions, start=1):
        values = list(solution.joint_state.position)
        joints = [f"{value:+.4f}" for value in values]
        if not apart:
            joints = [" ".join(f"{n}={value:+.4f}" for n, value in zip(names, values, strict=True))]
        table.add_row(
            str(rank),
            "yes" if solution.valid else "no",
            digits(1e3 * max(solution.position_error, default=math.nan)),
            digits(math.degrees(max(solution.orientation_error, default=math.nan))),
            f"{solution.distance:.3f}",
            *joints,
        )
    return table


def digits(value: float) -> str:
    """A number of at least two digits, without decimals from 100 on."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def short_names(names: list[str]) -> list[str]:
    """Names without the words, between underscores, that all of them begin with."""
    words = [name.split("_") for name in names]
    shared = 0
    while all(len(parts) > shared + 1 for parts in words) and (
        len({parts[shared] for parts in words}) == 1
    ):
        shared += 1
    return ["_".join(parts[shared:]) for parts in words]


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
            "objective_values": list(solution.objective_values),
            "joints": dict(
                zip(solution.joint_state.name, solution.joint_state.position, strict=True)
            ),
        }
        for rank, solution in enumerate(solutions, start=1)
    ]


def code_name(error_code: int) -> str:
    """The name of an error code in the service's definition."""
    names = (name for name in CODE_NAMES if getattr(Codes, name) == error_code)
    return next(names, "unknown code")


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
        console.print(solutions_table(title, response.solutions))
    said = f": {response.message}" if response.message else ""
    line = f"{code_name(response.error_code)} ({response.error_code}){said}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)


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
        console.print(solutions_table(title, candidates.solutions))
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
    return f"no solution; the {len(solutions)} nearest misses" if solutions else "no solution"


def print_line(content: dict[str, Any]) -> None:
    """Print one line of JSON; what is not finite becomes null."""
    print(json.dumps(plain(content), allow_nan=False), flush=True)

# SPDX-License-Identifier: Apache-2.0
"""Asks a running node for solutions of a pose, or of one pose per tip, and shows its answer."""

from __future__ import annotations

import argparse
import os
import sys

import rclpy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rich.console import Console

from meanflow_ik_core.commands.printing import output_console
from meanflow_ik_core.errors import IKError
from meanflow_ik_ros.messages.errors import Codes
from meanflow_ik_ros.srv import GetIKSolutions
from meanflow_ik_ros.tools.answer_output import show_candidates, show_response
from meanflow_ik_ros.tools.client import Client
from meanflow_ik_ros.tools.goal_options import check_options, goals_from_options, read_options

SOLVED, UNSOLVED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def run(options: argparse.Namespace, console: Console) -> int:
    """Send the goals of the options and show the answers; returns the exit code.

    Raises:
        IKError: the options are wrong, or no answer came.
    """
    check_options(options)
    goals = goals_from_options(options)
    client = Client(options.node, options.timeout)
    code = SOLVED
    try:
        if goals and options.topic:
            candidates = client.publish(goals, options.latest)
            show_candidates(candidates, options.json, console)
            if not any(solution.valid for solution in candidates.solutions):
                code = UNSOLVED
                print(f"send_goal: {client.why(goals)}", file=sys.stderr)
        elif goals:
            request = GetIKSolutions.Request(
                targets=goals,
                tip_links=options.tip,
                free_axes=options.free_axes,
                max_solutions=options.max_solutions,
                avoid_self_collision=options.avoid_self_collision,
                objectives=options.objective,
            )
            response = client.ask(request)
            show_response(response, options.json, console)
            unsolved = Codes.NO_IK_SOLUTION, Codes.GOAL_IN_COLLISION
            codes = {Codes.SUCCESS: SOLVED, **dict.fromkeys(unsolved, UNSOLVED)}
            code = codes.get(response.error_code, REFUSED)
        if options.watch:
            print(f"watching {options.node}/candidates; Ctrl-C ends", file=sys.stderr, flush=True)
            client.watch(lambda candidates: show_candidates(candidates, options.json, console))
    except KeyboardInterrupt:
        if not options.watch:
            return INTERRUPTED
    finally:
        client.close()
    return code


def main(arguments: list[str] | None = None) -> None:
    """The command line; --ros-args and what follows them are for ROS."""
    arguments = sys.argv[1:] if arguments is None else arguments
    code = REFUSED
    try:
        options = read_options(remove_ros_args(["send_goal", *arguments])[1:], __doc__)
        rclpy.init(args=["send_goal", *arguments], signal_handler_options=SignalHandlerOptions.NO)
        code = run(options, output_console())
    except IKError as error:
        print(f"send_goal: {error}", file=sys.stderr)
    except BrokenPipeError:
        # A pipe such as `| head` has read enough; without this, Python would complain once more
        # while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if not type(error).__module__.startswith("rclpy"):
            raise
        print(f"send_goal: {' '.join(str(error).split())}", file=sys.stderr)
    finally:
        rclpy.try_shutdown()
    sys.exit(code)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Peers that misbehave, in a module that their processes can import."""

import os
import signal
import time

from meanflow_ik_core.bench.peer_solvers.ours import Uniform
from meanflow_ik_core.bench.peer_solvers.peer import Searcher


class Missing(Searcher):
    name, install = "missing", "pip install nothing-of-this-name"

    def _open(self, robot):
        import nothing_of_this_name  # noqa: F401

    def one(self, watch, target, start):
        raise AssertionError


class Unopened(Missing):
    name = "unopened"

    def _open(self, robot):
        raise ValueError("no such robot")


class Dying(Missing):
    """Dies by a signal, as compiled code does."""

    name = "dying"

    def _open(self, robot):
        pass

    def one(self, watch, target, start):
        os.kill(os.getpid(), signal.SIGSEGV)


class Hanging(Dying):
    """Gives no answer for targets to the left of the robot."""

    name = "hanging"

    def one(self, watch, target, start):
        if target[0, 1, 3] > 0:
            time.sleep(3600)
        return self._rows(start)


class Raising(Dying):
    name = "raising"

    def one(self, watch, target, start):
        watch(time.sleep, 0.01)
        raise RuntimeError("no luck")


class Printing(Dying):
    name = "printing"

    def one(self, watch, target, start):
        os.system("echo noise; echo noise >&2")
        return self._rows(None)


class Liar(Searcher):
    """Our solutions, each a little beside itself."""

    name, any_robot = "liar", True

    def _open(self, robot):
        self._true = Uniform(robot, self._judge, 0)

    def one(self, watch, target, start):
        return self._true.one(watch, target, start) + 0.01

    def several(self, watch, target, start, wanted):
        return self._true.several(watch, target, start, wanted) + 0.01

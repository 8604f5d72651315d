# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with the input.

Not finding a solution is a result of `IKSolver.solve`. It is an error only where all solutions of a
pose are asked for, as the exact answer that samplers are judged by.
"""

from .bounds import MOST_ERROR, short


class IKError(Exception):
    """Bad input; the message says what came and what exists, and has no more than `MOST_ERROR`
    characters whatever came."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message if len(message) <= MOST_ERROR else short(message, MOST_ERROR))


class TargetError(IKError):
    """A target pose has the wrong shape, is not finite, or is not a rigid transform.

    Or it has no solution, where all of its solutions are asked for.
    """


class SeedError(IKError):
    """A seed state has the wrong length, is not finite, or lies outside the limits."""


class RobotError(IKError):
    """A robot is unknown, a file of it cannot be read, or it has a joint that is not supported."""


class LinkError(IKError):
    """A link or tip does not exist, is named twice, or is not fixed to where it must be."""


class CheckpointError(IKError):
    """A checkpoint is missing, damaged, not ours, or of another robot."""


class ConfigError(IKError):
    """A configuration has an unknown key or a value out of its range."""


class OptionError(IKError):
    """An argument of a call has a value that does not exist or is out of its range."""


class WorldError(IKError):
    """An obstacle of a `World`, or what is asked of it, does not exist or cannot be so."""


class TrackerError(IKError):
    """A tracker is used by two threads."""


class ClusterError(IKError):
    """A scheduler does not answer, or its workers do not finish their work."""


class OutputError(IKError):
    """A file of results is damaged, is of something else than was asked, or cannot be written."""

# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with the input. Not finding a solution is a result, never an error."""


class IKError(Exception):
    """Bad input; the message says what came and what exists."""


class TargetError(IKError):
    """A target pose has the wrong shape, is not finite, or is not a rigid transform."""


class SeedError(IKError):
    """A seed state has the wrong length, is not finite, or lies outside the limits."""


class RobotError(IKError):
    """A robot is unknown, its URDF does not parse, or it has a joint that is not supported."""


class LinkError(IKError):
    """A link or frame does not exist, or is not rigidly fixed to a tip of the robot."""


class CheckpointError(IKError):
    """A checkpoint is missing, damaged, not ours, or of another robot."""


class ConfigError(IKError):
    """A configuration has an unknown key or a value out of its range."""


class OptionError(IKError):
    """An argument of a call has a value that does not exist or is out of its range."""

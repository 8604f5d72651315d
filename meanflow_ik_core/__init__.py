# SPDX-License-Identifier: Apache-2.0
"""Diverse inverse kinematics: a one-step generative sampler and an exact batched refinement.

    import meanflow_ik_core as mik
    solver = mik.load_solver("panda")
    result = solver.solve(T_base_tip)

Names are imported on first use, so that ``import meanflow_ik_core`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

_HOME = {
    "IKError": "errors",
    "CheckpointError": "errors",
    "ClusterError": "errors",
    "ConfigError": "errors",
    "LinkError": "errors",
    "OptionError": "errors",
    "OutputError": "errors",
    "RobotError": "errors",
    "SeedError": "errors",
    "TargetError": "errors",
    "TrackerError": "errors",
    "WorldError": "errors",
    "Robot": "robot.robot",
    "available_robots": "robot.robot",
    "load_robot": "robot.robot",
    "IKResult": "solving.solver",
    "IKSolver": "solving.solver",
    "load_solver": "solving.solver",
    "SelfMotion": "solving.self_motion",
    "Status": "solving.why",
    "BlockedBy": "solving.tracker",
    "TrackStatus": "solving.tracker",
    "TrackStep": "solving.tracker",
    "Tracker": "solving.tracker",
    "Objective": "objectives",
    "read_objectives": "objectives",
    "SphereModel": "collision.clearance",
    "PathResult": "paths.path",
    "solve_path": "paths.path",
    "ReachabilityMap": "reachability.map",
    "reachability_map": "reachability.measure",
    "World": "world.world",
}

if TYPE_CHECKING:
    from .collision.clearance import SphereModel
    from .errors import (
        CheckpointError,
        ClusterError,
        ConfigError,
        IKError,
        LinkError,
        OptionError,
        OutputError,
        RobotError,
        SeedError,
        TargetError,
        TrackerError,
        WorldError,
    )
    from .objectives import Objective, read_objectives
    from .paths.path import PathResult, solve_path
    from .reachability.map import ReachabilityMap
    from .reachability.measure import reachability_map
    from .robot.robot import Robot, available_robots, load_robot
    from .solving.self_motion import SelfMotion
    from .solving.solver import IKResult, IKSolver, load_solver
    from .solving.tracker import BlockedBy, Tracker, TrackStatus, TrackStep
    from .solving.why import Status
    from .world.world import World

    __version__: str

__all__ = [
    "BlockedBy",
    "CheckpointError",
    "ClusterError",
    "ConfigError",
    "IKError",
    "IKResult",
    "IKSolver",
    "LinkError",
    "Objective",
    "OptionError",
    "OutputError",
    "PathResult",
    "ReachabilityMap",
    "Robot",
    "RobotError",
    "SeedError",
    "SelfMotion",
    "SphereModel",
    "Status",
    "TargetError",
    "TrackStatus",
    "TrackStep",
    "Tracker",
    "TrackerError",
    "World",
    "WorldError",
    "available_robots",
    "load_robot",
    "load_solver",
    "reachability_map",
    "read_objectives",
    "solve_path",
]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    if name == "__version__":  # that of package.xml, which every install records
        from importlib.metadata import version

        return version("meanflow-ik-ros")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])

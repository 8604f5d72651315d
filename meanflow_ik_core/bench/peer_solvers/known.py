# SPDX-License-Identifier: Apache-2.0
"""The peers that there are, by name."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import OptionError
from ...robot.robot import Robot, load_robot
from ..judge import Judge
from .closed_forms import Eaik, FrankIK, Ssik
from .compiled import Kdl, OptIK, RoboPlan, Toolbox, TracIK
from .peer import Searcher
from .stepping import Clik, Mink, Pink

PEERS: dict[str, type[Searcher]] = {
    kind.name: kind
    for kind in (TracIK, Kdl, Toolbox, Clik, Pink, Mink, OptIK, RoboPlan, Ssik, Eaik, FrankIK)
}


def is_panda(robot: Robot) -> bool:
    """Whether peers of one arm know the robot."""
    return robot.fingerprint() == load_robot("panda").fingerprint()


def named_peers(peers: str) -> dict[str, type[Searcher]]:
    """The peers that an option names: "all", "none", or names with commas.

    Raises:
        OptionError: there is no such peer.
    """
    if peers in ("all", "none"):
        return PEERS if peers == "all" else {}
    names = [name.strip() for name in peers.split(",")]
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise OptionError(
            f"peers names {', '.join(unknown)}; peers are {', '.join(PEERS)}, or all or none"
        )
    return {name: PEERS[name] for name in names}


def build_peers(
    kinds: Iterable[type[Searcher]], robot: Robot, judge: Judge, seed: int
) -> tuple[list[Searcher], list[str]]:
    """The peers that are installed, and for each that is not the command that brings it."""
    built, missing = [], []
    for kind in kinds:
        try:
            built.append(kind(robot, judge, seed))
        except ImportError:
            missing.append(kind.install)
    return built, missing


def refuse_missing(peers: str, missing: list[str]) -> None:
    """Nobody misses what only "all" names.

    Raises:
        OptionError: a peer that an option names is not installed.
    """
    if missing and peers not in ("all", "none"):
        raise OptionError(f"not everything of peers={peers} is installed: {', '.join(missing)}")

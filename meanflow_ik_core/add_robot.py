# SPDX-License-Identifier: Apache-2.0
"""Writes the YAML file that makes a URDF a robot, as MoveIt's setup assistant writes an SRDF."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .collision import ALWAYS, SelfCollision
from .errors import OptionError
from .robot import Robot, load_robot
from .robot_file import KEYS, find_robot_file, read_settings, robot_file_path
from .urdf import read_xml

# Pairs that stay farther apart than this in every sample are taken never to touch: chance hides
# a rare touch from the samples, but not the way there. Where two joints or fewer lie between, the
# samples are dense, and pairs that never touch in them are taken at their word.
NEVER_MARGIN = 0.1  # m
_ALWAYS_SAMPLES = 1000


@dataclass(frozen=True)
class RobotDescription:
    """A robot file that is about to be written, and what it was made from."""

    robot: Robot
    settings: Mapping[str, Any]  # keys of the file, without the ignored pairs
    comment: tuple[str, ...]  # lines that the source began with
    srdf: tuple[tuple[str, str], ...]  # pairs that a MoveIt SRDF disables
    always: tuple[tuple[str, str], ...]
    never: tuple[tuple[str, str], ...]
    checked: int  # pairs that are left
    colliding: float  # share of random configurations that collide
    reach: float  # m
    samples: int

    def text(self) -> str:
        """The content of the file."""
        lines = list(self.comment)
        for key in KEYS:
            value = self.settings.get(key)
            if key == "parts" and value:
                lines.extend(["parts:", *(f"  - {_flow(part)}" for part in value)])
            elif value is not None:
                lines.append(f"{key}: {_flow(value)}")
        if not (self.srdf or self.always or self.never):
            return "\n".join([*lines, ""])
        lines.append("# Pairs of links whose touching is not looked for. Neighbours need no entry.")
        lines.append("ignore_collisions:")
        reasons = (
            ("switched off in the SRDF", self.srdf),
            (
                f"touch in {ALWAYS:.0%} or more of {_ALWAYS_SAMPLES} random configurations",
                self.always,
            ),
            (
                f"never touch in {self.samples}: "
                f"{NEVER_MARGIN:g} m apart, or at most 2 joints between",
                self.never,
            ),
        )
        for reason, pairs in reasons:
            if pairs:
                lines.append(f"  # {reason}")
                lines.extend(f"  - [{a}, {b}]" for a, b in pairs)
        return "\n".join([*lines, ""])

    def rows(self) -> list[tuple[str, str]]:
        """What there is to say about the robot, for a table."""
        robot = self.robot
        return [
            ("base", robot.base),
            ("tips", ", ".join(robot.tips)),
            ("joints", str(robot.num_joints)),
            ("held", ", ".join(f"{key}={value:g}" for key, value in robot.held.items()) or "none"),
            ("reach", f"{self.reach:.2f} m, workspace_scale {robot.workspace_scale:g} m"),
            ("pairs switched off in the SRDF", str(len(self.srdf))),
            ("pairs that always touch", str(len(self.always))),
            ("pairs that never touch", str(len(self.never))),
            ("pairs checked", str(self.checked)),
            ("random configurations that collide", f"{self.colliding:.1%}"),
        ]


def describe_robot(
    source: str | Path,
    output: Path,
    base: str | None = None,
    tips: Sequence[str] | None = None,
    held: Mapping[str, float] | None = None,
    srdf: str | Path | None = None,
    samples: int = 10_000,
    seed: int = 0,
) -> RobotDescription:
    """Find out what the robot file of a URDF should say.

    Args:
        source: a URDF, a package:// address of one, or a robot file, whose settings are kept.
        output: where the file will lie; the URDF is named relative to it where that is possible.
        base: link that poses refer to; default: the source's, or the root link.
        tips: links that targets are given for; default: the source's, or the only leaf link.
        held: joints [rad or m] that stay at a value.
        srdf: MoveIt SRDF whose disabled pairs are taken over, but for those that it holds never
            to touch.
        samples: random configurations in which pairs that never touch are looked for.
        seed: of the configurations.

    Raises:
        IKError: the source cannot be read, or is no robot with these options.
    """
    if samples < _ALWAYS_SAMPLES:
        raise OptionError(f"samples is {samples}; it must be at least {_ALWAYS_SAMPLES}")
    file = find_robot_file(source)
    given = {**file.held, **(held or {})}
    robot = load_robot(source, base, tips, given, file.workspace_scale)
    disabled = _read_srdf(Path(srdf)) if srdf is not None else set()
    survey = SelfCollision(robot, ()).survey(_ALWAYS_SAMPLES, samples, NEVER_MARGIN, seed)
    off, always, never = [], [], []
    for pair, touching, near in zip(survey.pairs, survey.touching, survey.near, strict=True):
        if frozenset(pair) in disabled:
            off.append(pair)
        elif touching >= ALWAYS:
            always.append(pair)
        elif not near:
            never.append(pair)
    rng = np.random.default_rng(seed)
    unit = rng.random((samples, robot.num_joints))
    q = robot.lower + unit * (robot.upper - robot.lower)
    reach = float(np.linalg.norm(robot.forward(q)[..., :3, 3], axis=-1).max())
    scale = file.workspace_scale or round(math.ceil(10 * reach) / 10, 1)
    check = SelfCollision(robot, [*off, *always, *never])
    path = robot_file_path(source)
    own = {} if path is None else read_settings(path)
    settings: dict[str, Any] = {
        "base": robot.base, "tips": list(robot.tips), "workspace_scale": scale,
    }  # fmt: skip
    if "parts" in own:
        settings["parts"] = own["parts"]
    else:
        settings["urdf"] = _address(str(own.get("urdf", source)), file.urdf_path, output)
    if robot.held:
        settings["held"] = dict(robot.held)
    return RobotDescription(
        robot=load_robot(source, base, tips, given, scale),
        settings=settings,
        comment=() if path is None else _leading_comment(path),
        srdf=tuple(off),
        always=tuple(always),
        never=tuple(never),
        checked=len(check.pairs()),
        colliding=float(check.in_collision(q[:_ALWAYS_SAMPLES]).mean()),
        reach=reach,
        samples=samples,
    )


def write_robot_file(description: RobotDescription, output: Path, force: bool = False) -> None:
    """Write the file; one that exists is only replaced with ``force``."""
    if output.exists() and not force:
        raise OptionError(f"{output} exists; --force replaces it")
    try:
        output.write_text(description.text())
    except OSError as error:
        raise OptionError(f"cannot write {output}: {error.strerror}") from error


def _flow(value: Any) -> str:
    """YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


def _address(given: str, urdf_path: Path, output: Path) -> str:
    """How the file at ``output`` names the URDF."""
    if "://" in given:
        return given
    target, folder = urdf_path.resolve(), output.resolve().parent
    inside = target.is_relative_to(folder)
    return os.path.relpath(target, folder) if inside else str(target)


def _leading_comment(path: Path) -> tuple[str, ...]:
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line)
    return tuple(lines)


def _read_srdf(path: Path) -> set[frozenset[str]]:
    root = read_xml(path)
    return {
        frozenset((element.get("link1", ""), element.get("link2", "")))
        for element in root.iter("disable_collisions")
        if element.get("reason") != "Never"
    }

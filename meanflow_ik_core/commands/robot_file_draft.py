# SPDX-License-Identifier: Apache-2.0
"""Writes the YAML file that makes a URDF a robot, as MoveIt's setup assistant writes an SRDF."""

import logging
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..collision.self_collision import ALWAYS, SelfCollision
from ..errors import IKError, LinkError, OptionError, RobotError
from ..robot.packages import resolve_uri
from ..robot.robot import Robot, load_robot, robot_from_file
from ..robot.robot_file import (
    KEYS,
    SUFFIXES,
    find_robot_file,
    read_robot_file,
    read_settings,
    robot_file_path,
)
from ..robot.srdf import disabled_pairs
from ..robot.urdf import link_names, listing, read_urdf
from ..whole_file import whole_file

_LOG = logging.getLogger(__name__)

# Pairs that stay farther apart than this in every sample are taken never to touch: chance hides
# a rare touch from the samples, but not the way there. Where two joints or fewer lie between, the
# samples are dense, and pairs that never touch in them are taken at their word.
NEVER_MARGIN = 0.1  # m
_ALWAYS_SAMPLES = 1000
# Pairs that touch in this share of random configurations make most of them invalid.
OFTEN = 0.5


@dataclass(frozen=True)
class PairsDraft:
    """Which pairs of links are left out of the check for self-collision, and why."""

    srdf: tuple[tuple[str, str], ...]  # that a MoveIt SRDF disables
    named: tuple[tuple[str, str], ...]  # that the caller does
    always: tuple[tuple[str, str], ...]
    never: tuple[tuple[str, str], ...]
    checked: int  # pairs that are left
    often: Mapping[tuple[str, str], float]  # of these, share in which they touch, the largest first
    colliding: float  # share of random configurations that collide

    def lines(self, samples: int) -> list[str]:
        """Of the robot file; never touching was looked for in so many configurations."""
        reasons = (
            ("switched off in the SRDF", self.srdf),
            ("switched off by hand", self.named),
            (
                f"touch in {ALWAYS:.0%} or more of {_ALWAYS_SAMPLES} random configurations",
                self.always,
            ),
            (
                f"never touch in {samples}: {NEVER_MARGIN:g} m apart, or at most 2 joints between",
                self.never,
            ),
        )
        lines = ["# Pairs of links whose touching is not looked for. Neighbours need no entry."]
        ignored = any(pairs for _, pairs in reasons)
        lines.append("ignore_collisions:" if ignored else "ignore_collisions: []")
        for reason, pairs in reasons:
            if pairs:
                lines.append(f"  # {reason}")
                lines.extend(f"  - {_flow(list(pair))}" for pair in pairs)
        return lines

    def rows(self) -> list[tuple[str, str]]:
        """For a table."""
        often = ", ".join(f"{a}:{b} {share:.0%}" for (a, b), share in self.often.items())
        return [
            ("pairs switched off in the SRDF", str(len(self.srdf))),
            ("pairs that always touch", str(len(self.always))),
            ("pairs that never touch", str(len(self.never))),
            ("pairs checked", str(self.checked)),
            ("of these touch mostly (--ignore leaves them out)", often or "none"),
            ("random configurations that collide", f"{self.colliding:.1%}"),
        ]


@dataclass(frozen=True)
class RobotFileDraft:
    """A robot file that is about to be written, and what it was made from."""

    robot: Robot
    settings: Mapping[str, Any]  # keys of the file, without the ignored pairs
    comment: tuple[str, ...]  # lines that the source began with
    reach: float  # m
    samples: int
    pairs: "PairsDraft | None"  # None: collision shapes cannot be read

    def text(self) -> str:
        """The content of the file."""
        lines = list(self.comment)
        for key in KEYS:
            value = self.settings.get(key)
            if key == "parts" and value:
                lines.extend(["parts:", *(f"  - {_flow(part)}" for part in value)])
            elif value is not None:
                lines.append(f"{key}: {_flow(value)}")
        if self.pairs is not None:
            lines += self.pairs.lines(self.samples)
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
            *(self.pairs.rows() if self.pairs else [("pairs", "not looked at: see above")]),
        ]


def draft_robot_file(
    source: str | Path,
    output: Path,
    base: str | None = None,
    tips: Sequence[str] | None = None,
    held: Mapping[str, float] | None = None,
    srdf: str | Path | None = None,
    samples: int = 10_000,
    seed: int = 0,
    ignore: Sequence[tuple[str, str]] = (),
) -> RobotFileDraft:
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
        ignore: pairs of links that need no check.

    Raises:
        IKError: the source cannot be read, or is no robot with these options.
    """
    if output.suffix not in SUFFIXES:
        raise OptionError(f"the output is {output}; a robot file ends in {' or '.join(SUFFIXES)}")
    if samples < _ALWAYS_SAMPLES:
        raise OptionError(f"samples is {samples}; it must be at least {_ALWAYS_SAMPLES}")
    file = find_robot_file(source)
    given = {**file.held, **(held or {})}
    robot = load_robot(source, base, tips, given, file.workspace_scale)
    disabled = disabled_pairs(Path(srdf), file.urdf_path) if srdf is not None else set()
    named = {frozenset(pair) for pair in ignore}
    links = link_names(file.urdf_path)
    if unknown := sorted(frozenset().union(*named) - set(links)):
        raise LinkError(
            f"{unknown[0]!r} of the pairs to ignore is no link; "
            f"links are {listing(links, unknown[0])}"
        )
    if read_urdf(file.urdf_path).find("link/collision") is None:
        _LOG.warning(
            "%s has no collision shapes: no check will find that the robot touches itself", source
        )
    rng = np.random.default_rng(seed)
    unit = rng.random((samples, robot.num_joints))
    q = robot.lower + unit * (robot.upper - robot.lower)
    try:
        pairs = _draft_pairs(robot, disabled, named, q, seed)
    except RobotError as error:
        _LOG.warning(
            "pairs of links are not looked at, and self-collision cannot be: %s; make the file "
            "anew with --force once it can be read",
            error,
        )
        pairs = None
    reach = float(np.linalg.norm(robot.forward(q)[..., :3, 3], axis=-1).max())
    scale = file.workspace_scale or round(math.ceil(10 * reach) / 10, 1)
    path = robot_file_path(source)
    own = {} if path is None else read_settings(path)
    settings: dict[str, Any] = {
        "base": robot.base, "tips": list(robot.tips), "workspace_scale": scale,
    }  # fmt: skip
    if path is not None and "parts" in own:
        settings["parts"] = [_moved_part(part, path, output) for part in own["parts"]]
    else:
        urdf = str(own.get("urdf", source))
        origin = resolve_uri(urdf, Path.cwd() / "here" if path is None else path)
        settings["urdf"] = _address(urdf, origin, output)
    if robot.held:
        settings["held"] = dict(robot.held)
    if not file.soft_limits:
        settings["soft_limits"] = False
    return RobotFileDraft(
        robot=load_robot(source, base, tips, given, scale),
        settings=settings,
        comment=() if path is None else _leading_comment(path),
        reach=reach,
        samples=samples,
        pairs=pairs,
    )


def _draft_pairs(
    robot: Robot,
    disabled: Collection[frozenset[str]],
    named: Collection[frozenset[str]],
    q: np.ndarray,
    seed: int,
) -> PairsDraft:
    """See which pairs meet; self-collision is counted in the first of configurations q (N, J).

    Raises:
        RobotError: a collision shape cannot be read.
    """
    survey = SelfCollision(robot, ()).survey(_ALWAYS_SAMPLES, len(q), NEVER_MARGIN, seed)
    off, by_hand, always, never, often = [], [], [], [], {}
    for pair, touching, near in zip(survey.pairs, survey.touching, survey.near, strict=True):
        if frozenset(pair) in disabled:
            off.append(pair)
        elif frozenset(pair) in named:
            by_hand.append(pair)
        elif touching >= ALWAYS:
            always.append(pair)
        elif not near:
            never.append(pair)
        elif touching >= OFTEN:
            often[pair] = float(touching)
    check = SelfCollision(robot, [*off, *by_hand, *always, *never])
    return PairsDraft(
        srdf=tuple(off),
        named=tuple(by_hand),
        always=tuple(always),
        never=tuple(never),
        checked=len(check.pairs()),
        often=dict(sorted(often.items(), key=lambda item: -item[1])),
        colliding=float(check.in_collision(q[:_ALWAYS_SAMPLES]).mean()),
    )


def write_robot_file(draft: RobotFileDraft, output: Path, force: bool = False) -> None:
    """Write the file; one that exists is only replaced with ``force``.

    Raises:
        OptionError: it exists, or cannot be written.
        RobotError: it would not be the robot that was described.
    """
    if output.exists() and not force:
        raise OptionError(f"{output} exists; --force replaces it")
    text = draft.text()
    try:
        robot = robot_from_file(output.stem, read_robot_file(output, text))
    except IKError as error:
        raise RobotError(f"{output} is not written, for it could not be read: {error}") from error
    if robot.fingerprint() != draft.robot.fingerprint():
        raise RobotError(f"{output} is not written, for it would be another robot:\n{text}")
    try:
        with whole_file(output) as draft_file:
            draft_file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OptionError(f"cannot write {output}: {error.strerror}") from error


def _flow(value: Any) -> str:
    """YAML on one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True
    )
    return text.removesuffix("...\n").strip()


def _moved_part(part: Mapping[str, Any], path: Path, output: Path) -> dict[str, Any]:
    """A part in the file at ``path`` as the file at ``output`` names it."""
    if "urdf" not in part:
        return dict(part)
    given = str(part["urdf"])
    return {**part, "urdf": _address(given, resolve_uri(given, path), output)}


def _address(given: str, urdf_path: Path, output: Path) -> str:
    """How the file at ``output`` names the URDF."""
    if "://" in given and _is_found(given, urdf_path, output):
        return given
    target, folder = urdf_path.resolve(), output.resolve().parent
    inside = target.is_relative_to(folder)
    return os.path.relpath(target, folder) if inside else str(target)


def _is_found(address: str, urdf_path: Path, output: Path) -> bool:
    """Whether an address means the same file from elsewhere."""
    try:
        return resolve_uri(address, output).resolve() == urdf_path.resolve()
    except RobotError:
        return False


def _leading_comment(path: Path) -> tuple[str, ...]:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line)
    return tuple(lines)

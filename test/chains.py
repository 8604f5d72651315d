# SPDX-License-Identifier: Apache-2.0
"""URDFs of serial arms, written by the tests that say what is unusual about them."""

from collections.abc import Mapping
from pathlib import Path

LIMIT = '<limit lower="-2.5" upper="2.5" effort="1" velocity="1"/>'
FIVE = {"j1": "0 0 1", "j2": "0 1 0", "j3": "0 1 0", "j4": "0 1 0", "j5": "0 0 1"}
SIX = {**FIVE, "j5": "1 0 0", "j6": "0 1 0"}
_OFFSETS = ("0 0 0.1", "0 0 0.05", "0 0 0.2", "0 0 0.2", "0 0 0.1", "0 0 0.05")


def chain(
    axes: Mapping[str, str], limits: Mapping[str, str] | str = LIMIT,
    kinds: Mapping[str, str] | str = "revolute", attributes: str = "", extra: str = "",
) -> str:  # fmt: skip
    """The text of an arm from link0 to the tip, a joint per axis.

    Args:
        axes: joint to its axis.
        limits: of all joints, or by joint, the others having `LIMIT`; what else a joint holds.
        kinds: of all joints, or by joint, the others being revolute.
        attributes: of <robot>.
        extra: at the end of the file.
    """
    names = [f"link{index}" for index in range(len(axes))] + ["tip"]
    parts = [f'<link name="{name}"/>' for name in names]
    for index, (joint, axis) in enumerate(axes.items()):
        limit = limits if isinstance(limits, str) else limits.get(joint, LIMIT)
        kind = kinds if isinstance(kinds, str) else kinds.get(joint, "revolute")
        parts.append(
            f'<joint name="{joint}" type="{kind}"><origin xyz="{_OFFSETS[index]}"/>'
            f'<parent link="{names[index]}"/><child link="{names[index + 1]}"/>'
            f'<axis xyz="{axis}"/>{limit}</joint>'
        )
    return f'<robot name="arm"{attributes}>{"".join(parts)}{extra}</robot>'


def write(folder: Path, text: str | bytes, name: str = "arm.urdf") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path

# SPDX-License-Identifier: Apache-2.0
"""The arms that are shown, as files."""

import csv
import io
import json

from .session import Answer, Session


def as_json(session: Session, answer: Answer) -> bytes:
    """Targets and arms, the solid one first, with their errors; matrices are T_base_tip."""
    content = {
        "robot": session.robot.name,
        "base": session.robot.base,
        "tips": session.robot.tips,
        "targets": answer.targets.tolist(),
        "joint_names": session.robot.joint_names,
        "joint_positions": answer.joint_positions.tolist(),
        "position_error": answer.position_error.tolist(),
        "orientation_error": answer.orientation_error.tolist(),
        "valid": answer.valid.tolist(),
    }
    return (json.dumps(content, allow_nan=False, indent=1) + "\n").encode()


def as_csv(session: Session, answer: Answer) -> bytes:
    """One line for each arm, the solid one first: joints, then errors of each tip."""
    tips = session.robot.tips
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        [
            *session.robot.joint_names,
            *(f"position_error {tip}" for tip in tips),
            *(f"orientation_error {tip}" for tip in tips),
            "valid",
        ]
    )
    for row in zip(
        answer.joint_positions.tolist(), answer.position_error.tolist(),
        answer.orientation_error.tolist(), answer.valid.tolist(), strict=True,
    ):  # fmt: skip
        writer.writerow([*row[0], *row[1], *row[2], int(row[3])])
    return text.getvalue().encode()

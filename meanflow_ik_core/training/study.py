# SPDX-License-Identifier: Apache-2.0
"""Training recipes side by side: train with every settings file of a folder, and judge them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..evaluation.evaluate import evaluate
from ..robot.robot import Robot
from .config import load_train_config
from .report import ProgressBar, no_progress_bar
from .trainer import train

logger = logging.getLogger(__name__)

COLUMNS = (
    "recipe", "samples [M]", "time [s]", "position [mm]", "rotation [deg]", "recall [rad]",
    "spread [rad]", "valid after 3 steps [%]", "MMD^2 raw", "MMD^2 refined", "TV refined",
)  # fmt: skip
_DEGREES = 57.29577951308232
_JUDGED = "judged.json"


def study(
    robot: Robot,
    folder: str | Path,
    out_dir: str | Path,
    poses: int = 300,
    detail_poses: int = 100,
    progress: ProgressBar = no_progress_bar,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Train with every .yaml file of a folder, and judge what came out on the same fresh poses.

    A study that was interrupted goes on where it stopped.

    Args:
        robot: to train for.
        folder: of settings files, see `TrainConfig`; a file's name is the name of its recipe.
        out_dir: gets a folder per recipe, with its run and its judgement.
        poses: of the raw errors.
        detail_poses: of the refined samples and, for a robot with a closed form, of MMD^2.
        progress: what shows how far a training is.
        device: of the training.

    Returns:
        A record per recipe, in the order of their names; plain data in m, rad, seconds and shares.

    Raises:
        ConfigError: there is no settings file in the folder, or one is wrong.
    """
    paths = sorted(Path(folder).glob("*.yaml"))
    if not paths:
        raise ConfigError(f"{folder} holds no .yaml file")
    configs = {path.stem: load_train_config(path) for path in paths}
    records = []
    for name, config in configs.items():
        run_dir = Path(out_dir) / name
        result = train(robot, config, run_dir, progress=progress, device=device)
        if not result.finished:
            break
        judged = run_dir / _JUDGED
        record = json.loads(judged.read_text()) if judged.is_file() else {}
        if record.get("steps") != result.step:
            found = evaluate(
                robot, checkpoint=result.checkpoint, poses=poses, detail_poses=detail_poses
            )
            record = {
                "recipe": name,
                "steps": result.step,
                "samples": result.samples,
                "seconds": round(result.seconds, 1),
                "metrics": found.metrics,
                "success_after_steps": {str(k): v["valid"] for k, v in found.after_steps.items()},
                "draws": {} if found.exact is None else found.exact.draws,
            }
            judged.write_text(json.dumps(record, indent=1) + "\n")
        logger.info("%s: judged", name)
        records.append(record)
    return records


def table(records: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows with `COLUMNS`."""
    rows = []
    for record in records:
        metrics, draws = record["metrics"], record["draws"]

        def of(draw: str, name: str, draws: dict[str, Any] = draws) -> str:
            return f"{draws[draw][name]:.3f}" if draw in draws else "-"

        rows.append(
            (
                record["recipe"],
                f"{record['samples'] / 1e6:.1f}",
                f"{record['seconds']:.0f}",
                f"{1e3 * metrics['position_error_mean']:.0f}",
                f"{_DEGREES * metrics['orientation_error_mean']:.1f}",
                f"{metrics['recall_median']:.2f}",
                f"{metrics['spread']:.2f}",
                f"{1e2 * record['success_after_steps']['3']:.0f}",
                of("raw", "mmd_squared"),
                of("refined", "mmd_squared"),
                of("refined", "branch_total_variation"),
            )
        )
    return rows


def read_records(path: Path) -> list[dict[str, Any]]:
    """Records that `meanflow-ik study --output` wrote.

    Raises:
        ConfigError: the file is missing or holds something else.
    """
    try:
        records = json.loads(path.read_text())
        table(records)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a record of `meanflow-ik study`: {error}") from error
    return records


def markdown(records: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *table(records)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines[1] = lines[1].replace(" ", "")
    return "\n".join(lines)

# SPDX-License-Identifier: Apache-2.0
"""Records of measurements: the JSON files that `meanflow-ik bench --output` writes."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import ConfigError
from .result import BenchResult


def read_records(folder: Path) -> list[BenchResult]:
    """All records of a folder, in the order of their files' names.

    Raises:
        ConfigError: the folder has no records, or a file is not one.
    """
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            records.append(BenchResult.from_dict(json.loads(path.read_text())))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} is not a record of `meanflow-ik bench`: {error}") from error
    if not records:
        raise ConfigError(f"{folder} has no records (*.json) of `meanflow-ik bench --output`")
    return records


def records_of(folder: Path, suite: str) -> list[BenchResult]:
    """Those of one suite; errors as of `read_records`."""
    return [record for record in read_records(folder) if record.bench == suite]

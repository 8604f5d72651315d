# SPDX-License-Identifier: Apache-2.0
"""The command line, run in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from meanflow_ik_core.commands.app import main


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., Done]:
    """The entry point with these arguments, in this process."""

    def run_with(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["meanflow-ik", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        printed = capsys.readouterr()
        return Done(int(exit_info.value.code or 0), printed.out, printed.err)

    return run_with

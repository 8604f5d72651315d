# SPDX-License-Identifier: Apache-2.0
"""What of MoveIt's planning scene could not be taken, and why."""

from __future__ import annotations

from typing import NamedTuple

from meanflow_ik_core.bounds import MOST_PROBLEMS, short


class Problem(NamedTuple):
    """Why something could not be taken: a code of `WorldCodes`, and a line.

    The error itself would keep alive all that its traceback refers to.
    """

    code: int
    text: str


class SceneProblems:
    """Problems by kind and id; no more than `MOST_PROBLEMS` are kept, the others are counted.

    Whose those are that are counted is not known: they are over when all of their kind are.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Problem] = {}
        self._counted: dict[str, int] = {}  # by kind
        self._last = Problem(0, "")  # that was counted

    def __len__(self) -> int:
        return len(self._kept) + sum(self._counted.values())

    def copy(self) -> SceneProblems:
        other = SceneProblems()
        other._kept, other._counted = dict(self._kept), dict(self._counted)
        other._last = self._last
        return other

    def add(self, kind: str, id: str, code: int, error: Exception) -> None:
        """Keep why something could not be taken, in place of what was so before."""
        problem = Problem(code, short(error))
        if (kind, id) in self._kept or len(self._kept) < MOST_PROBLEMS:
            self._kept[kind, id] = problem
        else:
            self._counted[kind] = self._counted.get(kind, 0) + 1
            self._last = problem

    def drop(self, kind: str, id: str) -> None:
        """Forget the problem of what has been taken, or removed."""
        self._kept.pop((kind, id), None)

    def forget(self, kind: str) -> None:
        """Forget the problems of a kind, of which there is nothing any more."""
        self._kept = {key: problem for key, problem in self._kept.items() if key[0] != kind}
        self._counted.pop(kind, None)

    def clear(self) -> None:
        self._kept, self._counted = {}, {}

    def since(self, before: SceneProblems) -> list[str]:
        """Lines about the problems that came after `copy` made `before`."""
        known = before._kept
        lines = [one.text for key, one in self._kept.items() if known.get(key) is not one]
        return lines if self._last is before._last else [*lines, self._last.text]

    def summary(self) -> Problem:
        """The first of the problems, of which there must be some, and how many more there are."""
        code, text = next(iter(self._kept.values()), self._last)
        return Problem(code, f"{text} (and {len(self) - 1} more)" if len(self) > 1 else text)

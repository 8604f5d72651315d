# SPDX-License-Identifier: Apache-2.0
"""A peer in a process of its own, so that none that crashes or hangs ends a measurement."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from ...robot.robot import load_robot
from ..judge import Judge
from .peer import EXACT, Peer, Stopwatch, Tolerance

_OPENING = 60.0  # s
_MOST_DEATHS = 3  # and hangs, after which a peer is asked no more
_PRELOADED = (f"{__package__}.known", f"{__package__}.ours")


class Answer(NamedTuple):
    """What a peer found, and the time it took."""

    found: Any  # (S, J), or a list of them for a batch; None where it failed to answer
    busy: float  # s of the processor
    clock: float  # s


class InProcess:
    """A peer that is asked in this process."""

    def __init__(self, peer: Peer):
        self.peer, self.name = peer, peer.name
        self.watch = Stopwatch()  # of the last question

    def has(self, method: str) -> bool:
        return hasattr(self.peer, method)

    def ask(
        self, method: str, tolerance: Tolerance, questions: Sequence[Sequence[Any]]
    ) -> list[Answer]:
        """The answers of a method of the peer, held to a tolerance, to each of the arguments."""
        if self.peer.tolerance != tolerance:
            self.peer.hold_to(tolerance)
        return [self._answer(method, arguments) for arguments in questions]

    def _answer(self, method: str, arguments: Sequence[Any]) -> Answer:
        self.watch = watch = Stopwatch()
        found = getattr(self.peer, method)(watch, *arguments)
        return Answer(found, watch.busy, watch.clock)


class Worker:
    """A peer that is asked in a process of its own.

    A question that it fails, by an exception, its death, or no answer in time, is answered by
    None; the last two took as long as anybody waits. `faults` counts such failures by what
    happened.

    Args:
        kind: of the peer.
        robot: its name.
        seed: of the peer.
        patience: s, how long an answer is waited for.

    Raises:
        ImportError: the peer's package is not installed.
    """

    def __init__(self, kind: type[Peer], robot: str, seed: int, patience: float):
        self.name = kind.name
        self.faults: dict[str, int] = {}
        self._kind, self._arguments, self._patience = kind, (robot, seed), patience
        self._deaths = 0
        self._start()

    def has(self, method: str) -> bool:
        return hasattr(self._kind, method)

    def ask(
        self, method: str, tolerance: Tolerance, questions: Sequence[Sequence[Any]]
    ) -> list[Answer]:
        """The answers of a method of the peer, held to a tolerance, to each of the arguments."""
        answers: list[Answer] = []
        while len(answers) < len(questions):
            if self._deaths >= _MOST_DEATHS:
                answers.append(self._failed("was asked no more"))
                continue
            if not self._process.is_alive():
                self._start()
                continue
            answers += self._answers(method, tolerance, questions[len(answers) :])
        return answers

    def _answers(
        self, method: str, tolerance: Tolerance, questions: Sequence[Sequence[Any]]
    ) -> list[Answer]:
        """The answers until one fails so that the process is gone."""
        answers: list[Answer] = []
        try:
            for arguments in questions:
                self._connection.send((method, tolerance, *arguments))
            for _ in questions:
                if not self._connection.poll(self._patience):
                    raise TimeoutError
                answer, fault = self._connection.recv()
                if fault is not None:
                    self._count(fault)
                answers.append(answer)
        except TimeoutError:
            self._bury()
            answers.append(self._failed(f"gave no answer in {self._patience:g} s"))
        except (EOFError, OSError):
            answers.append(self._failed(f"died: {self._bury()}"))
        return answers

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        # Imported once, for all of them.
        context.set_forkserver_preload(list(_PRELOADED))
        self._connection, other = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(other, self._kind, *self._arguments), daemon=True
        )
        self._process.start()
        other.close()
        try:
            said = self._connection.recv() if self._connection.poll(_OPENING) else "it hangs"
        except EOFError:
            said = self._bury()
        if isinstance(said, ImportError):
            self.close()
            raise said
        if said is not None:
            self.close()
            self._deaths = _MOST_DEATHS
            self._count(f"does not open: {said}")

    def _bury(self) -> str:
        """What its process ended with."""
        self._deaths += 1
        self._process.join(1.0)
        code = self._process.exitcode
        self.close()
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit {code}"

    def _failed(self, fault: str) -> Answer:
        self._count(fault)
        return Answer(None, self._patience, self._patience)

    def _count(self, fault: str) -> None:
        self.faults[fault] = self.faults.get(fault, 0) + 1


def _serve(connection: Connection, kind: type[Peer], robot: str, seed: int) -> None:
    """Answer questions until nobody asks any more."""
    # Nothing that a peer prints belongs to the output.
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        loaded = load_robot(robot)
        asked = InProcess(kind(loaded, Judge(loaded), seed))
        asked.peer.warm_up()
        asked.peer.hold_to(EXACT)
    except ImportError as error:
        connection.send(ImportError(str(error)))
        return
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
        return
    connection.send(None)
    while True:
        try:
            question = connection.recv()
        except EOFError:
            return
        try:
            method, tolerance, *arguments = question
            said = *asked.ask(method, tolerance, [arguments]), None
        except Exception as error:
            took = asked.watch.busy, asked.watch.clock
            said = Answer(None, *took), f"raised {type(error).__name__}: {error}"
        connection.send(said)

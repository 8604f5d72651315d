# SPDX-License-Identifier: Apache-2.0
"""What every service and topic needs: the solver, one caller at a time, and an answer to all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from meanflow_ik_core.errors import IKError
from meanflow_ik_core.solving.result import joined_results
from meanflow_ik_core.tensors import set_num_threads
from meanflow_ik_core.world.world import World
from meanflow_ik_ros.current_state import CurrentState
from meanflow_ik_ros.fair_lock import FairLock
from meanflow_ik_ros.messages.errors import Codes, RequestError, response_from_error
from meanflow_ik_ros.node_world import STILL, NodeWorld
from meanflow_ik_ros.parameters import FIELDS, NodeParameters
from meanflow_ik_ros.process import ProcessNode
from meanflow_ik_ros.rare_log import RareLog, trace
from meanflow_ik_ros.request_statistics import RequestStatistics, outcome_from_response
from meanflow_ik_ros.turn import SLICE_S, Turn

if TYPE_CHECKING:
    from meanflow_ik_core.robot.robot import Robot
    from meanflow_ik_core.solving.solver import IKResult, IKSolver
    from meanflow_ik_ros.messages.query import IKQuery
    from meanflow_ik_ros.messages.task import Task
    from meanflow_ik_ros.messages.tips import FrameLookup

SHUTTING_DOWN = "the node is shutting down"
NOT_ACTIVE = "the node is not active; activate it first"
# A request may wait for a transform as long as the parameter tf_timeout allows at most.
LONGEST_DEACTIVATION_S = FIELDS["tf_timeout"].metadata["high"] + 2.0
# While shutting down: how long without a request until the queue counts as empty, and at most.
QUIET_S = 0.1
LONGEST_DRAIN_S = 1.0
# With objectives the answer to a target depends on those that are solved with it.
_AT_ONCE_WITH_OBJECTIVES = 16
_MOST_AT_ONCE = 128  # targets of a slice; of more the solver looks at the clock as it goes


class Desk:
    """Serves as long as its node lives; robot and solver come and go with the configuration.

    node: where topics and services are opened; gives them its name, clock and log.
    parameters: replaced as a whole when one changes; a request keeps the set it began with.
    solver_lock: held by whoever uses the solver, and while the node closes.
    configured: whether there are a robot, a solver and a current state.
    active, closing: requests are refused unless active, and once closing.
    activations: how often it has become active.
    """

    robot: Robot
    solver: IKSolver
    current_state: CurrentState
    world: NodeWorld

    def __init__(self, node: ProcessNode, parameters: NodeParameters) -> None:
        self.node = node
        self.parameters = parameters
        self.log = RareLog(node.get_logger())
        self.statistics = RequestStatistics()
        self.solver_lock = FairLock()
        self.configured = self.active = self.closing = False
        self.activations = 0
        self._deactivating = False
        self._requests = threading.Condition()  # of what follows, and of `active`
        self._in_progress = 0
        self._random = np.random.default_rng()
        self._empty_frame_id_said = False

    def set_solver(
        self,
        solver: IKSolver,
        frame_lookup: FrameLookup,
        latest_frame: Callable[[str, float], np.ndarray],
    ) -> None:
        """Take the solver of a configuration, and what looks frames up in it."""
        self.robot, self.solver = solver.robot, solver
        self.current_state = CurrentState(solver.robot, self.node.get_logger())
        self._frame_lookup, self._latest_frame = frame_lookup, latest_frame
        self.world = NodeWorld(
            solver.robot, self.current_state, frame_lookup, self.parameters.cloud_topics
        )
        self.configured, self._deactivating = True, False

    @property
    def state_name(self) -> str:
        """Of the managed node: unconfigured, inactive, active, finalized or a transition's."""
        return self.node._state_machine.current_state[1]

    def T_base_frame(self, frame_id: str, stamp: Any) -> np.ndarray:
        """Pose (4, 4) of a frame; an empty name is the base, with a warning the first time."""
        return self._frame_lookup(frame_id, stamp) if frame_id else self._base()

    def T_base_frame_now(self, frame_id: str, max_age_s: float) -> np.ndarray:
        """Pose (4, 4) of a frame as it is known now, which waits for nothing."""
        return self._latest_frame(frame_id, max_age_s) if frame_id else self._base()

    def _base(self) -> np.ndarray:
        if not self._empty_frame_id_said:
            self._empty_frame_id_said = True
            self.node.get_logger().warning(
                f"a target has an empty frame_id: taken as {self.robot.base!r} (said once)"
            )
        return np.eye(4)

    def seed(self, parameters: NodeParameters) -> int:
        """Of the random numbers of one request."""
        return parameters.seed if parameters.seed >= 0 else int(self._random.integers(2**31))

    def obstacles(
        self, wanted: bool, avoid_self_collision: bool, parameters: NodeParameters
    ) -> World | None:
        """The world, where a request wants it avoided and there is anything in it.

        Where only self-collision is to be avoided, one that says where joints stand that are not
        solved for.

        Raises:
            RequestError: a frame of an object is not known, or a cloud is too old.
        """
        world = self.world.of_request(parameters) if wanted else None
        if world is None and avoid_self_collision:
            return self.world.without_objects()
        return world

    def check_links(self, task: Task) -> None:
        """Raise a RequestError where a link is not where the robot's file has it on its tip."""
        if task.links is None or not (elsewhere := self.world.joints_elsewhere()):
            return
        for link in task.links:
            tip, T_tip_link = self.robot.tip_offset(link)
            T_now = self.world.placement(self.robot.tips[tip], link)
            if np.abs(T_now - T_tip_link).max() > STILL:
                raise RequestError(
                    Codes.INVALID_LINK_NAME,
                    f"{link!r} is not where the robot's file has it on {self.robot.tips[tip]!r}: "
                    f"joint_states or ~/apply_world say that {elsewhere}",
                )

    def solve(
        self, query: IKQuery, parameters: NodeParameters, max_rounds: int | None = None
    ) -> IKResult:
        """Call the solver, once it is free; many targets in slices, with others between them and
        between the parts of a search.

        A timeout is for all targets together, and so they are one slice.

        Raises:
            RequestError: it takes longer than the node's limit, the node is about to end, or a link
                is not where the robot's file has it.
        """
        self.check_links(query.task)
        targets, seed = query.targets @ query.T_tip_link, self.seed(parameters)
        size = len(targets) if parameters.timeout else 1
        if query.task.objectives:
            size = max(size, _AT_ONCE_WITH_OBJECTIVES)
        if isinstance(query.world, World):  # the same for all slices
            query = replace(query, world=query.world.snapshot())
        first, found = 0, []
        with self.turn(parameters) as turn:
            if parameters.num_threads:
                set_num_threads(parameters.num_threads)
            while first < len(targets):
                turn.give_way(aside=True)
                before = turn.held()
                some = targets[first : first + size]
                found.append(self._solve(query, some, parameters, seed, max_rounds, turn))
                first += len(some)
                if query.task.objectives:
                    continue
                seconds = turn.held() - before
                within = int(len(some) * SLICE_S / max(seconds, 1e-9))
                size = max(1, min(4 * size, within, _MOST_AT_ONCE))
        return joined_results(found)

    def _solve(
        self, query: IKQuery, targets: np.ndarray, parameters: NodeParameters, seed: int,
        max_rounds: int | None, turn: Turn,
    ) -> IKResult:  # fmt: skip
        return self.solver.solve(
            **query.task.goal(targets),
            objectives=query.task.objectives,
            num_samples=query.num_samples,
            max_solutions=query.max_solutions,
            seed_state=query.seed_state,
            seed=seed,
            select=parameters.select,
            timeout=parameters.timeout or None,
            position_tolerance=parameters.position_tolerance,
            orientation_tolerance=parameters.orientation_tolerance,
            error_weight=parameters.error_weight,
            distance_weight=parameters.distance_weight,
            avoid_self_collision=query.avoid_self_collision,
            world=query.world,
            max_rounds=max_rounds,
            approximate=query.approximate,
            time_limit=max(turn.left(), 1e-6),
            between=turn.give_way,
        )

    def turn(self, parameters: NodeParameters) -> Turn:
        """A turn at the solver, within the node's limit."""
        return Turn(self.solver_lock, parameters.time_limit, self._why_end)

    def _why_end(self) -> str:
        """Why what is being solved has to end now; empty: it need not."""
        if self.closing:
            return SHUTTING_DOWN
        return "the node is being deactivated" if self._deactivating else ""

    def attempt(self, source: str, respond: Callable[[float], Any], response: Any) -> Any:
        """What `respond` makes of the time at which it starts, or a response that says why not.

        Args:
            source: name of the service or topic, for the log.
            respond: takes a time of `time.perf_counter`; may raise anything.
            response: of the type of the answer to a request that fails.
        """
        started = time.perf_counter()
        failed = False
        try:
            with self._accepted():
                response = respond(started)
        except IKError as error:
            self.log.warning(source, f"refused: {error}")
            response = response_from_error(error, response)
        except Exception as error:
            failed = True
            self.log.error(source, f"failed: {trace()}")
            response = response_from_error(error, response)
        seconds = time.perf_counter() - started
        self.statistics.add(outcome_from_response(response, seconds, failed))
        return response

    @contextmanager
    def _accepted(self) -> Iterator[None]:
        """What `deactivate` waits for; RequestError where no request may begin."""
        with self._requests:
            if self.closing:
                raise RequestError(Codes.FAILURE, SHUTTING_DOWN)
            if not self.active:
                raise RequestError(Codes.FAILURE, NOT_ACTIVE)
            self._in_progress += 1
        try:
            yield
        finally:
            with self._requests:
                self._in_progress -= 1
                self._requests.notify_all()

    def activate(self) -> None:
        """Take requests from now on."""
        with self._requests:
            self.active, self._deactivating = True, False
            self.activations += 1

    def deactivate(self) -> bool:
        """Refuse what comes from now on, and wait for requests in progress.

        Of these, what is being solved ends with its next slice.

        Returns:
            Whether all have ended within `LONGEST_DEACTIVATION_S`.
        """
        with self._requests:
            self.active, self._deactivating = False, True
            return self._requests.wait_for(lambda: not self._in_progress, LONGEST_DEACTIVATION_S)

    def drain(self) -> None:
        """Wait until no more requests come, none is in progress and clients have read the answers.

        `LONGEST_DRAIN_S` at most.
        """
        began = quiet_since = time.monotonic()
        while (now := time.monotonic()) < min(quiet_since + QUIET_S, began + LONGEST_DRAIN_S):
            quiet_since = max(quiet_since, now if self._in_progress else self.node.quiet_since())
            time.sleep(0.1 * QUIET_S)

# SPDX-License-Identifier: Apache-2.0
"""Plan to a pose with OMPL's RRT-Connect, which goes to whichever solution is easy to reach."""

import numpy as np

import meanflow_ik_core as mik

try:
    from ompl import base, geometric, util
except ImportError as error:
    raise SystemExit(f"{error}: pip install ompl") from None

solver = mik.load_solver("panda")
robot = solver.robot
world = mik.World(robot, padding=0.01)
world.add_box("wall", size=(0.4, 0.02, 0.5), xyz=(0.5, 0, 0.25))

start = np.array([0.9, 0.3, 0.0, -2.0, 0.0, 2.3, 0.8])  # left of the wall
target = np.diag([1.0, -1.0, -1.0, 1.0])  # the hand points down
target[:3, 3] = 0.45, -0.25, 0.3  # right of it
found = solver.solve(
    target[None], max_solutions=20, seed_state=start, world=world, avoid_self_collision=True, seed=0
)

space = base.RealVectorStateSpace(robot.num_joints)
bounds = base.RealVectorBounds(robot.num_joints)
bounds.low, bounds.high = robot.lower.tolist(), robot.upper.tolist()
space.setBounds(bounds)


def joints_of(state: base.State) -> np.ndarray:
    return np.array([state[joint] for joint in range(robot.num_joints)])


def state_of(q: np.ndarray) -> base.State:
    state = space.allocState()
    state[0 : len(q)] = q.tolist()
    return state


def is_free(state: base.State) -> bool:
    q = joints_of(state)
    return not (world.in_collision(q) or solver.self_collision.in_collision(q[None])[0])


util.setLogLevel(util.LogLevel.LOG_WARN)
setup = geometric.SimpleSetup(space)
setup.setStateValidityChecker(is_free)
setup.getSpaceInformation().setStateValidityCheckingResolution(0.001)  # of some 14 rad
setup.setStartState(state_of(start))
states = base.GoalStates(setup.getSpaceInformation())
for q in found.joint_positions[0][found.valid[0]]:
    states.addState(state_of(q))
setup.setGoal(states)
setup.setPlanner(geometric.RRTConnect(setup.getSpaceInformation()))
if not setup.solve(20.0):
    raise SystemExit("no path was found")
setup.simplifySolution(1.0)
path = np.array([joints_of(state) for state in setup.getSolutionPath().getStates()])
print(f"{len(path)} waypoints to one of {found.valid.sum()} goals:\n{path.round(3)}")

# SPDX-License-Identifier: Apache-2.0
"""How much of anything is taken from outside; each bound with its reason.

What is more than its bound is refused before it is converted, copied or repeated in a message.
docs/security.md lists the bounds. What the operator of a node may want to set is a parameter of
the node instead.
"""

import re
from collections.abc import Callable
from pathlib import Path

# A line that a terminal and a log show whole, with room for what it is about.
MOST_MESSAGE = 290  # characters of a message about something refused
MOST_ERROR = 2000  # characters of any message: a listing of a robot's links, not of a file
MOST_TRACE = 4000  # characters of a traceback: some forty frames

MOST_PATH = 4096  # characters: the longest of Linux
# Names of links, joints and frames; ROS itself allows no more for a topic.
MOST_NAME = 255  # characters
# A mapping with the arguments of any objective needs some 200 characters.
MOST_OBJECTIVE_TEXT = 4096  # characters
# All objectives that exist, each several times; more than these cost seconds per solve.
MOST_OBJECTIVES = 32
# A humanoid with two hands has about 100 joints. States of whole cells are larger.
MOST_JOINT_NAMES = 4096  # in a joint state
MOST_TIPS = 64
MOST_TOPICS = 64  # in a parameter, each with a subscription of its own
# The node has some fifty. rclpy takes .1 ms for each that is set, and 5 ms where all are at once.
MOST_PARAMETERS = 100  # in a request
# Of a path. Parameters of the node bound it further.
MOST_WAYPOINTS = 10_000_000

# YAML of objectives, robots and settings is flat; worlds have lists of corners of objects.
MOST_YAML_DEPTH = 16
# Robots list a pair of links per line: 1 MB are 25,000 pairs.
MOST_YAML_BYTES = 1 << 20
MOST_YAML_SCALAR = MOST_PATH  # characters. Python refuses longer integers
# Of what is no number, as keys and names are. They are a few for each obstacle, and two for each
# pair of links; 100,000 take 1 s, which a million numbers of a mesh may.
MOST_YAML_TEXTS = 100_000
# A million corners of meshes with their triangles, as text.
MOST_WORLD_BYTES = 256 << 20
# Of a file of a world. Pinocchio keeps a table of all shapes for each pair of them with a link:
# 2,000 take 1 s and 0.9 GB where they are first asked about, and 4,000 take 8 s.
MOST_OBSTACLES = 2000

# Of a node's world, as messages bring it. Each makes a pair with every link that moves, of 7 us and
# 13 kB, twice where links have hulls that differ from them; and Pinocchio keeps a table of all
# shapes for each, which takes .25 s of so many, and .5 s of 1,000.
MOST_SHAPES = 800
# Of those that are attached.
MOST_ATTACHED = 100
# Of attached ones with all: 18 beside 780, or 100 beside 50.
MOST_ATTACHED_PAIRS = 15_000
# That the operations of a message add, move, attach or detach, each as often as they do: such take
# some .1 ms. All that there may be can be added and moved, or attached.
MOST_CHANGES = 2 * MOST_SHAPES
# That a message may ask for: grids of distances around new meshes and clouds, spheres for what is
# attached, and the pairs of all shapes. 40 large meshes, or 8 attached ones, or 38 attached
# cylinders; half of that beside as many objects as there may be.
MOST_WORK_MS = 1000
# Of all meshes of a message. With as many triangles rclpy takes .2 s to read them, and Coal's
# trees .25 s of such that lie all over one another.
MOST_MESSAGE_CORNERS = 50_000  # and triangles
# Of these, of convex ones: a hull takes 20 us for each corner, where all are corners of it.
MOST_HULL_CORNERS = 25_000
# Of all meshes of a world. Coal takes 1.2 kB for each triangle, and ~/get_world .9 s to answer.
MOST_WORLD_CORNERS = 200_000  # and triangles
# Of meshes, that ~/world_markers shows after every change: rclpy takes 20 us for each.
MOST_SHOWN_TRIANGLES = 20_000
# Of all grids of distances, one around each mesh and cloud: 25 ns and, twice over, 4 bytes each. A
# mesh of 1 cm has 80,000, one of 0.3 m and more up to 900,000.
MOST_GRID_POINTS = 40_000_000
# Allowed ones, of a message and of a world: sixty links by three hundred objects.
MOST_CONTACTS = 20_000
MOST_MATRIX_NAMES = 2000  # of links and objects, in MoveIt's matrix of those that may touch
# Of MoveIt's planning scene, each for an object that could not be taken: as many as there may be
# objects. More are counted, and are over only when all of the scene has come.
MOST_PROBLEMS = MOST_SHAPES
# The largest depth image of cameras in use, 3840 x 2160, has fewer.
MOST_POINTS = 10_000_000  # of a cloud
# That the points of a cloud, or an octomap, fill: of 2 cm, 80 square metres of surfaces.
MOST_CELLS = 200_000
# Nodes of an octomap: of 200,000 occupied cells, and the free ones between them.
MOST_OCTOMAP_BYTES = 5 << 20

# The largest URDF of example-robot-data has 0.2 MB, 3,900 elements and 4,100 attributes. A URDF is
# read, and copied, seven times; 100,000 elements take .8 s.
MOST_XML_BYTES = 4 << 20
MOST_XML_PARTS = 100_000  # elements and attributes
MOST_XML_DEPTH = 64  # a URDF nests 6 deep; parsers and copies call themselves
# The largest robots have some 200 links. What parses URDFs calls itself for every link of a chain,
# and ends the process somewhere beyond 4000.
MOST_LINKS = 1000
# Degrees of freedom. Pinocchio takes 32 bytes times their cube for what it computes: 0.5 GB here.
MOST_FREEDOMS = 256

# Meshes for collision have up to some 100,000 triangles; a hull of a million takes seconds.
MOST_MESH_BYTES = 256 << 20
MOST_TRIANGLES = 1_000_000
MOST_CORNERS = 1_000_000
# Farther corners leave nothing of a millimetre in float32, and Coal's hulls end the process.
# So are lengths, paddings and places of obstacles.
FARTHEST_CORNER = 1e5  # m
# Of targets: what is farther than the sun is a mistake, and its square soon no float32.
FARTHEST_TARGET = 1e12  # m
# 16,000 turns, which no joint makes. Sine and cosine of much more are those of rounding.
FARTHEST_JOINT = 1e5  # rad or m
# Loading takes milliseconds per megabyte; some damaged files never end.
MESH_SECONDS = 10.0
MESH_MEMORY = 4 << 30  # bytes of address space of what loads meshes

# Networks of the largest kinds that are trained here have some 50 million weights.
MOST_CHECKPOINT_BYTES = 1 << 30

# Of a configuration that is told in an answer, the deepest ones.
MOST_TOUCHES = 10
# Pairs of shapes that are near, looked at for that in one answer: each takes 14 us. A further
# configuration is looked at only while they are fewer.
MOST_NEAR_PAIRS = 10_000
# Compared to find the one that was meant: difflib takes .3 ms for each of two letters.
MOST_COMPARED = 100  # names, those nearest by the alphabet
MOST_COMPARED_NAME = 64  # characters; longer names are not compared
# Of ids that an answer lists that refuses; with its message that is less than 2 kB.
MOST_LISTED_BYTES = 700

_SPACE = re.compile(r"\s+")


def short(text: object, most: int = MOST_MESSAGE) -> str:
    """A text as one line of at most so many characters, its beginning and its end."""
    given = text if isinstance(text, str) else str(text)
    if len(given) > 4 * most:  # what is left out is not looked at
        given = given[: 2 * most] + given[-2 * most :]
        line = _SPACE.sub(" ", given).strip()
        line = line if len(line) > most else line + " " * (most + 1 - len(line))
    else:
        line = _SPACE.sub(" ", given).strip()
    if len(line) <= most:
        return line
    tail = most // 3
    return f"{line[: most - tail - 5]} ... {line[-tail:]}"


def is_file(path: Path) -> bool:
    """Whether a file exists; a name that is too long, or holds a zero, is that of none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def check_file_size(path: Path, most: int, error: Callable[[str], Exception]) -> None:
    """Refuse a file that is larger than so many bytes, before it is read.

    Raises:
        Exception: of the given class; the file is too large, or is none.
    """
    try:
        if not path.is_file():
            raise error(f"cannot read {short(path)}: it is no file that exists")
        size = path.stat().st_size
    except (OSError, ValueError) as problem:  # a name that is too long, or holds a zero
        raise error(f"cannot read {short(path)}: {problem}") from problem
    if size > most:
        raise error(f"{short(path)} has {size} bytes; {most} are the most that is read")

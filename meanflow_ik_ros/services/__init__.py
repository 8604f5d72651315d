# SPDX-License-Identifier: Apache-2.0
"""What the node is asked: one service per module.

Each module has a function `service`, which takes the desk; `node.SERVICES` lists those functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Service(NamedTuple):
    """A service as the node opens it.

    name: relative to the node, with its ~.
    answer: takes a request and an empty response, returns the response; never raises.
    """

    kind: type
    name: str
    answer: Callable[[Any, Any], Any]

# SPDX-License-Identifier: Apache-2.0
"""How far long work has come, said to a logger that nobody hears unless a program asks.

for pose in tracked(poses, "solving"):
    ...
"""

import logging
import time
from collections.abc import Iterator
from typing import Any

LOGGER = logging.getLogger("meanflow_ik_core.progress")
_EVERY_S = 0.2


def tracked(items: Any, what: str) -> Iterator[Any]:
    """The items, each said when its turn comes, though not more often than five times a second.

    Args:
        items: what a loop goes through, of known length.
        what: what is done to them.
    """
    said = -float("inf")
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - said >= _EVERY_S:
            LOGGER.debug("%s: %d of %d", what, done + 1, len(items))
            said = now
        yield item


def stage(what: str) -> None:
    """Say what begins."""
    LOGGER.debug("%s", what)

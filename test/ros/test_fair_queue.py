# SPDX-License-Identifier: Apache-2.0
"""A queue gives one item of each owner in turn."""

import pytest

from meanflow_ik_ros.fair_queue import FairQueue


def test_owners_come_in_turn_and_their_items_in_order():
    queue = FairQueue()
    for owner, item in [("a", 1), ("a", 2), ("a", 3), ("b", 4), (None, 5), ("b", 6)]:
        queue.put(owner, item)
    assert [queue.get() for _ in range(4)] == [1, 4, 5, 2]
    queue.put("c", 7)
    assert [queue.get() for _ in range(3)] == [6, 3, 7]
    assert not queue
    with pytest.raises(KeyError):
        queue.get()

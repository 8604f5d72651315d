# SPDX-License-Identifier: Apache-2.0
"""A queue that is fair to those who put something in."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class FairQueue(Generic[_Item]):
    """Gives one item of each owner in turn; those of one owner in the order in which they came."""

    def __init__(self) -> None:
        self._items: OrderedDict[Hashable, deque[_Item]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._items)

    def put(self, owner: Hashable, item: _Item) -> None:
        self._items.setdefault(owner, deque()).append(item)

    def get(self) -> _Item:
        """The next item; KeyError where there is none."""
        owner, items = self._items.popitem(last=False)
        item = items.popleft()
        if items:
            self._items[owner] = items
        return item

# SPDX-License-Identifier: Apache-2.0
"""Which pairs may touch and which may not, of what was told."""

from collections.abc import Iterator, Mapping


class Decisions:
    """By a link, or something attached, and what it may touch; kept by the second of the two.

    What is told of one name is found without a look at all pairs.
    """

    def __init__(self) -> None:
        self._by_obstacle: dict[str, dict[str, bool]] = {}
        self._own: set[str] = set()  # obstacles whose entries no copy shares
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return pair[0] in self.of(pair[1])

    def items(self) -> Iterator[tuple[tuple[str, str], bool]]:
        """Pairs, and whether they may touch."""
        for obstacle, told in self._by_obstacle.items():
            for link, allowed in told.items():
                yield (link, obstacle), allowed

    def of(self, obstacle: str) -> Mapping[str, bool]:
        """By link, whether it may touch an obstacle."""
        return self._by_obstacle.get(obstacle, {})

    def tell(self, link: str, obstacle: str, allowed: bool) -> None:
        """Keep whether a pair may touch, in place of what was told of it before."""
        told = self._own_entries(obstacle)
        self._count += link not in told
        told[link] = allowed

    def forget(self, name: str) -> None:
        """Drop what was told of a name, be it the first or the second of a pair."""
        self._count -= len(self._by_obstacle.pop(name, {}))
        self._own.discard(name)
        for obstacle in [one for one, told in self._by_obstacle.items() if name in told]:
            del self._own_entries(obstacle)[name]
            self._count -= 1

    def copy(self) -> "Decisions":
        """Of its own, with the same content; entries are copied when one of both changes them."""
        other = Decisions()
        other._by_obstacle, other._count = dict(self._by_obstacle), self._count
        self._own = set()
        return other

    def _own_entries(self, obstacle: str) -> dict[str, bool]:
        if obstacle not in self._own:
            self._by_obstacle[obstacle] = dict(self.of(obstacle))
            self._own.add(obstacle)
        return self._by_obstacle[obstacle]

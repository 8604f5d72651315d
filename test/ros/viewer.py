# SPDX-License-Identifier: Apache-2.0
"""What RViz does with marker arrays, without the drawing."""

from visualization_msgs.msg import Marker, MarkerArray


class Viewer:
    """Keeps what is shown by namespace and id, and what an array made it build and drop."""

    def __init__(self):
        self.shown: dict[tuple[str, int], Marker] = {}
        self.built: list[tuple[str, int]] = []
        self.dropped: list[tuple[str, int]] = []

    def take(self, array: MarkerArray) -> None:
        keys = [(marker.ns, marker.id) for marker in array.markers]
        assert len(set(keys)) == len(keys), "RViz: multiple markers had the same ns and id"
        self.built, self.dropped = [], []
        for key, marker in zip(keys, array.markers, strict=True):
            if marker.action == Marker.DELETEALL:
                self.dropped += self.shown
                self.shown.clear()
            elif marker.action == Marker.DELETE:
                if self.shown.pop(key, None):
                    self.dropped.append(key)
            else:
                assert marker.action == Marker.ADD
                if key not in self.shown or self.shown[key].type != marker.type:
                    self.built.append(key)
                self.shown[key] = marker

    def namespaces(self, start: str = "") -> set[str]:
        return {ns for ns, _ in self.shown if ns.startswith(start)}

    def texts(self) -> list[str]:
        lines = sorted(key for key in self.shown if key[0] == "legend")
        return [self.shown[key].text for key in lines]

    def seen(self) -> MarkerArray:
        return MarkerArray(markers=list(self.shown.values()))

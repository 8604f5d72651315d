# SPDX-License-Identifier: Apache-2.0
"""YAML from outside, of which only plain values are read.

Aliases, of which a short text makes gigabytes, and tags are refused, and so is what is too long or
too deep.
"""

from pathlib import Path
from typing import Any

import yaml

from .bounds import (
    MOST_YAML_BYTES,
    MOST_YAML_DEPTH,
    MOST_YAML_SCALAR,
    MOST_YAML_TEXTS,
    check_file_size,
    short,
)
from .errors import IKError

# The compiled one is ten times faster, and comes with all usual builds of PyYAML.
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BASE):
    """A safe loader that refuses a key which comes twice, of which the last one would count, and
    numbers with underscores."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                raise yaml.YAMLError(
                    f"it has {short(key.value, 40)!r} twice (line {key.start_mark.line + 1})"
                )
            keys.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> Any:
        return super().construct_yaml_int(_without_underscore(node))

    def construct_yaml_float(self, node: Any) -> Any:
        return super().construct_yaml_float(_without_underscore(node))


def _without_underscore(node: Any) -> Any:
    if "_" in node.value:
        raise yaml.YAMLError(
            f"it has the number {short(node.value, 40)} with an underscore "
            f"(line {node.start_mark.line + 1})"
        )
    return node


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


_OPENING = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_OF_NUMBERS = tuple("0123456789+-.")  # how one begins
_CLOSING = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def plain_from_text(
    text: str, source: str, error: type[IKError], most: int = MOST_YAML_BYTES
) -> Any:
    """The value of a text: mappings, lists, texts, numbers, booleans, dates, None.

    Args:
        text: YAML.
        source: what it is, for the message.
        error: the class of what is raised.
        most: characters of it.

    Raises:
        IKError: of the given class; it is no YAML, or has aliases, tags, or more of something than
            `bounds` allow.
    """
    if len(text) > most:
        raise error(f"{source} has {len(text)} characters; {most} are the most")
    try:
        _check_events(text)
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as problem:
        # Of numbers and dates that are none ValueError comes, without a class of PyYAML's.
        raise error(f"{source} is not YAML: {short(problem)}") from None


def plain_from_file(path: Path, error: type[IKError], most: int = MOST_YAML_BYTES) -> Any:
    """As `plain_from_text`, of a file in UTF-8."""
    check_file_size(path, most, error)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        raise error(f"cannot read {path}: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not YAML: {problem}") from problem
    return plain_from_text(text, str(path), error, most)


def _check_events(text: str) -> None:
    depth = texts = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, _CLOSING):
            depth -= 1
            continue
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MOST_YAML_SCALAR:
            what = f"has a value of {len(event.value)} characters, {MOST_YAML_SCALAR} are the most"
        elif (
            isinstance(event, yaml.ScalarEvent)
            and event.value[:1] not in _OF_NUMBERS
            and ((texts := texts + 1) > MOST_YAML_TEXTS)
        ):
            what = f"has more than {MOST_YAML_TEXTS} values and keys that are no numbers"
        elif isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            what = "has an alias or anchor, which is not read"
        elif getattr(event, "tag", None) is not None:
            what = f"has the tag {short(event.tag, 40)}, which is not read"
        elif isinstance(event, _OPENING) and (depth := depth + 1) > MOST_YAML_DEPTH:
            what = f"is nested more than {MOST_YAML_DEPTH} deep"
        else:
            continue
        raise yaml.YAMLError(f"it {what} (line {event.start_mark.line + 1})")

# SPDX-License-Identifier: Apache-2.0
"""Reads XML in whatever encoding and with whatever default namespace it is written."""

import codecs
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from ..bounds import (
    MOST_PATH,
    MOST_XML_BYTES,
    MOST_XML_DEPTH,
    MOST_XML_PARTS,
    check_file_size,
    short,
)
from ..errors import RobotError

# The byte order mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")


def read_xml(path: Path) -> ElementTree.Element:
    """The root element, or a `RobotError` that says why there is none.

    Names in the root's namespace come without it.
    """
    check_file_size(path, MOST_XML_BYTES, RobotError)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RobotError(f"cannot read {path}: {error.strerror}") from error
    root = parse_xml(_decoded(data, path).lstrip(), str(path))
    if root.tag.startswith("{"):
        namespace = root.tag[: root.tag.index("}") + 1]
        for element in root.iter():
            if isinstance(element.tag, str):
                element.tag = element.tag.removeprefix(namespace)
    return root


def _decoded(data: bytes, path: Path) -> str:
    """The text, by its byte order mark or the encoding that it declares, which is else UTF-8."""
    declared = _DECLARED.match(data)
    marked = (encoding for mark, encoding in _MARKS if data.startswith(mark))
    encoding = next(marked, None) or (declared[1].decode() if declared else "utf-8")
    try:
        return data.decode(encoding)
    except LookupError as error:
        raise RobotError(f"{path} is in the encoding {encoding!r}, which is unknown") from error
    except UnicodeError as error:
        raise RobotError(f"{path} is not in the encoding {encoding!r}: {error}") from error


def parse_xml(text: str, source: str) -> ElementTree.Element:
    """The root element, or a `RobotError` where XML is not well-formed, or too large in any way."""
    parser = ElementTree.XMLParser(target=_CountingBuilder(source))
    try:
        root = ElementTree.fromstring(text, parser)
    except (ElementTree.ParseError, ValueError) as error:
        raise RobotError(f"{source} is not well-formed XML: {error}") from error
    _check_elements(root, source)
    return root


class _CountingBuilder(ElementTree.TreeBuilder):
    """Stops where there are too many elements and attributes, before all of them are made."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source, self._parts = source, 0

    def start(self, tag: str, attrs: dict[str, str], /) -> ElementTree.Element:
        self._parts += 1 + len(attrs)
        if self._parts > MOST_XML_PARTS:
            raise RobotError(
                f"{self._source} has more than {MOST_XML_PARTS} elements and attributes, "
                "which is the most that is read"
            )
        return super().start(tag, attrs)


def _check_elements(root: ElementTree.Element, source: str) -> None:
    """RobotError where attributes are too long, or elements too deep for what copies them."""
    level = [root]
    for _ in range(MOST_XML_DEPTH):
        for element in level:
            for key, value in element.attrib.items():
                if len(value) > MOST_PATH:
                    raise RobotError(
                        f"the {short(key, 40)} of an element of {source} has {len(value)} "
                        f"characters; {MOST_PATH} are the most"
                    )
        level = [child for element in level for child in element]
        if not level:
            return
    raise RobotError(f"{source} nests elements more than {MOST_XML_DEPTH} deep")

# SPDX-License-Identifier: Apache-2.0
"""Settings: default, bounds, choices and meaning of each in one place, a field of a dataclass.

@dataclass(frozen=True)
class Lamp:
    power: float = setting(5.0, "electrical power [W]", low=0.0, high=60.0)

    def __post_init__(self) -> None:
        check_settings(self)
"""

import dataclasses
import difflib
import math
import reprlib
from collections.abc import Collection, Iterable
from typing import Any

from .bounds import MOST_NAME
from .errors import ConfigError

_MOST_HINTS = 20  # unknown names that others are suggested for
_shown = reprlib.Repr()  # looks at the beginning of a value alone
_shown.maxstring = _shown.maxother = _shown.maxlong = MOST_NAME


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float = math.inf,
    low_open: bool = False,
    choices: tuple[str, ...] = (),
    longest: int = MOST_NAME,
    most: int = 0,
    read_only: bool = False,
) -> Any:
    """Field of a dataclass whose metadata holds the arguments after the default, by their names.

    Args:
        default: its type is the type of the setting: bool, int, float, str, or tuple, which is a
            list of texts.
        help: what the setting means, with its unit.
        low: least value; every number needs one.
        high: greatest value; it may be infinite, the setting may not.
        low_open: whether ``low`` itself is too little.
        choices: all values of a text; empty: any.
        longest: characters of a text, or of each one of a list.
        most: texts of a list.
        read_only: whether the setting keeps its first value.
    """
    metadata = {
        "help": help, "low": low, "high": high, "low_open": low_open, "choices": choices,
        "longest": longest, "most": most, "read_only": read_only,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def check_settings(settings: Any) -> None:
    """Check every field of a dataclass of settings.

    Raises:
        ConfigError: a value has not the type of its default, or is out of its bounds or choices.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        _check_length(field, value)
        if expected := _contradiction(field, value):
            raise ConfigError(f"{field.name} is {_shown.repr(value)}{expected}")


def check_names(names: Iterable[Any], known: Collection[str], kind: str, source: str = "") -> None:
    """Refuse names that do not exist.

    Args:
        names: as they came.
        known: names that exist.
        kind: what the names are of, for the message: "setting", "parameter".
        source: where the names came from, for the message.

    Raises:
        ConfigError: a name is unknown; the message has the nearest names, or all where none is
            near.
    """
    unknown = sorted(str(name) for name in names if name not in known)
    if not unknown:
        return
    near = [
        match
        for name in unknown[:_MOST_HINTS]
        for match in difflib.get_close_matches(name[:MOST_NAME], known, n=1)
    ]
    hint = f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(known)}"
    where = f" in {source}" if source else ""
    raise ConfigError(f"unknown {kind} {', '.join(unknown)}{where}; {hint}")


def _check_length(field: dataclasses.Field[Any], value: Any) -> None:
    """Refuse long texts, and lists of many or long ones."""
    texts, longest, most = {field.name: value}, field.metadata["longest"], field.metadata["most"]
    if isinstance(value, tuple):
        if len(value) > most:
            raise ConfigError(f"{field.name} has {len(value)} entries; {most} are the most")
        texts = {f"{field.name}[{place}]": text for place, text in enumerate(value)}
    for name, text in texts.items():
        if isinstance(text, str) and len(text) > longest:
            raise ConfigError(f"{name} has {len(text)} characters; {longest} are the most")


def _contradiction(field: dataclasses.Field[Any], value: Any) -> str:
    """What the field expects instead of the value, as the end of a sentence; empty: it fits."""
    kind, about = type(field.default), field.metadata
    if kind is tuple:
        texts = type(value) is tuple and all(type(entry) is str for entry in value)
        return "" if texts else ", expected a list of texts"
    if type(value) is not kind:
        return f" ({type(value).__name__}), expected {kind.__name__}"
    if about["choices"] and value not in about["choices"]:
        return f", expected one of {', '.join(about['choices'])}"
    low, high = about["low"], about["high"]
    if low is None:
        return ""
    if about["low_open"]:
        bounds = f"above {low}" + (f" and at most {high}" if high < math.inf else "")
    else:
        bounds = f"{low} to {high}" if high < math.inf else f"at least {low}"
    if kind is float and not math.isfinite(value):
        return f", expected a finite number, {bounds}"
    above = value > low if about["low_open"] else value >= low
    return "" if above and value <= high else f", expected {bounds}"

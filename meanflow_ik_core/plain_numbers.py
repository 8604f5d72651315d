# SPDX-License-Identifier: Apache-2.0
"""Numbers from texts of people and files, without the underscores that Python allows in them.

Python takes 1_0 for 10, which is more likely a slip for 1.0 or -1 0.
"""

from typing import Any


def plain_float(value: Any) -> float:
    """As `float`; of a text with an underscore ValueError."""
    return float(_without_underscore(value))


def plain_int(value: Any) -> int:
    """As `int`; of a text with an underscore ValueError."""
    return int(_without_underscore(value))


def _without_underscore(value: Any) -> Any:
    if isinstance(value, str) and "_" in value:
        raise ValueError(f"{value!r} has an underscore, which belongs in no number")
    return value

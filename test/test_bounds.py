# SPDX-License-Identifier: Apache-2.0
"""The bounds that docs/security.md lists are those of the code, all of them."""

import re
from pathlib import Path

from meanflow_ik_core import bounds

PAGE = Path(__file__).parents[1] / "docs" / "security.md"
ROW = re.compile(r"^\| `([A-Z_]+)` \| ([\d,]+)( MB| GB)? \|", re.MULTILINE)
UNITS = {"": 1, " MB": 1 << 20, " GB": 1 << 30}


def test_the_page_lists_every_bound_with_its_value():
    listed = {
        name: int(number.replace(",", "")) * UNITS[unit]
        for name, number, unit in ROW.findall(PAGE.read_text())
    }
    own = {
        name: value for name, value in vars(bounds).items() if re.fullmatch("[A-Z][A-Z_]+", name)
    }
    assert listed == own

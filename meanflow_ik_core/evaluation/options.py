# SPDX-License-Identifier: Apache-2.0
"""What `evaluate` can be asked for; torch is not needed to say no."""

from ..errors import OptionError


def check_options(
    num_calls: int, poses: int, samples: int, detail_poses: int, exact: bool | None
) -> None:
    """OptionError where a number is out of its range, or options contradict each other."""
    for name, number in (("num_calls", num_calls), ("poses", poses), ("samples", samples)):
        if number < 1:
            raise OptionError(f"{name} is {number!r}; it must be at least 1")
    if detail_poses < 0:
        raise OptionError(f"detail_poses is {detail_poses}; it must not be negative")
    if exact and detail_poses < 1:
        raise OptionError("the exact answer needs detail_poses of at least 1")

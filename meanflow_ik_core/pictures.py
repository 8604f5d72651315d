# SPDX-License-Identifier: Apache-2.0
"""Pictures by matplotlib (extra ``demo``), which is imported when one is drawn."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .errors import OptionError


def check_picture(path: str | Path) -> None:
    """Refuse, before the work, a picture that cannot be drawn.

    Raises:
        OptionError: matplotlib is not installed, or does not write files of this suffix.
    """
    if not isinstance(path, str | Path):
        raise OptionError(f"the picture is {path!r}; it must be a path")
    # Of .pgf matplotlib knows only with LaTeX whether it can write it.
    suffixes = sorted({*new_figure().canvas.get_supported_filetypes()} - {"pgf"})
    if Path(path).suffix[1:].lower() not in suffixes:
        raise OptionError(f"the picture is {path}; its suffix is one of {', '.join(suffixes)}")


def new_figure(**options: Any) -> Any:
    """A figure of matplotlib with room for all its labels.

    Args:
        options: of matplotlib's `Figure`.

    Raises:
        OptionError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError("a picture needs matplotlib: pip install '.[demo]'") from error
    return Figure(layout="constrained", **options)


def save_figure(figure: Any, path: str | Path, dots_per_inch: float) -> None:
    """Write a figure.

    Raises:
        OptionError: the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=dots_per_inch)
    except (OSError, ValueError) as error:
        raise OptionError(f"cannot write the picture {path}: {error}") from error


def draw_pictures(
    drawings: Mapping[str, Callable[[Any], None]], folder: Path, dots_per_inch: float,
    **options: Any,
) -> list[Path]:  # fmt: skip
    """Draw pictures into a folder, which is made when it does not exist.

    Args:
        drawings: by file name, what draws a figure.
        folder: of the files.
        dots_per_inch: of the files.
        options: of matplotlib's `Figure`.

    Returns:
        The files written.

    Raises:
        OptionError: matplotlib is not installed, or the folder cannot be written.
    """
    paths = []
    for name, draw in drawings.items():
        figure = new_figure(**options)
        draw(figure)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OptionError(f"cannot write plots to {folder}: {error}") from error
        save_figure(figure, folder / name, dots_per_inch)
        paths.append(folder / name)
    return paths

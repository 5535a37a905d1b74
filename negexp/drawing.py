"""How figures look, and a figure as the bytes of a file. Importing this module imports matplotlib.

Arms differ in line style and marker as well as in colour, so a grey printout is readable.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito 2008
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "negexp",  # the same figure gives the same file
    "svg.fonttype": "path",
}


def lay_out(figure: Figure) -> None:
    """Compute the slow layout of a figure once, for all files that are made of it."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)


def render(figure: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of an `svg` or `png` file. The same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=120, metadata=metadata)
    return buffer.getvalue()


def line_style(number: int) -> dict[str, Any]:
    """Return colour, line style and marker of the arm of that number."""
    place = number % len(COLOURS)
    # with more arms than colours, a colour returns with another line style
    shift = (number + number // len(COLOURS)) % len(LINES)
    return {"color": COLOURS[place], "linestyle": LINES[shift], "marker": MARKERS[shift], "markersize": 4}


def by_epoch(series: Sequence[pd.Series]) -> pd.DataFrame:
    """Return values by epoch (rows) and run (columns). Shorter runs end in NaN, so means end there."""
    return pd.concat([one.reset_index(drop=True) for one in series], axis=1).astype(float)


def draw_band(axis: Axes, table: pd.DataFrame, number: int, label: str) -> None:
    """Draw the mean of the runs of an arm (epochs, runs) as a line, and one standard deviation around it."""
    mean, deviation = table.mean(axis=1, skipna=False), table.std(axis=1, skipna=False)
    style = line_style(number)
    axis.plot(mean.index, mean, label=label, **style)
    if table.shape[1] > 1:
        axis.fill_between(mean.index, mean - deviation, mean + deviation, color=style["color"], alpha=0.15, linewidth=0)


def legend_of_arms(figure: Figure, axis: Axes, names: Sequence[str]) -> None:
    """Name the arms above a figure, unless there is one only."""
    if len(names) > 1:
        handles, labels = axis.get_legend_handles_labels()
        if not labels:
            handles = [axis.plot([], [], **line_style(number))[0] for number in range(len(names))]
            labels = list(names)
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(names), 3))

"""The figure of the report: distances of counters and negatives."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from negexp.drawing import COLOURS, STYLE, render

Floats = NDArray[np.float64]

BINS = 40


def draw_distances(positive: Floats, ledger: pd.DataFrame) -> bytes:
    """Return a PNG: distances of counters, mined and drawn negatives, and each negative's minus its counter's."""
    mined = ledger["mined"].to_numpy()
    distance = ledger["distance"].to_numpy()
    difference = distance - ledger["positive_distance"].to_numpy()
    drawn = distance[~mined]
    groups: dict[str, Floats] = {"counters": positive, "mined negatives": distance[mined], "drawn negatives": drawn}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        edges = np.histogram_bin_edges(np.concatenate([positive, distance]), bins=BINS)
        for (label, values), colour, line in zip(groups.items(), COLOURS, ("-", "--", ":"), strict=False):
            if len(values):
                style: Any = {"histtype": "step", "color": colour, "linestyle": line, "linewidth": 1.4}
                share = np.full(len(values), 100 / len(values))
                left.hist(values, bins=edges, weights=share, label=f"{label} ({len(values)})", **style)
        left.set_xlabel("distance to the point")
        left.set_ylabel("share (%)")
        figure.legend(loc="outside upper center", ncols=3)
        right.hist(difference, bins=BINS, weights=np.full(len(difference), 100 / len(difference)), color="#8c8c8c")
        right.axvline(0, color="black", linewidth=0.8)
        right.set_xlabel("a negative's distance minus its counter's (below 0: nearer)")
    return render(figure, "png")

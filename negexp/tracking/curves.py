"""Figures of what changes from epoch to epoch: of one run for its trackers, of the arms of a sweep for its report.

Importing this module imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from negexp.drawing import STYLE, by_epoch, draw_band, lay_out, legend_of_arms, line_style, render
from negexp.evaluation.metrics import Metrics
from negexp.evaluation.monitor import Monitor
from negexp.evaluation.pools import STAGES

NEGATIVES = {
    "negative_distance": "distance to the negative",
    "nearer_share": "nearer than the gold (%)",
    "neighbour_rank": "rank of mined negatives",
    "negatives_replaced": "replaced since last epoch (%)",
    "gold_copy_share": "copies of the gold (%)",
    "debate_share": "from the pair's debate (%)",
    "theme_share": "from its theme, other debate (%)",
    "elsewhere_share": "from elsewhere (%)",
}


class Curves(NamedTuple):
    """A run's rows of metrics.csv (one for each epoch), and the validation metrics of the model before training."""

    epochs: pd.DataFrame
    untrained: Metrics


class ArmCurves(NamedTuple):
    """The curves of the runs of an arm, and its name."""

    name: str
    runs: Sequence[Curves]


def run_figures(rows: Sequence[Mapping[str, Any]], untrained: Metrics, monitor: str) -> dict[str, bytes]:
    """Return the figures of one run as PNG: `learning` and `negatives`; none if it has no epoch.

    rows: those of metrics.csv. untrained: the validation metrics before training. monitor: `trainer.monitor`.
    """
    if not rows:
        return {}
    arm = ArmCurves("", [Curves(pd.DataFrame(rows), untrained)])
    with mpl.rc_context(STYLE):
        figures = {"learning": draw_learning([arm], Monitor.parse(monitor)), "negatives": draw_negatives([arm])}
        for figure in figures.values():
            lay_out(figure)
    return {name: render(figure, "png") for name, figure in figures.items()}


def draw_learning(arms: Sequence[ArmCurves], monitor: Monitor) -> Figure:
    """Draw the monitored validation metric after each epoch for both stages, and the random rate below."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[3, 1], squeeze=False)
    for column, stage in enumerate(STAGES):
        for number, arm in enumerate(arms):
            curves = [_with_untrained(run, monitor._replace(stage=stage)) for run in arm.runs]
            draw_band(axes[0, column], by_epoch(curves) * 100, number, arm.name)
            rates = by_epoch([run.epochs["random_rate"] for run in arm.runs])
            rates.index = rates.index + 1
            axes[1, column].plot(rates.index, rates.mean(axis=1, skipna=False), **line_style(number))
        axes[0, column].set_title(stage)
        axes[1, column].set_xlabel("epochs trained")
        axes[1, column].set_ylim(-0.05, 1.05)
        axes[1, column].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel(f"validation {monitor.task} {monitor.metric} (%)")
    axes[1, 0].set_ylabel("random rate")
    legend_of_arms(figure, axes[0, 0], [arm.name for arm in arms])
    return figure


def draw_negatives(arms: Sequence[ArmCurves]) -> Figure:
    """Draw the negatives of each epoch: distances beside those of the golds (thin lines), ranks, and origins."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots(2, 4, sharex=True)
    for axis, (column, label) in zip(axes.flat, NEGATIVES.items(), strict=True):
        for number, arm in enumerate(arms):
            table = by_epoch([_negative_column(run.epochs, column) for run in arm.runs])
            draw_band(axis, table * (100 if label.endswith("(%)") else 1), number, arm.name)
            if column == "negative_distance":
                positive = by_epoch([run.epochs["positive_distance"] for run in arm.runs]).mean(axis=1, skipna=False)
                axis.plot(positive.index, positive, color=line_style(number)["color"], linewidth=0.8, alpha=0.7)
        axis.set_ylabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if label.endswith("(%)"):
            axis.set_ylim(-4, 104)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    legend_of_arms(figure, axes[0, 0], [arm.name for arm in arms])
    return figure


def epoch_values(epochs: pd.DataFrame, monitor: Monitor) -> pd.Series:
    """Return a metric of each epoch (epochs,); NaN without that stage, as for a cross-encoder before it is trained."""
    values: pd.Series = epochs.get(monitor.column("validation"), pd.Series(np.nan, index=epochs.index))
    return values


def _with_untrained(run: Curves, monitor: Monitor) -> pd.Series:
    """Return a run's validation scores after 0, 1, 2, ... epochs of training."""
    stages = run.untrained[monitor.protocol]
    untrained = monitor.value(run.untrained) if monitor.stage in stages else np.nan
    return pd.Series([untrained, *epoch_values(run.epochs, monitor)])


def _negative_column(epochs: pd.DataFrame, column: str) -> pd.Series:
    if column == "elsewhere_share":
        return 1 - epochs["debate_share"].astype(float) - epochs["theme_share"].astype(float)
    return epochs[column]

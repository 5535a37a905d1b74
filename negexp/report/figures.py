"""The figures. Arms differ in line style, marker and hatch as well as in colour, so a grey printout is readable."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from negexp.evaluation.monitor import Monitor
from negexp.evaluation.pools import PROTOCOLS
from negexp.evaluation.ranking import STAGES
from negexp.report.arms import Arm, Comparison
from negexp.report.compare import QUERY_SUBSETS, Numbers
from negexp.report.runs import Run
from negexp.tracking.run_folder import PHASES

COLOURS = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito 2008
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "xxxx", "....", "////", "\\\\", "----")
GREYS = ("#f2f2f2", "#404040", "#bfbfbf", "#8c8c8c", "#d9d9d9", "#6b6b6b")

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


def draw_figures(comparison: Comparison, numbers: Numbers) -> dict[str, tuple[str, Figure]]:
    """Return caption and figure of each figure of a comparison, by name."""
    leaks = (numbers.arms["queries"] != "all").any()
    makers = {name: make for name, make in FIGURES.items() if leaks or name != "leakage"}
    with mpl.rc_context(STYLE):
        figures = {name: make(comparison, numbers) for name, make in makers.items()}
        for _, figure in figures.values():
            figure.draw_without_rendering()  # compute the slow layout once, for both file formats
            figure.set_layout_engine(None)
    return figures


def render(figure: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of an `svg` or `png` file. The same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=120, metadata=metadata)
    return buffer.getvalue()


def _learning(comparison: Comparison, _: Numbers) -> tuple[str, Figure]:
    protocol, task, metric = (comparison.monitor[place] for place in (0, 2, 3))
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[3, 1], squeeze=False)
    for column, stage in enumerate(STAGES):
        monitor = comparison.monitor._replace(stage=stage)
        for number, arm in enumerate(comparison.arms):
            curves = [_with_untrained(run, monitor) for run in arm.runs]
            draw_band(axes[0, column], by_epoch(curves) * 100, number, arm.name)
            rates = by_epoch([run.epochs["random_rate"] for run in arm.runs])
            rates.index = rates.index + 1
            axes[1, column].plot(rates.index, rates.mean(axis=1, skipna=False), **line_style(number))
        axes[0, column].set_title(stage)
        axes[1, column].set_xlabel("epochs trained")
        axes[1, column].set_ylim(-0.05, 1.05)
        axes[1, column].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel(f"validation {task} {metric} (%)")
    axes[1, 0].set_ylabel("random rate")
    _legend(figure, axes[0, 0], comparison.arms)
    return (
        f"Top: validation {task} {metric} ({protocol}) after each epoch, mean over seeds; the band is one standard "
        "deviation. Bottom: the share of pairs whose negatives are drawn at random. 0 epochs means before training.",
        figure,
    )


def _negatives(comparison: Comparison, _: Numbers) -> tuple[str, Figure]:
    panels = {
        "negative_distance": "distance to the negative",
        "nearer_share": "nearer than the gold (%)",
        "neighbour_rank": "rank of mined negatives",
        "negatives_replaced": "replaced since last epoch (%)",
        "gold_copy_share": "copies of the gold (%)",
        "debate_share": "from the pair's debate (%)",
        "theme_share": "from its theme, other debate (%)",
        "elsewhere_share": "from elsewhere (%)",
    }
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots(2, 4, sharex=True)
    for axis, (column, label) in zip(axes.flat, panels.items(), strict=True):
        for number, arm in enumerate(comparison.arms):
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
    _legend(figure, axes[0, 0], comparison.arms)
    return (
        "The negatives of each epoch when they were sampled: means over pairs, then over seeds. Thin lines without "
        "markers in the first panel show the distance to the gold counter.",
        figure,
    )


def _tasks(comparison: Comparison, numbers: Numbers) -> tuple[str, Figure]:
    protocol = comparison.monitor[0]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    table = numbers.arms
    table = table[(table["protocol"] == protocol) & (table["queries"] == numbers.queries)]
    table = table[table["metric"] == "accuracy@1"]
    width = 0.8 / len(comparison.arms)
    for axis, stage in zip(axes, STAGES, strict=True):
        tasks = list(dict.fromkeys(table["task"]))
        for number, arm in enumerate(comparison.arms):
            rows = table[(table["stage"] == stage) & (table["arm"] == arm.name)].set_index("task").loc[tasks]
            x = np.arange(len(tasks)) + (number - (len(comparison.arms) - 1) / 2) * width
            errors = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
            style = line_style(number) | {"linestyle": "none"}
            axis.errorbar(x, rows["mean"] * 100, yerr=np.abs(np.stack(errors)) * 100, capsize=2, **style)
        axis.set_xticks(np.arange(len(tasks)), tasks)
        axis.set_title(stage)
        axis.set_xlabel("task")
    axes[0].set_ylabel("test accuracy@1 (%)")
    _legend(figure, axes[0], comparison.arms)
    return f"Test accuracy@1 of every task ({protocol}, {QUERY_SUBSETS[numbers.queries]}) with 95 % intervals.", figure


def _seconds(comparison: Comparison, _: Numbers) -> tuple[str, Figure]:
    figure = Figure(figsize=(8, 0.9 + 0.45 * len(comparison.arms)), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(comparison.arms))[::-1]
    left = np.zeros(len(places))
    for phase, hatch, grey in zip(PHASES, HATCHES, GREYS, strict=True):
        per_epoch = [np.mean([run.epochs[f"seconds_{phase}"].mean() for run in arm.runs]) for arm in comparison.arms]
        axis.barh(places, per_epoch, left=left, hatch=hatch, color=grey, edgecolor="black", linewidth=0.5, label=phase)
        left += per_epoch
    axis.set_yticks(places, [arm.name for arm in comparison.arms])
    axis.set_xlabel("seconds an epoch")
    axis.grid(axis="y", visible=False)
    figure.legend(ncols=len(PHASES), loc="outside upper center")
    return "Seconds of an epoch by phase, mean over epochs and seeds.", figure


def _accuracy_against_seconds(comparison: Comparison, _: Numbers) -> tuple[str, Figure]:
    protocol, stage, task, metric = comparison.monitor
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axis = figure.subplots()
    for number, arm in enumerate(comparison.arms):
        scores = by_epoch([_epoch_values(run, comparison.monitor) for run in arm.runs]).mean(axis=1, skipna=False)
        phases = [f"seconds_{phase}" for phase in PHASES]
        seconds = by_epoch([run.epochs[phases].sum(axis=1).cumsum() for run in arm.runs]).mean(axis=1, skipna=False)
        axis.plot(seconds, scores * 100, label=arm.name, **line_style(number))
    axis.set_xlabel("seconds of all epochs so far")
    axis.set_ylabel(f"validation {task} {metric} (%)")
    _legend(figure, axis, comparison.arms)
    return f"Validation {task} {metric} ({protocol}, {stage}) against training time, mean over seeds.", figure


def _leakage(comparison: Comparison, numbers: Numbers) -> tuple[str, Figure]:
    stage, task = comparison.monitor[1:3]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    table = numbers.arms
    table = table[(table["stage"] == stage) & (table["task"] == task) & (table["metric"] == "accuracy@1")]
    subsets = [subset for subset in QUERY_SUBSETS if (table["queries"] == subset).any()]
    width = 0.8 / len(subsets)
    for axis, protocol in zip(axes, PROTOCOLS, strict=True):
        for place, subset in enumerate(subsets):
            rows = table[(table["protocol"] == protocol) & (table["queries"] == subset)].set_index("arm")
            rows = rows.loc[[arm.name for arm in comparison.arms]]
            x = np.arange(len(rows)) + (place - (len(subsets) - 1) / 2) * width
            errors = np.abs(np.stack([rows["mean"] - rows["low"], rows["high"] - rows["mean"]])) * 100
            label = f"{QUERY_SUBSETS[subset]} ({rows['query_count'].iloc[0]})" if protocol == PROTOCOLS[0] else None
            style = {"color": GREYS[place], "hatch": ("", "////", "xxxx")[place], "edgecolor": "black"}
            axis.bar(x, rows["mean"] * 100, width, yerr=errors, capsize=2, label=label, **style)
        axis.set_xticks(np.arange(len(comparison.arms)), [arm.name for arm in comparison.arms], rotation=15, ha="right")
        axis.set_title(protocol)
    axes[0].set_ylabel(f"test {task} accuracy@1 (%)")
    figure.legend(loc="outside upper center", ncols=len(subsets))
    return (
        f"The effect of leaks: test {task} accuracy@1 ({stage}) of queries with and without a text of the training "
        "pairs, with 95 % intervals. In brackets: the number of published queries.",
        figure,
    )


def _negative_column(epochs: pd.DataFrame, column: str) -> pd.Series:
    if column == "elsewhere_share":
        return 1 - epochs["debate_share"] - epochs["theme_share"]
    return epochs[column]


def _with_untrained(run: Run, monitor: Monitor) -> pd.Series:
    """Return a run's validation scores after 0, 1, 2, ... epochs of training."""
    stages = run.result.untrained[monitor.protocol]
    untrained = monitor.value(run.result.untrained) if monitor.stage in stages else np.nan
    return pd.Series([untrained, *_epoch_values(run, monitor)])


def _epoch_values(run: Run, monitor: Monitor) -> pd.Series:
    """Return a metric of each epoch (epochs,); NaN without that stage, as for a cross-encoder before it is trained."""
    values: pd.Series = run.epochs.get(monitor.column("validation"), pd.Series(np.nan, index=run.epochs.index))
    return values


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


def line_style(number: int) -> dict[str, Any]:
    """Return colour, line style and marker of the arm of that number."""
    place = number % len(COLOURS)
    shift = (number + number // len(COLOURS)) % len(
        LINES
    )  # with more arms than colours, a colour returns with another line style
    return {"color": COLOURS[place], "linestyle": LINES[shift], "marker": MARKERS[shift], "markersize": 4}


def _legend(figure: Figure, axis: Axes, arms: Sequence[Arm]) -> None:
    if len(arms) > 1:
        handles, labels = axis.get_legend_handles_labels()
        if not labels:
            handles = [axis.plot([], [], **line_style(number))[0] for number in range(len(arms))]
            labels = [arm.name for arm in arms]
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(arms), 3))


FIGURES: dict[str, Callable[[Comparison, Numbers], tuple[str, Figure]]] = {
    "learning": _learning,
    "negatives": _negatives,
    "tasks": _tasks,
    "seconds": _seconds,
    "accuracy-against-seconds": _accuracy_against_seconds,
    "leakage": _leakage,
}

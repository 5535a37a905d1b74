"""The figures of a comparison. Arms differ in more than their colour, so a grey printout is readable."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from negexp.drawing import STYLE, by_epoch, lay_out, legend_of_arms, line_style
from negexp.evaluation.pools import PROTOCOLS, STAGES
from negexp.report.arms import Comparison
from negexp.report.compare import QUERY_SUBSETS, Numbers
from negexp.tracking.curves import ArmCurves, Curves, draw_learning, draw_negatives, epoch_values
from negexp.tracking.run_folder import PHASES

HATCHES = ("", "xxxx", "....", "////", "\\\\", "----")
GREYS = ("#f2f2f2", "#404040", "#bfbfbf", "#8c8c8c", "#d9d9d9", "#6b6b6b")


def draw_figures(comparison: Comparison, numbers: Numbers) -> dict[str, tuple[str, Figure]]:
    """Return caption and figure of each figure of a comparison, by name."""
    leaks = (numbers.arms["queries"] != "all").any()
    makers = {name: make for name, make in FIGURES.items() if leaks or name != "leakage"}
    with mpl.rc_context(STYLE):
        figures = {name: make(comparison, numbers) for name, make in makers.items()}
        for _, figure in figures.values():
            lay_out(figure)
    return figures


def _learning(comparison: Comparison, _: Numbers) -> tuple[str, Figure]:
    protocol, _stage, task, metric = comparison.monitor
    return (
        f"Top: validation {task} {metric} ({protocol}) after each epoch, mean over seeds; the band is one standard "
        "deviation. Bottom: the share of pairs whose negatives are drawn at random. 0 epochs means before training.",
        draw_learning(_arm_curves(comparison), comparison.monitor),
    )


def _negatives(comparison: Comparison, _: Numbers) -> tuple[str, Figure]:
    return (
        "The negatives of each epoch when they were sampled: means over pairs, then over seeds. Thin lines without "
        "markers in the first panel show the distance to the gold counter.",
        draw_negatives(_arm_curves(comparison)),
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
    legend_of_arms(figure, axes[0], [arm.name for arm in comparison.arms])
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
        scores = by_epoch([epoch_values(run.epochs, comparison.monitor) for run in arm.runs]).mean(axis=1, skipna=False)
        phases = [f"seconds_{phase}" for phase in PHASES]
        seconds = by_epoch([run.epochs[phases].sum(axis=1).cumsum() for run in arm.runs]).mean(axis=1, skipna=False)
        axis.plot(seconds, scores * 100, label=arm.name, **line_style(number))
    axis.set_xlabel("seconds of all epochs so far")
    axis.set_ylabel(f"validation {task} {metric} (%)")
    legend_of_arms(figure, axis, [arm.name for arm in comparison.arms])
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


def _arm_curves(comparison: Comparison) -> list[ArmCurves]:
    return [
        ArmCurves(arm.name, [Curves(run.epochs, run.result.untrained) for run in arm.runs]) for arm in comparison.arms
    ]


FIGURES: dict[str, Callable[[Comparison, Numbers], tuple[str, Figure]]] = {
    "learning": _learning,
    "negatives": _negatives,
    "tasks": _tasks,
    "seconds": _seconds,
    "accuracy-against-seconds": _accuracy_against_seconds,
    "leakage": _leakage,
}

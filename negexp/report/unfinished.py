"""The part of a watched report on unfinished runs: their learning curves beside those of finished runs, and a table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from negexp.drawing import STYLE, by_epoch, draw_band, lay_out, line_style
from negexp.report.listing import HEADER, Listed
from negexp.report.tables import Table
from negexp.report.write import UNFINISHED, Picture, Unfinished, write_picture

OWN_FIGURES = re.compile(rf"(\d+-)?{UNFINISHED}\.(svg|png)")
MARKED = {"linestyle": "--", "marker": "o", "markerfacecolor": "white"}  # an unfinished run, whatever its arm


def write_unfinished(listed: Sequence[Listed], folder: Path) -> Unfinished | None:
    """Draw the learning curves of all runs with an unfinished one beside them; None when all runs are finished.

    Runs share a figure when they have the same monitored metric and the same data.
    """
    open_runs = [one for one in listed if one.state in ("running", "stopped")]
    for path in folder.iterdir():
        if OWN_FIGURES.fullmatch(path.name):
            path.unlink()
    if not open_runs:
        return None
    groups: dict[tuple[str, str], list[Listed]] = defaultdict(list)
    for one in listed:
        if one.run is not None and one.state != "damaged":
            data = {**asdict(one.run.config.data), "path": None}  # corpora move
            groups[one.run.config.trainer.monitor, repr(data)].append(one)
    pictures: list[Picture] = []
    for (monitor, _), members in groups.items():
        if any(one in open_runs and len(one.values) for one in members):
            caption, figure = _draw(members, monitor)
            name = f"{len(pictures) + 1}-{UNFINISHED}" if len(groups) > 1 else UNFINISHED
            pictures.append(write_picture(folder, name, caption, figure))
    rows = [[*one.cells(), one.folder.name] for one in open_runs]
    return Unfinished(pictures, Table("Runs without a result yet; best: validation", [*HEADER, "folder"], rows))


def _draw(members: Sequence[Listed], monitor: str) -> tuple[str, Figure]:
    arms: dict[tuple[str, str], list[Listed]] = defaultdict(list)
    for one in members:
        assert one.run is not None
        arms[one.run.name, one.arm].append(one)
    named = len({name for name, _ in arms}) > 1
    figure = Figure(figsize=(8, 3.8 + 0.2 * len(members)), layout="constrained")
    with mpl.rc_context(STYLE):
        axis = figure.subplots()
        for number, ((name, arm), own) in enumerate(arms.items()):
            label = f"{name}: {arm}" if named else arm
            done = [100 * one.values for one in own if one.state == "finished"]
            if done:
                table = by_epoch(done)
                table.index = table.index + 1
                draw_band(axis, table, number, f"{label} ({len(done)} finished)")
            for one in own:
                if one.state != "finished" and len(one.values):
                    style = line_style(number) | MARKED
                    axis.plot(one.values.index + 1, 100 * one.values, label=_label(one, label), **style)
        axis.set_xlabel("epochs trained")
        axis.set_ylabel(f"validation {monitor.rpartition('/')[2]} (%)")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper center", ncols=2)
        lay_out(figure)
    return (
        f"Validation {monitor} after each epoch. Dashed lines with open circles: unfinished runs. Solid lines: means "
        "over the finished runs of an arm. All other parts of this report are about finished runs.",
        figure,
    )


def _label(one: Listed, arm: str) -> str:
    assert one.run is not None
    return f"{arm}, seed {one.run.config.seed} ({one.state}, {len(one.values)} of {one.run.config.trainer.epochs})"

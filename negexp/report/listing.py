"""List runs, finished or not: name, arm, epochs, best value and state. Weights are not read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from negexp.errors import InputError
from negexp.report.arms import name_arms
from negexp.report.runs import find_runs, read_runs
from negexp.tracking.files import shown
from negexp.tracking.stored_run import StoredRun, best_of

STATES = ("finished", "running", "stopped", "damaged")
NONE = "-"  # a cell without a value


@dataclass(frozen=True)
class Listed:
    """A run as it is listed.

    state: one of `STATES`. run: None if its configuration cannot be read. values: the monitored validation metric by
    epoch. arm: settings that tell it from the other arms of the runs with its name. damage: the reason.
    """

    folder: Path
    state: str
    run: StoredRun | None
    values: pd.Series
    arm: str = NONE
    damage: str | None = None

    def cells(self) -> list[str]:
        """Return name, arm, seed, epochs done, best value with its epoch, and state."""
        if self.run is None:
            return [NONE, NONE, NONE, NONE, NONE, self.state]
        done = f"{len(self.values)} of {self.run.config.trainer.epochs}"
        best = best_of(self.values)
        reached = NONE if best is None else f"{best.value:.4f} (epoch {best.epoch})"
        return [self.run.name, self.arm, str(self.run.config.seed), done, reached, self.state]


HEADER = ["name", "arm", "seed", "epochs", "best", "state"]


def list_runs(folders: Sequence[Path]) -> list[Listed]:
    """Return the runs of the folders, in this order."""
    return with_arms([read_listed(folder) for folder in folders])


def read_listed(folder: Path) -> Listed:
    """Return the run of a folder, without its arm, which depends on the other runs.

    It is damaged when `negexp report` would say so: tables are missing, or do not give the metrics of result.json.
    """
    none = pd.Series(dtype="float64")
    try:
        run = StoredRun.open(folder)
    except InputError as error:
        return Listed(folder, "damaged", None, none, damage=str(error))
    try:
        state, values = run.state, run.validation()
    except InputError as error:
        return Listed(folder, "damaged", run, none, damage=str(error))
    skipped = read_runs([folder])[1] if state == "finished" else []
    if skipped:
        return Listed(folder, "damaged", run, values, damage=skipped[0].reason)
    return Listed(folder, state, run, values)


def with_arms(listed: Sequence[Listed]) -> list[Listed]:
    """Return the runs with their arms. Arms are named among the runs with the same name, as those of a sweep are."""
    places: dict[str, list[int]] = defaultdict(list)
    named = list(listed)
    for place, one in enumerate(listed):
        if one.run is not None:
            places[one.run.name].append(place)
    for own in places.values():
        configs = [run.config for run in (listed[place].run for place in own) if run is not None]
        for place, arm in zip(own, name_arms(configs), strict=True):
            named[place] = replace(listed[place], arm=arm)
    return named


def listing_text(runs: str) -> str:
    """Return the table of `negexp runs`, the reason of each damage, and how many runs are in which state.

    Raises
    ------
    InputError
        When there is no run.
    """
    listed = list_runs(find_runs(runs))
    monitors = {str(one.run.monitor) for one in listed if one.run is not None}
    header, rows = [*HEADER, "folder"], [[*one.cells(), shown(one.folder)] for one in listed]
    if len(monitors) > 1:
        header.append("best: validation")
        for row, one in zip(rows, listed, strict=True):
            row.append(NONE if one.run is None else str(one.run.monitor))
    lines = _aligned([header, *rows])
    lines += [f"damaged {shown(one.folder)}: {one.damage}" for one in listed if one.damage is not None]
    states = Counter(one.state for one in listed)
    counts = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    best = f"; best: validation {monitors.pop()}" if len(monitors) == 1 else ""
    return "\n".join([*lines, f"{len(listed)} run{'s' * (len(listed) > 1)}: {counts}{best}"])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

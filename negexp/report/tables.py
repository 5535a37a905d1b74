"""What a person reads: a comparison's numbers as small tables of text, the same ones for Markdown and HTML."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from negexp.evaluation.pools import PROTOCOLS
from negexp.evaluation.ranking import STAGES
from negexp.report.arms import Arm, Comparison
from negexp.report.compare import SEEN, Numbers, best_first, primary, signed


@dataclass(frozen=True)
class Table:
    """A titled table of text; the first column names the row."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return the table in Markdown, without its title."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main_table(comparison: Comparison, numbers: Numbers, queries: str) -> Table:
    """Return the headline's metric by arm, in both protocols and stages, and what an epoch costs."""
    protocol, stage, task, metric = comparison.monitor
    columns = [
        (one, other) for one in dict.fromkeys([protocol, *PROTOCOLS]) for other in dict.fromkeys([stage, *STAGES])
    ]
    order = best_first(numbers.arms, comparison, queries)["arm"]
    by_name = {arm.name: arm for arm in comparison.arms}
    rows = []
    for name in order:
        arm = by_name[name]
        cells = [_cell(numbers, arm.name, one, queries, other, task, metric) for one, other in columns]
        rows.append([name, str(len(arm.runs)), *cells, f"{_seconds(arm):.1f}"])
    header = ["arm", "seeds", *(f"{one}, {other}" for one, other in columns), "seconds an epoch"]
    return Table(f"Test {task} {metric} in %, mean ± sd over seeds [95 % interval], {SEEN[queries]}", header, rows)


def seen_table(comparison: Comparison, numbers: Numbers) -> Table | None:
    """Return the headline's metric on queries seen and unseen in training; None when training saw none of them."""
    subsets = [subset for subset in SEEN if (numbers.arms["queries"] == subset).any()]
    if len(subsets) == 1:
        return None
    _, stage, task, metric = comparison.monitor
    sizes = _protocols_and_subsets(numbers)
    header = ["arm"] + [f"{protocol}, {subset} ({size})" for (protocol, subset), size in sizes.items()]
    rows = [
        [arm.name, *(_cell(numbers, arm.name, protocol, subset, stage, task, metric) for protocol, subset in sizes)]
        for arm in comparison.arms
    ]
    return Table(f"Test {task} {metric} in % ({stage}) by whether training saw a text of the query", header, rows)


def pair_table(comparison: Comparison, numbers: Numbers, queries: str) -> Table | None:
    """Return the tests in the headline's cell, of all pairs of arms or of the best arm's; None for one arm."""
    if numbers.pairs.empty:
        return None
    pairs = primary(numbers.pairs, comparison, queries)
    rows = [
        [
            f"{pair['first']} - {pair['second']}",
            signed(pair["mean"]),
            f"[{signed(pair['low'])}, {signed(pair['high'])}]",
            f"{pair['p']:.3g}",
            f"{pair['p_adjusted']:.3g}",
        ]
        for _, pair in pairs.iterrows()
    ]
    protocol, stage, task, metric = comparison.monitor
    title = f"Pairs of arms: test {task} {metric} in points ({protocol}, {stage}, {SEEN[queries]})"
    return Table(title, ["difference of", "points", "95 % interval", "p", "p (all pairs)"], rows)


def task_tables(comparison: Comparison, numbers: Numbers) -> list[Table]:
    """Return accuracy@1 of every task by arm: a table for each protocol, stage and subset of queries."""
    tables = []
    for protocol, subset in _protocols_and_subsets(numbers):
        part = numbers.arms[(numbers.arms["protocol"] == protocol) & (numbers.arms["queries"] == subset)]
        for stage in STAGES:
            tasks = list(dict.fromkeys(part["task"]))
            rows = [
                [
                    task,
                    *(_cell(numbers, arm.name, protocol, subset, stage, task, "accuracy@1") for arm in comparison.arms),
                ]
                for task in tasks
            ]
            title = f"Test accuracy@1 in %, {protocol}, {stage}, {SEEN[subset]}"
            tables.append(Table(title, ["task", *(arm.name for arm in comparison.arms)], rows))
    return tables


def settings_table(comparison: Comparison) -> Table | None:
    """Return the keys in which arms differ; None for one arm."""
    differing = comparison.differing()
    if not differing:
        return None
    rows = [[key, *(json.dumps(value) for value in values)] for key, values in differing.items()]
    return Table("What differs", ["key", *(arm.name for arm in comparison.arms)], rows)


def versions_table(comparison: Comparison) -> Table:
    """Return the versions and machines that the runs name; several values where they differ."""
    found: dict[str, dict[str, None]] = {}
    for run in comparison.runs:
        values = {**run.result["versions"], "device": run.result.get("runtime", "")}
        for name, value in values.items():
            found.setdefault(str(name), {})[str(value)] = None
    return Table("Versions", ["package", "version"], [[name, "; ".join(values)] for name, values in found.items()])


def curves(comparison: Comparison) -> pd.DataFrame:
    """Return all epochs of all runs, as metrics.csv has them, with arm and seed."""
    frames = []
    for arm in comparison.arms:
        for run in arm.runs:
            frame = run.epochs.copy()
            frame.insert(0, "arm", arm.name)
            frame.insert(1, "seed", run.seed)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _protocols_and_subsets(numbers: Numbers) -> dict[tuple[str, str], int]:
    """Return (protocol, subset of queries) -> number of queries, of all that were computed."""
    each = numbers.arms.drop_duplicates(["protocol", "queries"])
    keys = zip(each["protocol"].tolist(), each["queries"].tolist(), strict=True)
    return dict(zip(keys, each["query_count"].tolist(), strict=True))


def _cell(numbers: Numbers, arm: str, protocol: str, queries: str, stage: str, task: str, metric: str) -> str:
    """Return `41.2 ± 0.8 [38.9, 43.5]`, in percent; empty where no query is in the subset."""
    value = numbers.by_cell.get((arm, protocol, queries, stage, task, metric))
    if value is None:
        return ""
    deviation = "" if np.isnan(value["sd"]) else f" ± {100 * value['sd']:.1f}"
    interval = "" if np.isnan(value["low"]) else f" [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
    return f"{100 * value['mean']:.1f}{deviation}{interval}"


def _seconds(arm: Arm) -> float:
    columns = [column for column in arm.runs[0].epochs if str(column).startswith("seconds_")]
    return float(np.mean([run.epochs[columns].sum(axis=1).mean() for run in arm.runs]))
